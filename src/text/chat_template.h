// Chat templates: the Jinja subset that published templates use, as transformers renders them
// (trim_blocks and lstrip_blocks on, autoescape off). Templates are untrusted code: steps, depth
// and output are bounded. A template that cannot be rendered is a typed error with line and column,
// never a fallback.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace snug {

struct TemplateLimits {
  uint64_t steps = 10'000'000;  // evaluated nodes
  uint32_t depth = 200;         // of nesting, in parsing and in rendering
  uint64_t output_bytes = 64u << 20;
};

class ChatTemplate {
 public:
  static Result<ChatTemplate> Parse(std::string_view source, const TemplateLimits& limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();
  // `input` is the object of global names: messages, tools, documents, add_generation_prompt,
  // bos_token, ...; "now" ("2026-01-02 03:04:05") freezes strftime_now.
  Result<std::string> Render(const nlohmann::ordered_json& input) const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace snug
