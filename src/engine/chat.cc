#include "engine/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/file.h"

namespace snug {
namespace {

constexpr uint64_t kMaxSaved = 64 * kMiB;
constexpr std::array<std::string_view, 4> kSpeakers = {"system", "user", "assistant", "tool"};

Json Message(std::string_view role, std::string_view content) {
  return {{"role", role}, {"content", content}};
}

bool HasText(const Json& message, const char* key) {
  return message.contains(key) && message[key].is_string();
}

// The messages of a saved conversation. kBadInput naming the first that is none.
Result<Json> ReadMessages(const Json& saved, const std::string& path) {
  const Json* list = &saved;
  if (saved.is_object() && saved.contains("messages")) list = &saved["messages"];
  if (!list->is_array()) {
    return MakeError(Code::kBadInput, fmt::format("{} holds no messages", path),
                     "it should be what /save writes: {\"messages\": [{\"role\": ..., "
                     "\"content\": ...}]}",
                     {{"path", path}});
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& m = (*list)[i];
    const bool known = m.is_object() && HasText(m, "role") && HasText(m, "content") &&
                       std::find(kSpeakers.begin(), kSpeakers.end(),
                                 m["role"].get_ref<const std::string&>()) != kSpeakers.end();
    if (!known || (i > 0 && m["role"] == "system")) {
      return MakeError(Code::kBadInput,
                       fmt::format("{}: message {} has no content as text and role of user, "
                                   "assistant, tool or, for the first, system",
                                   path, i),
                       {}, {{"path", path}, {"message", std::to_string(i)}});
    }
  }
  return *list;
}

}  // namespace

Result<Chat> Chat::Create(const Engine& engine, ChatOptions options) {
  SNUG_TRY(options.sampling.Validate());
  ModelTemplate model;
  model.source =
      options.template_source.empty() ? engine.ChatTemplateSource() : options.template_source;
  if (model.source.empty()) {
    return MakeError(Code::kBadInput, fmt::format("{} has no chat template", engine.file().path()),
                     "give one with --chat-template-file, or complete text with `snug run`",
                     {{"path", engine.file().path()}});
  }
  const Tokenizer& tokenizer = engine.tokenizer();
  model.bos_token = tokenizer.TokenText(tokenizer.bos());
  model.eos_token = tokenizer.TokenText(tokenizer.eos());
  TemplateLimits limits;
  limits.memory_bytes = kChatBytes;
  limits.output_bytes = kChatBytes / 4;
  SNUG_ASSIGN(ChatTemplate parsed, ChatTemplate::Parse(model.source, limits));
  return Chat(engine.config().name, std::move(options), std::move(model), std::move(parsed));
}

Json Chat::messages() const {
  Json all = Json::array();
  if (!options_.system.empty()) all.push_back(Message("system", options_.system));
  for (const Json& m : messages_) all.push_back(m);
  return all;
}

Result<std::string> Chat::Render(const Json& messages) const {
  Json input = options_.variables;
  input["messages"] = messages;
  AddTokenTexts(model_, &input);
  return template_.Render(input);
}

Result<ChatTurn> Chat::Say(Engine& engine, std::string_view text, const TurnOptions& options) {
  Json all = messages();
  all.push_back(Message("user", text));
  SNUG_ASSIGN(const std::string rendered, Render(all));
  std::vector<Token> prompt;
  EncodeRendered(engine.tokenizer(), rendered, &prompt);

  const uint32_t context = engine.options().context;
  const uint64_t read = engine.options().Read(prompt.size());
  const size_t room = read < context ? context - read : 0;
  const size_t wanted = std::max(options_.max_tokens, 1u);
  if (room < wanted) {
    return MakeError(
        Code::kDoesNotFit,
        fmt::format("the conversation would have {} tokens with this message, and with {} for the "
                    "answer exceed the context of {}",
                    read, wanted, context),
        "shorten the message, /clear to begin anew, or start with a larger --ctx-size",
        {{"prompt_tokens", std::to_string(read)},
         {"max_tokens", std::to_string(wanted)},
         {"context", std::to_string(context)}});
  }

  ChatTurn turn;
  ThinkSplitter splitter(ThinkSplitter::EndsInside(rendered));
  const auto sink = [&](TextKind kind, std::string_view piece) {
    (kind == TextKind::kThinking ? turn.thinking : turn.content) += piece;
    if (options.on_text) options.on_text(kind, piece);
  };
  GenerateOptions generate;
  generate.sampling = options_.sampling;
  generate.max_tokens =
      options_.max_tokens != 0 ? options_.max_tokens : static_cast<uint32_t>(room);
  generate.plane_head = options_.plane_head;
  generate.on_text = [&](std::string_view piece) { splitter.Push(piece, sink); };
  generate.on_prefill = options.on_prefill;
  generate.cancel = options.cancel;
  SNUG_ASSIGN(turn.generation, Generate(engine, 0, prompt, generate));
  splitter.Finish(sink);
  if (turn.generation.tokens.empty()) return turn;

  Json answer = Message("assistant", turn.content);
  if (!turn.thinking.empty()) answer["reasoning_content"] = turn.thinking;
  messages_.push_back(Message("user", text));
  messages_.push_back(std::move(answer));
  return turn;
}

Status Chat::Save(const std::string& path) const {
  const Json saved = {{"model", name_}, {"messages", messages()}};
  const std::string text = DumpJson(saved, 2) + "\n";
  return WriteFileAtomically(path, text.data(), text.size());
}

Status Chat::Load(const std::string& path) {
  SNUG_ASSIGN(const std::string text, ReadWholeFile(path, kMaxSaved));
  SNUG_ASSIGN(const Json saved, ParseJson(text, path));
  SNUG_ASSIGN(Json loaded, ReadMessages(saved, path));
  options_.system.clear();
  if (!loaded.empty() && loaded[0]["role"] == "system") {
    options_.system = loaded[0]["content"].get<std::string>();
    loaded.erase(0);
  }
  messages_ = std::move(loaded);
  return {};
}

}  // namespace snug
