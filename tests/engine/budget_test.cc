// The budget contract at the engine: plan and ledger are equal, every refusal is typed and clean.
#include "engine_testing.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SameBits;
using testing::SomeTokens;
using testing::TinyOptions;

TEST(EngineBudget, LedgerHoldsWhatThePlanSays) {
  for (const char* arch : {"llama", "qwen2", "gemma3"}) {
    for (PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
      EngineOptions o = TinyOptions(arch);
      SNUG_NEED(o.model_path);
      o.place = place;
      auto engine = OpenOrFail(o);
      ASSERT_NE(engine, nullptr);
      const LedgerSnapshot held = engine->ledger().snapshot();
      for (size_t i = 0; i < kOwners; ++i) {
        EXPECT_EQ(held.now[i], engine->plan().at_context[i])
            << arch << " " << OwnerName(static_cast<Owner>(i));
      }
      EXPECT_EQ(held.total_peak, engine->plan().peak_total);
      EXPECT_EQ(engine->ledger().limit(), o.budget.bytes);
    }
  }
}

TEST(EngineBudget, EveryBudgetRefusesBeforeTheWorkOrFinishes) {
  EngineOptions o = TinyOptions("gemma3");
  SNUG_NEED(o.model_path);
  o.chunk = 0;
  o.logit_rows = 32;
  std::vector<float> reference;
  int refused = 0, ran = 0;
  for (int i = 0; i < 48; ++i) {
    o.budget.bytes = o.base_bytes + i * (kMiB / 2);
    auto engine = Engine::Open(o);
    if (!engine.ok()) {
      ++refused;
      EXPECT_EQ(engine.error().code, Code::kDoesNotFit);
      EXPECT_NE(engine.error().next.find("--memory"), std::string::npos) << engine.error().next;
      continue;
    }
    ++ran;
    const auto tokens = SomeTokens(120, (*engine)->config().vocab);
    const auto logits = AllLogits(**engine, 0, tokens, 32);
    if (reference.empty()) reference = logits;
    EXPECT_TRUE(SameBits(logits, reference)) << o.budget.bytes;
    EXPECT_LE((*engine)->ledger().snapshot().total_peak, o.budget.bytes);
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(ran, 0);
}

TEST(EngineBudget, SuggestionsFit) {
  EngineOptions o = TinyOptions("llama");
  SNUG_NEED(o.model_path);
  o.budget.bytes = 1 * kMiB;
  auto plan = PlanFile(o);
  ASSERT_TRUE(plan.ok());
  ASSERT_FALSE(plan->fits);
  ASSERT_FALSE(plan->suggestions.empty());
  o.budget.bytes = plan->suggestions[0].peak;
  EXPECT_TRUE(PlanFile(o)->fits);
  // The suggestion is the nearest: a MiB less does not.
  o.budget.bytes -= kMiB;
  EXPECT_FALSE(PlanFile(o)->fits);
}

TEST(EngineBudget, RefusesMoreContextThanTrainedAndOverflow) {
  EngineOptions o = TinyOptions("llama");
  SNUG_NEED(o.model_path);
  o.context = 100000;
  auto engine = Engine::Open(o);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.error().code, Code::kDoesNotFit);
  EXPECT_NE(engine.error().message.find("100000"), std::string::npos);
  o.context = 64;
  auto small = OpenOrFail(o);
  const auto tokens = SomeTokens(64, small->config().vocab);
  AllLogits(*small, 0, tokens, 64);
  const StepItem more{0, std::span(tokens).first(1), StepItem::Logits::kLast};
  const Status status = small->Step({&more, 1});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Code::kDoesNotFit);
  EXPECT_EQ(small->length(0), 64u);
}

TEST(EngineBudget, TokensOutsideTheVocabularyAreRefused) {
  EngineOptions o = TinyOptions("llama");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  for (Token bad : {-1, 512, 1 << 30}) {
    const StepItem item{0, {&bad, 1}, StepItem::Logits::kLast};
    const Status status = engine->Step({&item, 1});
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::kBadInput);
  }
}

// Each reservation in turn fails: a typed error, and nothing is left held (the ledger goes with the
// engine).
TEST(EngineBudget, AllocationFailureWalk) {
  for (PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
    EngineOptions o = TinyOptions("gemma3");
    SNUG_NEED(o.model_path);
    o.place = place;
    bool opened = false;
    int64_t n = 0;
    for (; n < 64 && !opened; ++n) {
      o.fail_reservation = n;
      auto engine = Engine::Open(o);
      opened = engine.ok();
      if (!opened) {
        EXPECT_EQ(engine.error().code, Code::kDoesNotFit) << n;
        EXPECT_FALSE(engine.error().message.empty());
      }
    }
    EXPECT_TRUE(opened);
    EXPECT_GE(n, 5);  // base, vocabulary, weights, cache, activations at least
  }
}

}  // namespace
}  // namespace snug
