// Codecs that code beside the steps, in whole models: the pace of the thread that does changes no
// bit, rows are read coded after the tokens that the rule says, and what is under way when a
// sequence or an engine ends is let go.
#include <atomic>
#include <chrono>
#include <thread>

#include "engine_testing.h"
#include "kv/codec/codec.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;

using Rows = std::vector<std::vector<float>>;

EngineOptions LagOptions(const std::string& spec, const std::string& arch = "qwen2") {
  EngineOptions o = testing::TinyOptions(arch);
  if (!testing::Exists(o.model_path)) return o;
  o.codebooks = testing::LearnCodebooks(o, 2, false);
  o.codec = *ParseCodec("million:" + spec);
  o.sequences = o.logit_rows = 2;
  return o;
}

// Sleeps of 0 to `most` microseconds, and how many there were.
struct Delays {
  uint64_t seed = 0;
  uint32_t most = 0;
  std::atomic<uint64_t> calls{0};
  std::function<void()> hook() {
    return [this] {
      const uint64_t x = (seed + 1 + calls++) * 6364136223846793005u;
      std::this_thread::sleep_for(std::chrono::microseconds((x >> 33) % (most + 1)));
    };
  }
};

// All that is coded of a layer of a sequence.
std::vector<uint8_t> CodedBytes(const Engine& engine, uint32_t sequence, uint32_t layer) {
  std::vector<uint8_t> bytes;
  const CodedRows rows = engine.cache().coded(sequence, layer);
  const uint64_t page = engine.cache().layout().coded().page_bytes();
  for (uint32_t t = 0; t < rows.keys / kTileTokens; ++t) {
    bytes.insert(bytes.end(), rows.tiles[t], rows.tiles[t] + page);
  }
  return bytes;
}

// Two sequences, of prompts of 70 and 101 tokens, take 150 steps together; then the first has a
// second prompt and goes on.
struct Outcome {
  Rows logits;
  std::vector<std::vector<uint8_t>> coded;  // [sequences, layers]
  bool operator==(const Outcome&) const = default;
};
Outcome RunTwo(Engine& engine) {
  Outcome out;
  const auto tokens = SomeTokens(256, engine.config().vocab);
  const std::span<const Token> all = tokens;
  const auto take = [&](size_t row) {
    const auto logits = engine.logits(row);
    out.logits.emplace_back(logits.begin(), logits.end());
  };
  EXPECT_TRUE(engine.Prefill(0, all.first(70), nullptr).ok());
  take(0);
  EXPECT_TRUE(engine.Prefill(1, all.subspan(5, 101), nullptr).ok());
  take(0);
  for (size_t i = 0; i < 150; ++i) {
    const StepItem items[] = {{0, all.subspan(70 + i, 1), StepItem::Logits::kLast},
                              {1, all.subspan(106 + i, 1), StepItem::Logits::kLast}};
    EXPECT_TRUE(engine.Step(items).ok());
    take(0);
    take(1);
  }
  for (const uint32_t s : {0u, 1u}) {
    for (uint32_t l = 0; l < engine.config().layers; ++l) {
      out.coded.push_back(CodedBytes(engine, s, l));
    }
  }
  const Rows more = testing::PromptAndTokens(engine, 0, all.first(30), 20);
  out.logits.insert(out.logits.end(), more.begin(), more.end());
  return out;
}

TEST(BesideSteps, DelaysOfTheThreadChangeNoBit) {
  SNUG_NEED(LagOptions("residual=64").model_path);
  for (const char* spec : {"residual=64,lag=1", "residual=64,lag=7", "residual=64,lag=32",
                           "residual=128,lag=64", "residual=64,lag=150"}) {
    Delays none;
    EngineOptions o = LagOptions(spec);
    o.encode_delay = none.hook();
    auto engine = OpenOrFail(o);
    const Outcome expected = RunTwo(*engine);
    EXPECT_FALSE(expected.coded.front().empty()) << spec;
    for (const uint64_t seed : {1u, 2u, 3u, 4u}) {
      Delays delays;
      delays.seed = seed;
      delays.most = seed == 4 ? 20000 : 300 * static_cast<uint32_t>(seed);
      o.encode_delay = delays.hook();
      o.threads = seed % 2 == 0 ? 1 : 3;
      auto slow = OpenOrFail(o);
      EXPECT_TRUE(RunTwo(*slow) == expected) << spec << " " << seed;
      if (o.codec->lag() > 1) {
        EXPECT_GT(delays.calls, 0u) << spec;
      }
    }
  }
}

// Keys and values of the first layer are functions of the tokens alone: what is coded of them
// beside the steps is what is coded between steps.
TEST(BesideSteps, CodesAreThoseOfCodingBetweenSteps) {
  SNUG_NEED(LagOptions("residual=64").model_path);
  auto between = OpenOrFail(LagOptions("residual=64,lag=0"));
  const auto tokens = SomeTokens(250, between->config().vocab);
  testing::PromptAndTokens(*between, 0, tokens, 20);
  const auto expected = CodedBytes(*between, 0, 0);
  for (const char* lag : {"1", "20", "90"}) {
    auto beside = OpenOrFail(LagOptions(std::string("residual=64,lag=") + lag));
    testing::PromptAndTokens(*beside, 0, tokens, 20);
    const auto bytes = CodedBytes(*beside, 0, 0);
    ASSERT_FALSE(bytes.empty()) << lag;
    ASSERT_LE(bytes.size(), expected.size());
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin())) << lag;
  }
}

TEST(BesideSteps, CountsAreThoseOfTheRule) {
  SNUG_NEED(LagOptions("residual=64").model_path);
  for (const uint32_t lag : {1u, 32u, 65u}) {
    auto engine = OpenOrFail(LagOptions("residual=64,lag=" + std::to_string(lag)));
    const auto tokens = SomeTokens(230, engine->config().vocab);
    for (const size_t prompt : {1u, 64u, 65u, 97u, 140u}) {
      engine->Clear(0);
      testing::PromptAndTokens(*engine, 0, std::span(tokens).first(prompt + 90), prompt, [&] {
        const uint32_t n = engine->length(0);
        const uint32_t coded = n <= lag ? 0 : (n - lag - 1) / 64 * 64;
        for (uint32_t l = 0; l < engine->config().layers; ++l) {
          ASSERT_EQ(engine->cache().coded(0, l).keys, coded) << lag << " " << n;
          ASSERT_EQ(engine->cache().coded(0, l).values, coded) << lag << " " << n;
        }
      });
    }
  }
}

TEST(BesideSteps, WhatIsUnderWayIsLetGo) {
  SNUG_NEED(LagOptions("residual=64").model_path);
  EngineOptions o = LagOptions("residual=64,lag=64");
  auto plain = OpenOrFail(o);
  const auto tokens = SomeTokens(200, plain->config().vocab);
  const Rows expected = testing::PromptAndTokens(*plain, 0, tokens, 100);
  Delays delays;
  delays.most = 4000;
  o.encode_delay = delays.hook();
  auto engine = OpenOrFail(o);
  const auto begin = [&](uint32_t sequence) {  // a tile of the prompt will be read coded later
    ASSERT_TRUE(engine->Prefill(sequence, std::span(tokens).first(100), nullptr).ok());
    ASSERT_EQ(engine->cache().coded(sequence, 0).keys, 0u);
  };
  for (int round = 0; round < 3; ++round) {
    begin(0);
    begin(1);
    if (round > 0) std::this_thread::sleep_for(std::chrono::milliseconds(round));
    engine->Clear(0);
    EXPECT_EQ(testing::PromptAndTokens(*engine, 0, tokens, 100), expected) << round;
    engine->Clear(1);
    engine->Clear(0);
    EXPECT_EQ(engine->kv_bytes_held(), 0u);
  }
  // A prompt that is cancelled while rows of an earlier one are being coded.
  begin(0);
  const auto cancel = [](uint32_t done, uint32_t) { return done < 30; };
  EXPECT_FALSE(engine->Prefill(0, std::span(tokens).first(60), cancel).ok());
  EXPECT_EQ(engine->kv_bytes_held(), 0u);
  EXPECT_EQ(testing::PromptAndTokens(*engine, 0, tokens, 100), expected);
  // A sequence is gone back to its beginning, and an engine ends.
  engine->Clear(0);
  begin(0);
  ASSERT_TRUE(engine->Rollback(0, 0).ok());
  EXPECT_EQ(engine->kv_bytes_held(), 0u);
  begin(0);
  begin(1);
  engine.reset();
  EXPECT_GT(delays.calls, 0u);
}

// The plan has room for rows that wait for their turn: no more than without a lag where they fit
// the last exact page.
TEST(BesideSteps, PlanAndPoolsCountTheLag) {
  SNUG_NEED(LagOptions("residual=64").model_path);
  uint64_t without = 0;
  for (const char* lag : {"0", "32", "63", "64", "150", "300"}) {
    auto engine = OpenOrFail(LagOptions(std::string("residual=128,lag=") + lag));
    testing::ExpectLedgerHoldsThePlan(*engine, lag);
    const KvLayout& kv = engine->cache().layout();
    if (without == 0) without = kv.total_pages();
    // A context of 256 tokens is four pages.
    const std::string name(lag);
    const uint64_t more = name == "64" || name == "150" || name == "300" ? 1 : 0;
    EXPECT_EQ(kv.PagesOf(0, 256), 3 + more) << lag;
    if (more == 0) {
      EXPECT_EQ(kv.total_pages(), without) << lag;
    }
    testing::ExpectFullContextsFit(*engine, lag);
    engine->Clear(0);
    engine->Clear(1);
    EXPECT_EQ(engine->kv_bytes_held(), 0u);
  }
}

}  // namespace
}  // namespace snug
