#include "text/chat_template.h"

#include <fmt/format.h>

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

namespace snug {
namespace {

Result<std::tm> LocalTime(const nlohmann::ordered_json& input) {
  std::tm t{};
  if (!input.contains("now")) {
    const std::time_t now = std::time(nullptr);
    localtime_r(&now, &t);
    return t;
  }
  const auto& now = input["now"];
  if (now.is_string() &&
      std::sscanf(now.get_ref<const std::string&>().c_str(), "%4d-%2d-%2d%*1[ T]%2d:%2d:%2d",
                  &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour, &t.tm_min, &t.tm_sec) == 6 &&
      t.tm_year > 0 && t.tm_mon > 0 && t.tm_mon <= 12 && t.tm_mday > 0 && t.tm_mday <= 31 &&
      t.tm_hour >= 0 && t.tm_hour < 24 && t.tm_min >= 0 && t.tm_min < 60 && t.tm_sec >= 0 &&
      t.tm_sec <= 60) {
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    // Fills in the day of the week and of the year, without a time zone's shifts.
    std::tm filled = t;
    timegm(&filled);
    return filled;
  }
  return MakeError(Code::kBadInput, "\"now\" is no time of the form 2026-01-02 03:04:05");
}

Error InTemplate(Error error) {
  error.message = "chat template: " + error.message;
  return error;
}

}  // namespace

struct ChatTemplate::Impl {
  std::unique_ptr<jinja::Ast> ast;
  TemplateLimits limits;
};

ChatTemplate::ChatTemplate() : impl_(std::make_unique<Impl>()) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::Parse(std::string_view source, const TemplateLimits& limits) {
  ChatTemplate t;
  t.impl_->limits = limits;
  Result<std::unique_ptr<jinja::Ast>> ast = jinja::Parse(source, limits);
  if (!ast.ok()) return InTemplate(std::move(ast).error());
  t.impl_->ast = std::move(ast).value();
  return t;
}

Result<std::string> ChatTemplate::Render(const nlohmann::ordered_json& input) const {
  if (!input.is_object()) {
    return MakeError(Code::kBadInput, "a chat template's input is an object of names");
  }
  SNUG_ASSIGN(const std::tm now, LocalTime(input));
  jinja::Runtime runtime(impl_->limits);
  runtime.now = now;
  jinja::Interpreter interpreter(*impl_->ast, runtime);
  interpreter.Define("add_generation_prompt", jinja::Value::Bool(true));
  Result<std::string> out = interpreter.Run(input);
  if (!out.ok()) return InTemplate(std::move(out).error());
  return out;
}

Result<ModelTemplate> ReadModelTemplate(const ModelFile& file, bool tools) {
  ModelTemplate model;
  const std::string key = "tokenizer.chat_template";
  std::optional<std::string> source;
  if (tools) source = file.GetString(key + ".tool_use");
  if (!source) source = file.GetString(key);
  if (!source) {
    return MakeError(Code::kBadInput, fmt::format("{} has no chat template", file.path()),
                     "give the prompt without --chat, or another model",
                     {{"path", file.path()}, {"key", key}});
  }
  model.source = *std::move(source);
  struct {
    const char* key;
    std::string* text;
    std::optional<uint64_t> id;
  } tokens[] = {{"bos", &model.bos_token, {}},
                {"eos", &model.eos_token, {}},
                {"unknown", &model.unk_token, {}},
                {"padding", &model.pad_token, {}}};
  if (!file.Has("tokenizer.ggml.tokens")) {  // a folder
    for (auto& t : tokens) *t.text = file.SpecialText(t.key).value_or("");
    return model;
  }
  for (auto& t : tokens) t.id = file.GetUint(fmt::format("tokenizer.ggml.{}_token_id", t.key));
  SNUG_TRY(file.ForEachString("tokenizer.ggml.tokens", [&](uint64_t i, std::string_view text) {
    for (auto& t : tokens) {
      if (t.id == i) *t.text = std::string(text);
    }
  }));
  return model;
}

void AddTokenTexts(const ModelTemplate& model, nlohmann::ordered_json* input) {
  input->emplace("bos_token", model.bos_token);
  input->emplace("eos_token", model.eos_token);
  input->emplace("unk_token", model.unk_token);
  input->emplace("pad_token", model.pad_token);
}

void EncodeRendered(const Tokenizer& tokenizer, std::string_view text, std::vector<Token>* out) {
  const size_t start = out->size();
  tokenizer.Encode(text, {false, true}, out);
  const bool has_bos = out->size() > start && (*out)[start] == tokenizer.bos();
  if (tokenizer.add_bos() && !has_bos) out->insert(out->begin() + start, tokenizer.bos());
}

}  // namespace snug
