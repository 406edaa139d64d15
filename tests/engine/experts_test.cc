// Mixtures of experts at the engine: the number of experts in memory changes no bit, plan and
// ledger agree, and a model larger than its budget runs inside it.
#include "engine_testing.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SameBits;
using testing::SomeTokens;

EngineOptions ExpertOptions(bool exact = false) {
  EngineOptions o;
  o.model_path = testing::SourcePath("tests/data/models/gpt-oss.gguf");
  o.budget.bytes = 256 * kMiB;
  o.base_bytes = 24 * kMiB;
  o.context = 128;
  o.chunk = o.logit_rows = 64;
  o.threads = 2;
  o.exact = exact;
  return o;
}

TEST(EngineExperts, NoNumberOfSlotsChangesABit) {
  for (const bool exact : {false, true}) {
    auto resident = OpenOrFail(ExpertOptions(exact));
    ASSERT_NE(resident, nullptr);
    EXPECT_EQ(resident->experts()->slots(), 0u);
    const auto tokens = SomeTokens(100, resident->config().vocab);
    const auto reference = AllLogits(*resident, 0, tokens, 64);
    for (uint32_t slots : {1u, 2u, 7u, 24u}) {
      for (const size_t chunk : {1, 13, 64}) {
        for (const auto prefetch :
             {ExpertCacheOptions::Prefetch::kNever, ExpertCacheOptions::Prefetch::kAlways}) {
          EngineOptions o = ExpertOptions(exact);
          o.experts.slots = slots;
          o.experts.prefetch = prefetch;
          auto engine = OpenOrFail(o);
          ASSERT_NE(engine, nullptr);
          EXPECT_EQ(engine->experts()->slots(), slots);
          EXPECT_TRUE(SameBits(AllLogits(*engine, 0, tokens, chunk), reference))
              << slots << " slots, chunks of " << chunk;
        }
      }
    }
  }
}

TEST(EngineExperts, LedgerHoldsWhatThePlanSays) {
  for (uint32_t slots : {0u, 1u, 5u, 24u}) {
    for (const int threads : {1, 2}) {
      EngineOptions o = ExpertOptions();
      o.experts.slots = slots;
      o.threads = threads;
      auto engine = OpenOrFail(o);
      ASSERT_NE(engine, nullptr);
      const LedgerSnapshot held = engine->ledger().snapshot();
      for (size_t i = 0; i < kOwners; ++i) {
        EXPECT_EQ(held.now[i], engine->plan().at_context[i])
            << slots << " " << OwnerName(static_cast<Owner>(i));
      }
      EXPECT_EQ(held.total_peak, engine->plan().peak_total) << slots;
    }
  }
}

// Budgets from none to ample: refused, other weights streamed, experts cached, all in memory.
TEST(EngineExperts, EveryBudgetRefusesOrGivesTheSameBits) {
  EngineOptions o = ExpertOptions();
  o.chunk = 0;
  o.logit_rows = 32;
  std::vector<float> reference;
  bool refused = false, streamed = false, cached = false, resident = false;
  for (int i = 0; i < 64; ++i) {
    o.budget.bytes = o.base_bytes + i * (kMiB / 2);
    auto engine = Engine::Open(o);
    if (!engine.ok()) {
      EXPECT_EQ(engine.error().code, Code::kDoesNotFit);
      refused = true;
      continue;
    }
    const MemoryPlan& plan = (*engine)->plan();
    streamed |= !plan.resident;
    cached |= plan.resident && plan.expert_slots != 0;
    resident |= plan.resident && plan.expert_slots == 0;
    const auto tokens = SomeTokens(70, (*engine)->config().vocab);
    const auto logits = AllLogits(**engine, 0, tokens, 32);
    if (reference.empty()) reference = logits;
    EXPECT_TRUE(SameBits(logits, reference)) << o.budget.bytes;
    EXPECT_LE((*engine)->ledger().snapshot().total_peak, o.budget.bytes);
  }
  EXPECT_TRUE(refused);
  EXPECT_TRUE(streamed || cached);
  EXPECT_TRUE(resident);
}

TEST(EngineExperts, BytesReadAreThoseOfMissesAndPrefetches) {
  EngineOptions o = ExpertOptions();
  o.experts.slots = 6;
  auto engine = OpenOrFail(o);
  ASSERT_NE(engine, nullptr);
  AllLogits(*engine, 0, SomeTokens(60, engine->config().vocab), 1);
  const ExpertStats s = engine->experts()->stats();
  EXPECT_EQ(s.lookups, 60u * 3 * 2);
  EXPECT_GT(s.misses, 0u);
  EXPECT_LT(s.misses, s.lookups);
  constexpr uint64_t kExpert = (3 * 16 * 32 + 16 + 16 + 32) * sizeof(float);
  EXPECT_EQ(s.bytes_loaded, (s.misses + s.prefetches) * kExpert);
}

TEST(EngineExperts, AllocationFailureWalk) {
  bool opened = false;
  int64_t n = 0;
  for (; n < 64 && !opened; ++n) {
    EngineOptions o = ExpertOptions();
    o.experts.slots = 3;
    o.fail_reservation = n;
    auto engine = Engine::Open(o);
    opened = engine.ok();
    if (!opened) {
      EXPECT_EQ(engine.error().code, Code::kDoesNotFit) << n;
    }
  }
  EXPECT_TRUE(opened);
  EXPECT_GE(n, 7);
}

}  // namespace
}  // namespace snug
