// Questions about a text that has been read once: how often a model's greedy answers are right,
// from a cache as the prompt left it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"

namespace snug {

struct Question {
  std::vector<Token> asked, answer;  // one token of each or more
};

struct Answers {
  std::vector<bool> right;  // [questions]: each token of the answer is the likeliest
  double nll = 0;           // of the answers' tokens, mean, natural logarithm
  uint64_t tokens = 0;      // of answers
  double share() const;     // of right answers
  // Of the share, 95 %: Wilson's interval for a proportion.
  struct Interval {
    double low = 0, high = 0;
  };
  Interval interval() const;
};

// JSON lines, {"question": TEXT, "answer": TEXT} each: what is asked follows the prompt's tokens,
// and the answer what is asked, each encoded by itself. Errors: kBadInput with the line's number.
Result<std::vector<Question>> ParseQuestions(std::string_view lines, const Tokenizer& tokenizer);

// Has sequence 0 read `prompt`; then each question's tokens follow it, one by one, in a copy of it
// (Engine::Fork), in all sequences but the first at once: two or more are needed, and logits for
// one row of each of those. `progress` may be null; it is told the questions that are done, and
// false ends with kCancelled. Errors: those of Prefill and Step.
Result<Answers> AskAll(Engine& engine, std::span<const Token> prompt,
                       std::span<const Question> questions,
                       const std::function<bool(size_t done)>& progress);

}  // namespace snug
