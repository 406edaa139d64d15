// A conversation over the engine's steps, in the words of the model's chat template. Each turn's
// prompt is rendered and tokenized whole, so that a saved conversation goes on exactly as the
// original would; what the cache holds of it is not computed again. Where the engine chooses what
// is read of a prompt (EngineOptions::reduce), it chooses anew from the whole of it in every turn.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/think.h"
#include "text/chat_template.h"

namespace snug {

struct ChatOptions {
  std::string system;               // the system message; none where empty
  std::string template_source;      // empty: the model's own
  Json variables = Json::object();  // further inputs of the template, such as enable_thinking
  SamplingOptions sampling;
  uint32_t max_tokens = 0;  // of an answer; 0: what the context leaves
  bool plane_head = true;   // see GenerateOptions
};

// What a turn needs besides its text; each may be null.
struct TurnOptions {
  std::function<void(TextKind kind, std::string_view text)> on_text;  // whole UTF-8 sequences
  std::function<void(uint32_t done, uint32_t total)> on_prefill;
  const std::atomic<bool>* cancel = nullptr;  // set: the answer ends with what there is
};

struct ChatTurn {
  std::string thinking, content;
  Generation generation;
};

// What a template may take to render a conversation, beside the engine: to be counted in its
// options as the caller's.
inline constexpr uint64_t kChatBytes = 8 * kMiB;

class Chat {
 public:
  // The engine may still be without its weights. Errors: kBadInput for a model without a chat
  // template and for one that cannot be read, kUsage for sampling options.
  static Result<Chat> Create(const Engine& engine, ChatOptions options);

  // Says `text` and returns the answer of the engine's sequence 0, also a cancelled one; both are
  // then part of the conversation, unless no token came. Errors leave it as it was: kDoesNotFit,
  // with the numbers and before any work, where the context has no room for the answer; kBadInput
  // from the template; kIo.
  Result<ChatTurn> Say(Engine& engine, std::string_view text, const TurnOptions& options);
  // Forgets all messages; the system's stays.
  void Clear() { messages_ = Json::array(); }
  // The system message (none where empty) from the next turn on.
  void SetSystem(std::string text) { options_.system = std::move(text); }
  const std::string& system() const { return options_.system; }

  // {"model", "messages": [{"role", "content"}, ...]}, the system's first. Save replaces the file
  // atomically; Load takes the same, or the bare array, and replaces the conversation. Errors: kIo,
  // kBadFile, kBadInput naming what is wrong in the file.
  Status Save(const std::string& path) const;
  Status Load(const std::string& path);

  // All messages, the system's first.
  Json messages() const;

 private:
  Chat(std::string name, ChatOptions options, ModelTemplate model, ChatTemplate parsed)
      : name_(std::move(name)),
        options_(std::move(options)),
        model_(std::move(model)),
        template_(std::move(parsed)) {}
  Result<std::string> Render(const Json& messages) const;

  std::string name_;  // of the model
  ChatOptions options_;
  ModelTemplate model_;
  ChatTemplate template_;
  Json messages_ = Json::array();  // but the system's
};

}  // namespace snug
