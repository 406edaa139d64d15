// The budget contract at the engine: plan and ledger are equal, every refusal is typed and clean.
#include "engine/generate.h"
#include "engine/probe.h"
#include "engine_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SameBits;
using testing::SomeTokens;
using testing::TinyOptions;

TEST(EngineBudget, LedgerHoldsWhatThePlanSays) {
  for (const char* arch : {"llama", "qwen2", "gemma3", "mamba", "mamba2", "qwen3next"}) {
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

class BudgetLadder : public ::testing::TestWithParam<const char*> {};

TEST_P(BudgetLadder, EveryBudgetRefusesBeforeTheWorkOrFinishes) {
  EngineOptions o = TinyOptions(GetParam());
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

INSTANTIATE_TEST_SUITE_P(Tiny, BudgetLadder,
                         ::testing::Values("gemma3", "mamba", "mamba2", "qwen3next"),
                         [](const auto& param) { return std::string(param.param); });

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

// Each reservation in turn fails, in loading and in generating: a typed error, and nothing is left
// held (the ledger goes with the engine).
TEST(EngineBudget, AllocationFailureWalk) {
  const std::string path = testing::TinyModel().Write();
  for (PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
    EngineOptions o;
    o.model_path = path;
    o.budget.bytes = 256 * kMiB;
    o.place = place;
    o.lookup = true;
    o.logit_rows = 4;
    GenerateOptions g;
    g.lookup = true;
    g.max_tokens = 8;
    bool finished = false;
    int64_t n = 0;
    for (; n < 64 && !finished; ++n) {
      o.fail_reservation = n;
      auto engine = Engine::Open(o);
      auto text = engine.ok() ? Generate(**engine, 0, {1, 2, 3, 1, 2, 3}, g)
                              : Result<Generation>(engine.error());
      finished = text.ok();
      if (!finished) {
        EXPECT_EQ(text.error().code, Code::kDoesNotFit) << n;
        EXPECT_FALSE(text.error().message.empty());
      }
    }
    EXPECT_TRUE(finished);
    EXPECT_GE(n, 8);  // base, vocabulary, weights, reads, cache, activations, scratch, lookup
  }
}

TEST(EngineBudget, NoWeightIsReadBeforeTheCallerAgrees) {
  EngineOptions o;
  o.model_path = testing::TinyModel().Write();
  o.budget.bytes = 256 * kMiB;
  bool read = false;
  o.on_load = [&](uint64_t, uint64_t) { return read = true; };
  o.before_weights = [](const Engine& engine) -> Status {
    EXPECT_EQ(engine.tokenizer().vocab_size(), testing::TinyModel::Vocabulary().size());
    EXPECT_EQ(engine.options().context, 256u);
    EXPECT_TRUE(engine.plan().fits);
    return MakeError(Code::kBadInput, "not this one");
  };
  auto engine = Engine::Open(o);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.error().message, "not this one");
  EXPECT_FALSE(read);
  o.before_weights = nullptr;
  EXPECT_TRUE(Engine::Open(o).ok());
  EXPECT_TRUE(read);
}

TEST(EngineBudget, ALoadCanBeCancelled) {
  EngineOptions o;
  o.model_path = testing::TinyModel().Write();
  o.budget.bytes = 256 * kMiB;
  o.on_load = [](uint64_t done, uint64_t total) {
    EXPECT_LE(done, total);
    return false;
  };
  for (PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
    o.place = place;
    auto engine = Engine::Open(o);
    ASSERT_FALSE(engine.ok());
    EXPECT_EQ(engine.error().code, Code::kCancelled);
  }
}

// What a file may claim: two thousand million tokens of context.
TEST(EngineBudget, AbsurdContextsDoNotFit) {
  testing::TinyModel model;
  model.context = uint32_t{1} << 31;
  EngineOptions o;
  o.model_path = model.Write();
  o.budget.bytes = 64 * kMiB;
  o.base_bytes = 8 * kMiB;
  o.context = kTrainedContext;
  const auto plan = PlanFile(o);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->context, uint32_t{1} << 31);
  EXPECT_FALSE(plan->fits);
  EXPECT_GE(plan->kv_bytes, uint64_t{1} << 38);
  o.context = 0;  // the default
  EXPECT_EQ(PlanFile(o)->context, 4096u);
}

TEST(EngineBudget, SpeedIsPredictedFromMeasuredSteps) {
  EngineOptions o;
  o.model_path = testing::TinyModel().Write();
  o.budget.bytes = 256 * kMiB;
  auto plan = PlanFile(o);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->predicted.decode_tps, 0);
  const auto times = MeasureSteps(o, *plan);
  ASSERT_TRUE(times.ok()) << times.error().message;
  EXPECT_GT(times->decode_s, 0);
  EXPECT_GE(times->decode_s, times->head_s);
  EXPECT_GT(times->prompt_s, 0);
  EXPECT_EQ(times->prompt_tokens, 256u);
  StepTimes made_up{0.010, 0.004, 1e-9, 256, 0.5};
  plan->resident = true;
  plan->head_share = 0.5;
  plan->kv_bytes_per_token_mean = 2000000;
  plan->kv_bytes_per_token_at_context = 4000000;
  PredictSpeed(made_up, 0, *plan);
  EXPECT_NEAR(plan->predicted.decode_tps_at_start, 1 / 0.008, 1e-6);
  EXPECT_NEAR(plan->predicted.decode_tps, 1 / 0.010, 1e-6);
  EXPECT_NEAR(plan->predicted.decode_tps_at_context, 1 / 0.012, 1e-6);
  EXPECT_NEAR(plan->predicted.prefill_tps, 512, 1e-6);
  // A streamed model waits for the disk, once a token or once a chunk.
  plan->resident = false;
  plan->disk_bytes_per_token = plan->disk_bytes_per_chunk = 1000;
  plan->chunk = 100;
  PredictSpeed(made_up, 2000, *plan);
  EXPECT_NEAR(plan->predicted.decode_tps, 2, 1e-6);
  EXPECT_NEAR(plan->predicted.prefill_tps, 256 / 1.5, 1e-6);
}

}  // namespace
}  // namespace snug
