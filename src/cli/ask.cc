// snug ask: how many questions about a text, read once, a model answers rightly.
#include <fmt/format.h>

#include "base/progress.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "engine/questions.h"

namespace snug::cli {
namespace {

constexpr uint32_t kMostAtOnce = 64;

struct AskArgs {
  EngineArgs engine;
  std::string text, questions;
  uint32_t at_once = 4;
  bool json = false;
};

size_t LongestOf(std::span<const Question> questions) {
  size_t longest = 0;
  for (const Question& q : questions) longest = std::max(longest, q.asked.size() + q.answer.size());
  return longest;
}

void Show(const AskArgs& a, const Answers& answers, size_t prompt, uint64_t held) {
  const auto [low, high] = answers.interval();
  const auto right =
      static_cast<size_t>(std::count(answers.right.begin(), answers.right.end(), true));
  if (a.json) {
    fmt::print("{}\n", DumpJson({{"questions", answers.right.size()},
                                 {"right", right},
                                 {"share", answers.share()},
                                 {"low", low},
                                 {"high", high},
                                 {"nll", answers.nll},
                                 {"answer_tokens", answers.tokens},
                                 {"prompt_tokens", prompt},
                                 {"kv_held", held},
                                 {"answers", answers.right}}));
    return;
  }
  fmt::print("{} of {} right: {:.1f} % ({:.1f} to {:.1f} %, 95 %)\n", right, answers.right.size(),
             100 * answers.share(), 100 * low, 100 * high);
  fmt::print("after {} tokens in {:.1f} MiB; {:.3f} nats a token of the answers\n", prompt,
             static_cast<double>(held) / static_cast<double>(kMiB), answers.nll);
}

Status Ask(AskArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  if (a.text.empty() || a.questions.empty()) {
    return MakeError(Code::kUsage, "give both --text and --questions", "see `snug ask --help`");
  }
  if (a.at_once < 1 || a.at_once > kMostAtOnce) {
    return MakeError(Code::kUsage,
                     fmt::format("--parallel {} is outside 1 .. {}", a.at_once, kMostAtOnce), {},
                     {{"option", "--parallel"}, {"value", std::to_string(a.at_once)}});
  }
  // Texts are read before the plan is made, which counts them as memory in use.
  SNUG_ASSIGN(const std::string text, ReadTextWithin(options.budget.bytes, a.text));
  SNUG_ASSIGN(const std::string lines, ReadTextWithin(options.budget.bytes, a.questions));
  options.caller_bytes = (text.size() + 2 * lines.size() + 2) * sizeof(Token);
  options.sequences = a.at_once + 1;
  options.logit_rows = a.at_once;
  options.plane_head = false;  // every logit counts
  Progress loading("reading weights", ProgressUnit::kBytes, false);
  options.on_load = [&](uint64_t done, uint64_t total) {
    loading.Update(done, total);
    return !Interrupted();
  };
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  loading.Finish();
  SNUG_ASSIGN(const std::vector<Question> questions, ParseQuestions(lines, engine->tokenizer()));
  std::vector<Token> prompt;
  prompt.reserve(text.size() + 2);  // a token stands for a byte or more
  engine->tokenizer().Encode(text, {true, false}, &prompt);
  const size_t needed = engine->options().Read(prompt.size()) + LongestOf(questions);
  if (prompt.empty() || needed > engine->options().context) {
    return MakeError(Code::kDoesNotFit,
                     fmt::format("{} has {} tokens, which with the longest question and its answer "
                                 "need a context of {}, and it is {}",
                                 a.text, prompt.size(), needed, engine->options().context),
                     prompt.empty() ? "give a text" : fmt::format("give -c {}", needed));
  }
  Progress asking("asking", ProgressUnit::kParts, false);
  SNUG_ASSIGN(const Answers answers, AskAll(*engine, prompt, questions, [&](size_t done) {
                asking.Update(done, questions.size());
                return !Interrupted();
              }));
  asking.Finish();
  const uint32_t last = engine->options().sequences;
  for (uint32_t s = 1; s < last; ++s) engine->Clear(s);
  Show(a, answers, prompt.size(), engine->kv_bytes_held());
  return {};
}

}  // namespace

void AddAsk(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<AskArgs>();
  Verb ask(app, "ask", "how many questions about a text, read once, are answered rightly");
  ask.Footer(
      "A question is asked in a copy of the cache as the text left it; its answer is right where\n"
      "each of its tokens is the likeliest.\n\n"
      "examples: snug ask model.gguf --text book.txt --questions asked.jsonl -c 8192\n"
      "          snug ask model.gguf --text book.txt --questions asked.jsonl --kv-keep h2o");
  a->engine.Add(ask);
  a->engine.AddKeep(ask);
  a->engine.AddReduce(ask);
  ask.Add("--text,-f,--file", a->text, "the text, which is read as a prompt");
  ask.Add("--questions", a->questions, R"(lines of {"question": "...", "answer": "..."})");
  ask.Add("--parallel", a->at_once, "questions asked at once, each with a cache of its own")
      .Default();
  ask.Flag("--json", a->json, "one JSON object on stdout");
  ask.Callback([a, exit_code] {
    const Status s = Ask(*a);
    *exit_code = s.ok() ? 0 : Report(s.error(), a->json);
  });
}

}  // namespace snug::cli
