// snug template: a conversation as a model's chat template, or one from a file, renders it.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "cli/args.h"
#include "text/chat_template.h"

namespace snug::cli {
namespace {

struct TemplateArgs {
  std::string source, input = "-";
  bool json = false;
};

bool IsModel(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return true;
  const auto file = File::Open(path);
  char magic[4] = {};
  return file.ok() && file->size() > sizeof magic && file->ReadAt(0, magic, sizeof magic).ok() &&
         std::string_view(magic, 4) == "GGUF";
}

// The names for the template: an object, or the messages alone.
Result<Json> ReadInput(const std::string& path) {
  SNUG_ASSIGN(const std::string text, ReadText(path));
  SNUG_ASSIGN(Json input, ParseJson(text, path == "-" ? "standard input" : path));
  if (input.is_array()) return Json{{"messages", std::move(input)}};
  if (!input.is_object()) {
    return MakeError(Code::kBadInput, "the input is neither an object nor an array of messages",
                     R"(such as {"messages": [{"role": "user", "content": "Hello"}]})");
  }
  return input;
}

Result<ModelTemplate> ReadTemplate(const std::string& path, const Json& input) {
  if (IsModel(path)) {
    SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, ModelFile::Open(path));
    return ReadModelTemplate(*file, input.contains("tools") && !input["tools"].empty());
  }
  SNUG_ASSIGN(std::string source, ReadWholeFile(path, kMaxTemplate));
  return ModelTemplate{std::move(source), "<s>", "</s>", "<unk>", "<pad>"};
}

Status Template(const TemplateArgs& a) {
  SNUG_ASSIGN(Json input, ReadInput(a.input));
  SNUG_ASSIGN(const ModelTemplate model, ReadTemplate(a.source, input));
  AddTokenTexts(model, &input);
  SNUG_ASSIGN(const ChatTemplate chat_template, ChatTemplate::Parse(model.source));
  SNUG_ASSIGN(const std::string text, chat_template.Render(input));
  if (a.json) {
    fmt::print("{}\n", DumpJson({{"text", text}}));
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  return {};
}

}  // namespace

void AddTemplate(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<TemplateArgs>();
  Verb verb(app, "template", "render a conversation with a chat template");
  verb.Footer(
      "example: echo '[{\"role\": \"user\", \"content\": \"Hello\"}]' | snug template model.gguf\n"
      "The input is an object of the names that the template knows: messages, tools,\n"
      "add_generation_prompt (true where it is left out), enable_thinking, ...; or just the\n"
      "messages. \"now\": \"2026-01-02 03:04:05\" sets the time.");
  verb.Add("MODEL,-m,--model", a->source, "a model, or a file with a template").Required();
  verb.Add("--input", a->input, "a JSON file (-: standard input)").Default();
  verb.Flag("--json", a->json, "one JSON object on stdout");
  verb.Callback([a, exit_code] {
    const Status s = Template(*a);
    *exit_code = s.ok() ? 0 : Report(s.error(), a->json);
  });
}

}  // namespace snug::cli
