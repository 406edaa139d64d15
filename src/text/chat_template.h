// Chat templates: the Jinja that published templates use, as transformers renders them (jinja2's
// sandbox with trim_blocks, lstrip_blocks, break and continue, `generation` blocks, autoescape
// off). Templates are untrusted code: steps, depth, memory and output are bounded. A template that
// cannot be rendered is a typed error with line and column, never a fallback.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "format/model_file.h"
#include "text/tokenizer.h"

namespace snug {

struct TemplateLimits {
  uint64_t steps = 20'000'000;   // evaluated nodes, and work on items and bytes
  uint32_t depth = 200;          // of nesting in the source and in the input
  uint32_t render_depth = 1500;  // of evaluations within one another
  uint64_t output_bytes = 64u << 20;
  uint64_t memory_bytes = 256u << 20;  // of all values together
};

class ChatTemplate {
 public:
  // Errors: kBadInput with line and column, in the message and as values.
  static Result<ChatTemplate> Parse(std::string_view source, const TemplateLimits& limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();
  // `input` is the object of global names: messages, tools, documents, add_generation_prompt,
  // bos_token, ...; "now" ("2026-01-02 03:04:05") freezes strftime_now and is no name itself;
  // add_generation_prompt is true where it is missing. Errors as for Parse. Threads may render one
  // template at once.
  Result<std::string> Render(const nlohmann::ordered_json& input) const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What a model file says about its template.
struct ModelTemplate {
  std::string source;
  // Of these tokens, empty where the model has none.
  std::string bos_token, eos_token, unk_token, pad_token;
};
// The template of a model, the one for tools where it has several and `tools` says so. Errors:
// kBadInput where it has none, kBadFile where its vocabulary cannot be read.
Result<ModelTemplate> ReadModelTemplate(const ModelFile& file, bool tools);
// Adds the tokens' texts to `input` where it lacks them.
void AddTokenTexts(const ModelTemplate& model, nlohmann::ordered_json* input);
// Appends the tokens of a rendering: special tokens are read as such, and BOS is put first where
// the model wants it and the template has not.
void EncodeRendered(const Tokenizer& tokenizer, std::string_view text, std::vector<Token>* out);

}  // namespace snug
