// Made-up rows take what a prompt's take, and no prompt goes on from them.
#include <gtest/gtest.h>

#include <cmath>

#include "engine_testing.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;

struct Held {
  const char *kv, *keep, *read;
};

class FilledCache : public ::testing::TestWithParam<Held> {};

TEST_P(FilledCache, HoldsWhatAPromptDoes) {
  EngineOptions o = testing::TinyOptions("qwen2");
  SNUG_NEED(o.model_path);
  o.sequences = 2;
  const auto [kv, keep, read] = GetParam();
  if (kv != nullptr) o.codec = *ParseCodec(kv);
  if (keep != nullptr) o.keep = *ParseKeep(keep);
  if (read != nullptr) o.read = *ParseRead(read);
  const auto engine = OpenOrFail(o);
  ASSERT_NE(engine, nullptr);
  const std::vector<Token> tokens = SomeTokens(210, engine->config().vocab, 5);
  ASSERT_TRUE(engine->Prefill(0, std::span(tokens).first(200), nullptr).ok());
  const uint64_t of_prompt = engine->kv_bytes_held();
  ASSERT_TRUE(engine->FillCache(1, 200).ok());
  EXPECT_EQ(engine->kv_bytes_held(), 2 * of_prompt);
  EXPECT_EQ(engine->length(1), 200u);
  for (size_t i = 200; i < tokens.size(); ++i) {
    const StepItem item{1, std::span(tokens).subspan(i, 1), StepItem::Logits::kLast};
    ASSERT_TRUE(engine->Step({&item, 1}).ok());
    for (const float logit : engine->logits(0)) ASSERT_TRUE(std::isfinite(logit));
  }
  engine->Clear(0);
  EXPECT_EQ(engine->ReusePrefix(0, tokens), 0u);
  EXPECT_EQ(engine->FillCache(1, 10).error().code, Code::kUsage);  // not empty
  EXPECT_EQ(engine->FillCache(0, 257).error().code, Code::kDoesNotFit);
}

INSTANTIATE_TEST_SUITE_P(
    Caches, FilledCache,
    ::testing::Values(Held{}, Held{"kivi:group=16,residual=16", nullptr, nullptr},
                      Held{nullptr, "h2o:budget=64", nullptr},
                      Held{nullptr, "chelsea:budget=70,chunk=16,sinks=2,recent=10,slack=8",
                           nullptr},
                      Held{nullptr, nullptr, "quest:tokens=1/4"}));

}  // namespace
}  // namespace snug
