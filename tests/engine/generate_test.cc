// Generation on the real model: the same tokens whatever the speculation, place and budget.
#include "engine/generate.h"

#include "engine_testing.h"

namespace snug {
namespace {

using testing::OpenOrFail;

EngineOptions GemmaOptions(uint64_t mib) {
  EngineOptions o;
  o.model_path = testing::ModelPath(testing::kGemma);
  o.budget.bytes = mib * kMiB;
  o.base_bytes = 24 * kMiB;  // sanitizers hold more, which is not what is tried here
  o.context = 512;
  o.threads = 2;
  return o;
}

GenerateOptions Greedy(uint32_t n) {
  GenerateOptions g;
  g.max_tokens = n;
  g.sampling.temperature = 0;
  return g;
}

std::vector<Token> Prompt(const Engine& engine, const std::string& text) {
  std::vector<Token> tokens;
  engine.tokenizer().Encode(text, {}, &tokens);
  return tokens;
}

TEST(Generate, SpeculationAndBudgetDoNotChangeTheTokens) {
  SNUG_NEED(GemmaOptions(0).model_path);
  const std::string text =
      "one two three four five six seven one two three four five six seven one two three";
  std::vector<Token> reference;
  for (const uint64_t mib : {400, 200, 110}) {
    for (const bool lookup : {false, true}) {
      EngineOptions o = GemmaOptions(mib);
      o.lookup = lookup;
      o.logit_rows = lookup ? 16 : 1;
      auto engine = OpenOrFail(o);
      ASSERT_NE(engine, nullptr);
      EXPECT_EQ(engine->place().resident(), mib == 400);
      GenerateOptions g = Greedy(32);
      g.lookup = lookup;
      auto result = Generate(*engine, 0, Prompt(*engine, text), g);
      ASSERT_TRUE(result.ok()) << result.error().message;
      if (reference.empty()) reference = result->tokens;
      EXPECT_EQ(result->tokens, reference) << mib << " " << lookup;
      EXPECT_LE(engine->ledger().snapshot().total_peak, mib * kMiB);
      EXPECT_EQ(result->accepted > 0, lookup);
    }
  }
}

// Recurrent models go back to a snapshot after every draft that fails; without one, to the start.
TEST(Generate, SpeculationOverStatesDoesNotChangeTheTokens) {
  uint64_t failed = 0;
  for (const char* arch : {"mamba", "mamba2"}) {
    EngineOptions o = testing::TinyOptions(arch);
    SNUG_NEED(o.model_path);
    std::vector<Token> prompt;
    for (int i = 0; i < 90; ++i) prompt.push_back(10 + i % 9 * (i < 45 ? 7 : 8));
    std::vector<Token> reference;
    for (const int32_t snapshots : {-1, 1, 0}) {
      for (const bool lookup : {false, true}) {
        o.snapshots = snapshots;
        o.lookup = lookup;
        o.logit_rows = lookup ? 16 : 1;
        auto engine = OpenOrFail(o);
        ASSERT_NE(engine, nullptr);
        GenerateOptions g = Greedy(100);
        g.sampling.temperature = 1;  // of few tokens: what repeats goes on in another way
        g.sampling.top_k = 2;
        g.sampling.min_p = 0;
        g.ignore_eos = true;
        g.lookup = lookup;
        auto result = Generate(*engine, 0, prompt, g);
        ASSERT_TRUE(result.ok()) << result.error().message;
        if (reference.empty()) reference = result->tokens;
        EXPECT_EQ(result->tokens, reference) << arch << " " << snapshots << " " << lookup;
        failed += result->drafted - result->accepted;
        // The next turn goes on from the state after this one.
        std::vector<Token> next = prompt;
        next.insert(next.end(), result->tokens.begin(), result->tokens.end());
        next.push_back(42);
        auto turn = Generate(*engine, 0, next, Greedy(2));
        ASSERT_TRUE(turn.ok());
        EXPECT_EQ(turn->cached_tokens, prompt.size() + result->tokens.size() - 1);
      }
    }
  }
  EXPECT_GT(failed, 0u);
}

TEST(Generate, SaysWhatItKnows) {
  SNUG_NEED(GemmaOptions(0).model_path);
  auto engine = OpenOrFail(GemmaOptions(400));
  auto result = Generate(*engine, 0,
                         Prompt(*engine, "The capital of France is Paris. The capital of Japan is"),
                         Greedy(4));
  ASSERT_TRUE(result.ok());
  EXPECT_NE(result->text.find("Tokyo"), std::string::npos) << result->text;
  EXPECT_EQ(result->finish_reason, "length");
  // The same prompt again starts from the cache.
  auto again = Generate(*engine, 0,
                        Prompt(*engine, "The capital of France is Paris. The capital of Japan is"),
                        Greedy(4));
  EXPECT_GT(again->cached_tokens, 0u);
  EXPECT_EQ(again->tokens, result->tokens);
}

TEST(Generate, RefusalsComeBeforeTheWork) {
  SNUG_NEED(GemmaOptions(0).model_path);
  auto engine = OpenOrFail(GemmaOptions(400));
  auto overflow = Generate(*engine, 0, Prompt(*engine, "a b c"), Greedy(600));
  ASSERT_FALSE(overflow.ok());
  EXPECT_EQ(overflow.error().code, Code::kDoesNotFit);
  EXPECT_NE(overflow.error().message.find("600"), std::string::npos);
  EXPECT_EQ(engine->length(0), 0u);
  EXPECT_EQ(Generate(*engine, 0, {}, Greedy(1)).error().code, Code::kBadInput);
  GenerateOptions bad = Greedy(1);
  bad.sampling.temperature = -1;
  EXPECT_EQ(Generate(*engine, 0, {2}, bad).error().code, Code::kUsage);
  const std::atomic<bool> cancel{true};
  GenerateOptions cancelled = Greedy(10);
  cancelled.cancel = &cancel;
  auto result = Generate(*engine, 0, Prompt(*engine, "a b c"), cancelled);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->finish_reason, "cancelled");
}

}  // namespace
}  // namespace snug
