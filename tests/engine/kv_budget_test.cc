// Caches within budgets of their own: what is chosen holds, and nothing finer would.
#include "engine/kv_budget.h"

#include "engine_testing.h"
#include "kv/codec/codec.h"
#include "kv/keep/keep.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;

EngineOptions Options() {
  EngineOptions o = testing::TinyOptions("");
  testing::TinyModel model;
  model.layers = 4;
  model.dim = 64;  // heads of 32, which every type encodes
  model.context = 2048;
  o.model_path = model.Write();
  o.context = 2048;
  o.logit_rows = 1;
  return o;
}

uint64_t CacheBytes(const EngineOptions& o) {
  auto plan = PlanFile(o);
  EXPECT_TRUE(plan.ok()) << plan.error().message;
  return plan.ok() ? plan->kv_bytes : 0;
}

// The cache of an opened engine under a budget, or why there is none.
std::string Chosen(EngineOptions o, uint64_t bytes) {
  o.kv_bytes = bytes;
  auto engine = Engine::Open(o);
  auto plan = PlanFile(o);
  EXPECT_EQ(engine.ok(), plan.ok());
  if (!engine.ok()) {
    EXPECT_EQ(engine.error().code, Code::kDoesNotFit);
    return engine.error().message;
  }
  EXPECT_EQ((*engine)->plan().cache, plan->cache);
  EXPECT_LE((*engine)->plan().kv_bytes, bytes);
  // A prompt that fills the context holds to it.
  const auto tokens = testing::SomeTokens(o.context, (*engine)->config().vocab);
  EXPECT_TRUE((*engine)->Prefill(0, tokens, nullptr).ok());
  EXPECT_LE((*engine)->ledger().snapshot().peak[static_cast<size_t>(Owner::kKv)], bytes);
  return (*engine)->plan().cache;
}

TEST(KvBudget, TakesTheFinestEncodingThatHolds) {
  EngineOptions o = Options();
  o.kv_choice = KvChoice::kEncoding;
  std::vector<std::pair<uint64_t, std::string>> ladder;
  ladder.emplace_back(CacheBytes(o), "--kv f16");
  EngineOptions q8 = o;
  q8.key_type = q8.value_type = KvType::kQ8_0;
  ladder.emplace_back(CacheBytes(q8), "--kv q8_0");
  for (const char* bits : {"4", "2"}) {
    EngineOptions kivi = o;
    kivi.codec = *ParseCodec(std::string("kivi:bits=") + bits);
    ladder.emplace_back(CacheBytes(kivi), "--kv " + kivi.codec->spec());
  }
  EXPECT_EQ(Chosen(o, ladder[0].first), ladder[0].second);
  EXPECT_EQ(Chosen(o, ladder[0].first - 1), ladder[1].second);
  EXPECT_EQ(Chosen(o, ladder[1].first), ladder[1].second);
  uint64_t least = UINT64_MAX;
  for (const auto& [bytes, name] : ladder) least = std::min(least, bytes);
  ASSERT_LT(least, ladder[1].first);
  EXPECT_NE(Chosen(o, least).find("kivi"), std::string::npos);
  const std::string refused = Chosen(o, 4096);
  EXPECT_NE(refused.find("--kv-budget 4.00 KiB"), std::string::npos) << refused;
}

TEST(KvBudget, KeepsAsManyRowsAsHold) {
  for (const std::string spec : {"h2o:least=32", "sink-window:sinks=2", "snapkv:answer=64"}) {
    EngineOptions o = Options();
    o.keep = *ParseKeep(spec);
    EngineOptions few = o;
    few.keep = *ParseKeep(spec + ",budget=512");
    const uint64_t bytes = CacheBytes(few);
    const std::string chosen = Chosen(o, bytes);
    const auto at = chosen.find("budget=");
    ASSERT_NE(at, std::string::npos) << chosen;
    const int rows = std::stoi(chosen.substr(at + 7));
    EXPECT_GE(rows, 512) << chosen;
    few.keep = *ParseKeep(spec + ",budget=" + std::to_string(rows + 1));
    EXPECT_GT(CacheBytes(few), bytes) << chosen;
    EXPECT_NE(Chosen(o, 4096).find("64 rows"), std::string::npos);
    o.keep = *ParseKeep("h2o:budget=1024");
    EXPECT_NE(Chosen(o, bytes).find("h2o:budget=1024 takes"), std::string::npos);
  }
}

TEST(KvBudget, WhatIsGivenStays) {
  EngineOptions o = Options();
  const uint64_t dense = CacheBytes(o);
  EXPECT_EQ(Chosen(o, dense), "--kv f16");
  EXPECT_NE(Chosen(o, dense - 1).find("takes"), std::string::npos);
  // A codec's open steps are chosen, its given parameters are not.
  o.codec = *ParseCodec("kivi:residual=64");
  EngineOptions two = o, four = o;
  two.codec = *ParseCodec("kivi:residual=64,bits=2");
  four.codec = *ParseCodec("kivi:residual=64,bits=4");
  ASSERT_LT(CacheBytes(two), CacheBytes(four));
  EXPECT_EQ(Chosen(o, CacheBytes(four)), "--kv kivi:residual=64,bits=4");
  EXPECT_EQ(Chosen(o, CacheBytes(four) - 1), "--kv kivi:residual=64,bits=2");
  EXPECT_NE(Chosen(four, CacheBytes(four) - 1).find("takes"), std::string::npos);
}

}  // namespace
}  // namespace snug
