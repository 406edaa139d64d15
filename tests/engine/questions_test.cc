// Questions about a text: the same answers however many are asked at once, what is right by greedy
// decoding, Wilson's interval, and lines that are no questions.
#include "engine/questions.h"

#include "engine/logits.h"
#include "engine_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

EngineOptions AskOptions(uint32_t at_once) {
  EngineOptions o = TinyOptions("qwen2");
  o.sequences = at_once + 1;
  o.logit_rows = at_once;
  auto keep = ParseKeep("h2o:budget=64");
  EXPECT_TRUE(keep.ok());
  o.keep = *keep;
  return o;
}

// What greedy decoding gives after the prompt and a question.
std::vector<Token> Greedy(Engine& engine, std::span<const Token> prompt,
                          std::span<const Token> asked, size_t n) {
  engine.Clear(0);
  EXPECT_TRUE(engine.Prefill(0, prompt, nullptr).ok());
  std::vector<Token> answer;
  const auto step = [&](Token t) {
    const StepItem item{0, {&t, 1}, StepItem::Logits::kLast};
    EXPECT_TRUE(engine.Step({&item, 1}).ok());
  };
  for (const Token t : asked) step(t);
  while (answer.size() < n) {
    answer.push_back(static_cast<Token>(LikeliestOf(engine.logits(0))));
    step(answer.back());
  }
  return answer;
}

TEST(EngineQuestions, AnswersAreThoseOfGreedyDecoding) {
  SNUG_NEED(AskOptions(1).model_path);
  std::vector<Question> questions;
  std::vector<Token> prompt;
  std::vector<bool> right;
  std::optional<double> nll;
  for (const uint32_t at_once : {1u, 3u, 8u}) {
    auto engine = OpenOrFail(AskOptions(at_once));
    ASSERT_NE(engine, nullptr);
    const uint32_t vocab = engine->config().vocab;
    if (questions.empty()) {
      prompt = SomeTokens(150, vocab);
      for (uint32_t i = 0; i < 7; ++i) {
        Question q{SomeTokens(1 + i % 4, vocab, 20 + i), {}};
        q.answer = Greedy(*engine, prompt, q.asked, 1 + i % 3);
        right.push_back(i % 2 == 0);
        if (i % 2 != 0) q.answer.back() = (q.answer.back() + 1) % static_cast<Token>(vocab);
        questions.push_back(std::move(q));
      }
    }
    const auto answers = AskAll(*engine, prompt, questions, nullptr);
    ASSERT_TRUE(answers.ok());
    EXPECT_EQ(answers->right, right) << at_once;
    EXPECT_EQ(answers->tokens, 13u);
    EXPECT_GT(answers->nll, 0);
    EXPECT_EQ(nll.value_or(answers->nll), answers->nll) << at_once;
    nll = answers->nll;
  }
}

TEST(EngineQuestions, CancelledAtOnce) {
  SNUG_NEED(AskOptions(1).model_path);
  auto engine = OpenOrFail(AskOptions(2));
  ASSERT_NE(engine, nullptr);
  const auto tokens = SomeTokens(100, engine->config().vocab);
  const Question q{{tokens[1]}, {tokens[2]}};
  const auto answers = AskAll(*engine, tokens, {&q, 1}, [](size_t) { return false; });
  ASSERT_FALSE(answers.ok());
  EXPECT_EQ(answers.error().code, Code::kCancelled);
}

// Of 8 of 10: 0.490 to 0.943, by Wilson's formula (Agresti and Coull 1998 give such figures).
TEST(Answers, WilsonInterval) {
  Answers a;
  EXPECT_EQ(a.interval().low, 0);
  EXPECT_EQ(a.interval().high, 1);
  a.right.assign(10, true);
  a.right[3] = a.right[7] = false;
  EXPECT_DOUBLE_EQ(a.share(), 0.8);
  EXPECT_NEAR(a.interval().low, 0.4902, 1e-4);
  EXPECT_NEAR(a.interval().high, 0.9433, 1e-4);
}

TEST(ParseQuestions, RefusesWhatIsNone) {
  const std::string path = testing::ModelPath(testing::kGemma);
  SNUG_NEED(path);
  const auto file = ModelFile::Open(path);
  ASSERT_TRUE(file.ok());
  Ledger ledger(64 * kMiB);
  const auto tokenizer = Tokenizer::Load(**file, ledger);
  ASSERT_TRUE(tokenizer.ok());
  for (const char* bad :
       {"", "\n\n", "[1]", "{", R"({"question": "a"})", R"({"question": 1, "answer": "b"})",
        R"({"question": "", "answer": "b"})"}) {
    const auto parsed = ParseQuestions(bad, **tokenizer);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(parsed.error().code, Code::kBadInput) << bad;
  }
  const auto good = ParseQuestions(
      "{\"question\": \"One\", \"answer\": \" two\"}\r\n\n{\"question\": \"a\", \"answer\": \"b\"}",
      **tokenizer);
  ASSERT_TRUE(good.ok()) << good.error().message;
  EXPECT_EQ(good->size(), 2u);
}

}  // namespace
}  // namespace snug
