#include "engine/questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <optional>
#include <string>

#include "base/json.h"
#include "engine/logits.h"

namespace snug {
namespace {

// A question that a sequence is at, and how many of its tokens have run.
struct Running {
  size_t question = 0, done = 0;
  bool right = true;
  double nll = 0;
};

Token TokenAt(const Question& q, size_t i) {
  return i < q.asked.size() ? q.asked[i] : q.answer[i - q.asked.size()];
}

}  // namespace

double Answers::share() const {
  const auto n = static_cast<double>(right.size());
  return n == 0 ? 0 : static_cast<double>(std::count(right.begin(), right.end(), true)) / n;
}

Answers::Interval Answers::interval() const {
  if (right.empty()) return {0, 1};
  constexpr double z = 1.959964;
  const double n = static_cast<double>(right.size()), p = share(), whole = 1 + z * z / n;
  const double middle = (p + z * z / (2 * n)) / whole;
  const double half = z / whole * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

Result<std::vector<Question>> ParseQuestions(std::string_view lines, const Tokenizer& tokenizer) {
  std::vector<Question> questions;
  for (size_t number = 1; !lines.empty(); ++number) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const auto bad = [&](std::string_view why) {
      return MakeError(Code::kBadInput, fmt::format("line {} of the questions {}", number, why),
                       R"(give lines of {"question": "...", "answer": "..."})");
    };
    const auto json = ParseJson(line, "question");
    if (!json.ok() || !json->is_object()) return bad("is no JSON object");
    Question q;
    for (auto [name, tokens] : {std::pair("question", &q.asked), std::pair("answer", &q.answer)}) {
      const auto at = json->find(name);
      if (at == json->end() || !at->is_string())
        return bad(fmt::format("has no text \"{}\"", name));
      tokenizer.Encode(at->get_ref<const std::string&>(), {false, false}, tokens);
      if (tokens->empty()) return bad(fmt::format("has an empty \"{}\"", name));
    }
    questions.push_back(std::move(q));
  }
  if (questions.empty()) {
    return MakeError(Code::kBadInput, "there are no questions",
                     R"(give lines of {"question": "...", "answer": "..."})");
  }
  return questions;
}

Result<Answers> AskAll(Engine& engine, std::span<const Token> prompt,
                       std::span<const Question> questions,
                       const std::function<bool(size_t done)>& progress) {
  const size_t at_once = engine.options().sequences - 1;
  assert(at_once > 0 && engine.options().logit_rows >= at_once);
  engine.Clear(0);
  size_t finished = 0;
  const auto go_on = [&] { return !progress || progress(finished); };
  const auto reading = [&](uint32_t, uint32_t) { return go_on(); };
  std::vector<Token> read;
  SNUG_ASSIGN(const std::vector<uint32_t> chosen, engine.Reduce(prompt, reading));
  for (const uint32_t t : chosen) read.push_back(prompt[t]);
  SNUG_TRY(engine.Prefill(0, read, reading));
  Answers answers;
  answers.right.resize(questions.size());
  std::vector<double> nll(questions.size());
  std::vector<std::optional<Running>> running(at_once);
  std::vector<StepItem> items;
  std::vector<Token> tokens(at_once);  // that items refer to
  for (size_t next = 0; finished < questions.size();) {
    if (!go_on()) return MakeError(Code::kCancelled, "interrupted");
    items.clear();
    for (size_t s = 0; s < at_once; ++s) {
      if (!running[s] && next < questions.size()) {
        SNUG_TRY(engine.Fork(0, static_cast<uint32_t>(s + 1)));
        running[s] = Running{next++};
      }
      if (!running[s]) continue;
      const Running& r = *running[s];
      tokens[s] = TokenAt(questions[r.question], r.done);
      items.push_back({static_cast<uint32_t>(s + 1), {&tokens[s], 1}, StepItem::Logits::kLast});
    }
    SNUG_TRY(engine.Step(items));
    for (size_t i = 0; i < items.size(); ++i) {
      std::optional<Running>& r = running[items[i].sequence - 1];
      const Question& q = questions[r->question];
      ++r->done;
      if (r->done < q.asked.size()) continue;
      const auto logits = engine.logits(i);
      const auto wanted = static_cast<size_t>(TokenAt(q, r->done));
      r->right = r->right && LikeliestOf(logits) == wanted;
      r->nll += NegativeLogLikelihood(logits, wanted);
      ++answers.tokens;
      if (r->done + 1 < q.asked.size() + q.answer.size()) continue;
      answers.right[r->question] = r->right;
      nll[r->question] = r->nll;
      ++finished;
      r.reset();
    }
  }
  // In the questions' order, whichever were asked at once.
  for (const double of_one : nll) answers.nll += of_one;
  answers.nll /= static_cast<double>(answers.tokens);
  return answers;
}

}  // namespace snug
