// Which layer finds a sentence in a long text: for every layer of a model, the share of a made-up
// sentence's tokens that a method of tokens.reduce would read of a prompt which ends with a
// question about it. One pass over all layers serves all methods. It is how `layer` is chosen for a
// model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/file.h"
#include "engine/engine.h"

namespace {

using namespace snug;

struct Needle {
  const char *fact, *question;
};
// Made up, and none of a book's.
constexpr Needle kNeedles[] = {
    {" The ferry to Harrow Island leaves at twenty past six from the green pier. ",
     "When and from where does the ferry to Harrow Island leave?"},
    {" Marta Quill keeps the spare key of the observatory under a blue flower pot. ",
     "Where does Marta Quill keep the spare key of the observatory?"},
    {" The secret ingredient of the village's prize-winning soup is smoked plum. ",
     "What is the secret ingredient of the village's prize-winning soup?"},
    {" The password of the old radio station is copper walrus 41. ",
     "What is the password of the old radio station?"},
    {" Professor Tamsin Vole was born in the lighthouse at Cape Ebony. ",
     "Where was Professor Tamsin Vole born?"},
    {" The winner of the 1977 kite race was a baker called Odo Finch. ",
     "Who won the 1977 kite race?"},
};

struct Args {
  std::string model, text, memory = "auto";
  uint32_t length = 4096, prompts = 6, skip = 0;
  int threads = 0;
  std::vector<std::string> methods = {"gemfilter:keep=512"};
};

// A prompt and where in it the sentence stands.
struct Prompt {
  std::vector<Token> tokens;
  size_t first = 0, last = 0;
};

Prompt Make(const Tokenizer& tokenizer, std::span<const Token> hay, size_t index, size_t of) {
  const Needle& needle = kNeedles[index % std::size(kNeedles)];
  Prompt p;
  const auto add = [&](const std::string& text) {
    std::vector<Token> piece;
    tokenizer.Encode(text, {p.tokens.empty(), true}, &piece);
    p.tokens.insert(p.tokens.end(), piece.begin(), piece.end());
  };
  std::vector<Token> marker;
  tokenizer.Encode("<|im_start|>", {false, true}, &marker);
  const bool chat = marker.size() == 1;  // otherwise the text goes on without roles
  add(chat ? "<|im_start|>user\nRead the text and answer the question after it.\n\n" : "\n");
  const size_t before = hay.size() * (2 * index + 1) / (2 * of);
  p.tokens.insert(p.tokens.end(), hay.begin(), hay.begin() + static_cast<std::ptrdiff_t>(before));
  p.first = p.tokens.size();
  add(needle.fact);
  p.last = p.tokens.size();
  p.tokens.insert(p.tokens.end(), hay.begin() + static_cast<std::ptrdiff_t>(before), hay.end());
  add(fmt::format("\n\nQuestion: {}", needle.question));
  add(chat ? "<|im_end|>\n<|im_start|>assistant\n" : "\nAnswer:");
  return p;
}

Status Run(const Args& a) {
  EngineOptions o;
  o.model_path = a.model;
  SNUG_ASSIGN(o.budget, ParseBudget(a.memory, MemoryBounds()));
  o.threads = a.threads;
  o.prompt = a.length + 256;
  std::vector<std::shared_ptr<const ReduceMethod>> methods;
  for (const std::string& spec : a.methods) {
    SNUG_ASSIGN(methods.emplace_back(), ParseReduce(spec));
  }
  o.reduce = methods[0];
  o.context = static_cast<uint32_t>(o.Read(o.prompt)) + 1;
  SNUG_ASSIGN(const std::string text, ReadWholeFile(a.text, 64 * kMiB));
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(o));
  std::vector<Token> hay;
  engine->tokenizer().Encode(text, {false, false}, &hay);
  if (hay.size() < size_t{a.skip} + size_t{a.prompts} * a.length) {
    return MakeError(Code::kBadInput, fmt::format("{} has {} tokens", a.text, hay.size()),
                     "give a longer text, or less of --prompts, --length and --skip");
  }
  // The last layer that sees the whole prompt.
  uint32_t last = engine->config().layers - 1;
  while (last > 0 && engine->config().window[last] != 0) --last;
  std::vector<std::vector<double>> recall(methods.size(), std::vector<double>(last + 1));
  for (uint32_t i = 0; i < a.prompts; ++i) {
    const Prompt p = Make(engine->tokenizer(),
                          std::span(hay).subspan(a.skip + i * a.length, a.length), i, a.prompts);
    const auto n = static_cast<uint32_t>(p.tokens.size());
    const auto score = [&](uint32_t layer, const PromptScores& scores) -> Status {
      for (size_t m = 0; m < methods.size(); ++m) {
        std::vector<uint32_t> chosen(methods[m]->Stay(n));
        SNUG_TRY(methods[m]->Choose(scores, engine->scan_room(), chosen));
        const auto found = std::count_if(chosen.begin(), chosen.end(),
                                         [&](uint32_t t) { return t >= p.first && t < p.last; });
        recall[m][layer] += static_cast<double>(found) / static_cast<double>(p.last - p.first);
      }
      return {};
    };
    SNUG_TRY(engine->ScanPrompt(p.tokens, 0, last, nullptr, score));
    fmt::print(stderr, "{} of {} prompts\n", i + 1, a.prompts);
  }
  fmt::print("| layer |");
  for (const std::string& spec : a.methods) fmt::print(" {} |", spec);
  fmt::print("\n|---|");
  for (size_t m = 0; m < methods.size(); ++m) fmt::print("---|");
  fmt::print("\n");
  for (uint32_t l = 0; l <= last; ++l) {
    if (engine->config().window[l] != 0) continue;
    fmt::print("| {} |", l);
    for (size_t m = 0; m < methods.size(); ++m) fmt::print(" {:.3f} |", recall[m][l] / a.prompts);
    fmt::print("\n");
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("the share of a sentence's tokens that a reduction of the prompt keeps, by layer");
  Args a;
  app.add_option("MODEL", a.model)->required();
  app.add_option("TEXT", a.text, "what the sentence is hidden in")->required();
  app.add_option("--memory", a.memory, "the budget");
  app.add_option("--length", a.length, "tokens of text in a prompt");
  app.add_option("--prompts", a.prompts,
                 "prompts, each with its part of the text, its sentence and "
                 "its depth");
  app.add_option("--skip", a.skip, "tokens of the text to begin after");
  app.add_option("-t,--threads", a.threads, "threads (0: all usable CPUs)");
  app.add_option("--reduce", a.methods, "methods; their layers are not asked for");
  CLI11_PARSE(app, argc, argv);
  const Status status = Run(a);
  if (status.ok()) return 0;
  fmt::print(stderr, "{}\n{}\n", status.error().message, status.error().next);
  return ExitCode(status.error().code);
}
