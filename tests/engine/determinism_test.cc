// One rule: a token's logits are a function of its prefix, the cache types, exactness and the CPU
// target. Chunks, batches, prefix reuse, rollback, place, budget and threads must not change a bit.
#include "engine_testing.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SameBits;
using testing::SomeTokens;
using testing::TinyOptions;

struct Case {
  const char* arch;
  KvType kv;
  bool exact;
};

class Determinism : public ::testing::TestWithParam<Case> {
 protected:
  EngineOptions Options() const {
    EngineOptions o = TinyOptions(GetParam().arch);
    o.key_type = o.value_type = GetParam().kv;
    o.exact = GetParam().exact;
    return o;
  }
  // 200 tokens cross tiles and Gemma's window of 32.
  std::vector<float> Reference() {
    auto engine = OpenOrFail(Options());
    tokens_ = SomeTokens(200, engine->config().vocab);
    vocab_ = engine->config().vocab;
    return AllLogits(*engine, 0, tokens_, 64);
  }
  std::vector<Token> tokens_;
  size_t vocab_ = 0;
};

TEST_P(Determinism, ChunkAndThreads) {
  SNUG_NEED(Options().model_path);
  const auto reference = Reference();
  for (size_t chunk : {1, 7, 32, 63}) {
    for (int threads : {1, 2, 3}) {
      EngineOptions o = Options();
      o.threads = threads;
      auto engine = OpenOrFail(o);
      EXPECT_TRUE(SameBits(AllLogits(*engine, 0, tokens_, chunk), reference))
          << chunk << " " << threads;
    }
  }
}

TEST_P(Determinism, BatchOfSequences) {
  SNUG_NEED(Options().model_path);
  const auto reference = Reference();
  EngineOptions o = Options();
  o.sequences = 3;
  auto engine = OpenOrFail(o);
  // Three sequences at different lengths advance together.
  const std::span<const Token> all(tokens_);
  AllLogits(*engine, 1, all.first(50), 10);
  AllLogits(*engine, 2, all.first(130), 64);
  for (size_t i = 0; i < 40; ++i) {
    const StepItem items[] = {{0, all.subspan(i, 1), StepItem::Logits::kLast},
                              {1, all.subspan(50 + i, 1), StepItem::Logits::kLast},
                              {2, all.subspan(130 + i, 1), StepItem::Logits::kLast}};
    ASSERT_TRUE(engine->Step(items).ok());
    const size_t at[] = {i, 50 + i, 130 + i};
    for (size_t s = 0; s < 3; ++s) {
      EXPECT_TRUE(SameBits(engine->logits(s), {reference.data() + at[s] * vocab_, vocab_}))
          << s << " " << i;
    }
  }
}

TEST_P(Determinism, RollbackAndPrefixReuse) {
  SNUG_NEED(Options().model_path);
  const auto reference = Reference();
  EngineOptions o = Options();
  o.sequences = 2;
  auto engine = OpenOrFail(o);
  const std::span<const Token> all(tokens_);
  AllLogits(*engine, 0, all.first(150), 64);
  // Wrong tokens, taken back, leave no trace.
  AllLogits(*engine, 0, SomeTokens(9, static_cast<uint32_t>(vocab_), 99), 9);
  ASSERT_TRUE(engine->Rollback(0, 150).ok());
  ASSERT_EQ(engine->length(0), 150u);
  const auto rest = AllLogits(*engine, 0, all.subspan(150), 64);
  EXPECT_TRUE(SameBits(rest, {reference.data() + 150 * vocab_, 50 * vocab_}));
  // Further back than a window or a snapshot reaches, and into the middle of a chunk.
  ASSERT_TRUE(engine->Rollback(0, 37).ok());
  const auto middle = AllLogits(*engine, 0, all.subspan(37), 50);
  EXPECT_TRUE(SameBits(middle, {reference.data() + 37 * vocab_, 163 * vocab_}));
  // Another sequence starts from what the first one holds: pages to the token, states at chunks.
  const uint32_t reused = engine->ReusePrefix(1, all.first(190));
  EXPECT_EQ(reused, engine->config().recurrent_layers() > 0 ? 187u : 189u);
  const auto again = AllLogits(*engine, 1, all.subspan(reused), 64);
  EXPECT_TRUE(SameBits(again, {reference.data() + reused * vocab_, (200 - reused) * vocab_}));
}

// A prompt that is cancelled between chunks keeps what was done, and a step that is refused
// nothing.
TEST_P(Determinism, CancelledAndRefusedSteps) {
  SNUG_NEED(Options().model_path);
  const auto reference = Reference();
  auto engine = OpenOrFail(Options());
  const std::span<const Token> all(tokens_);
  const Status cancelled =
      engine->Prefill(0, all.first(190), [](uint32_t done, uint32_t) { return done < 100; });
  ASSERT_FALSE(cancelled.ok());
  EXPECT_EQ(cancelled.error().code, Code::kCancelled);
  ASSERT_EQ(engine->length(0), 128u);
  const Token bad = -1;
  const StepItem item{0, {&bad, 1}, StepItem::Logits::kLast};
  ASSERT_FALSE(engine->Step({&item, 1}).ok());
  const auto rest = AllLogits(*engine, 0, all.subspan(128), 64);
  EXPECT_TRUE(SameBits(rest, {reference.data() + 128 * vocab_, 72 * vocab_}));
}

TEST_P(Determinism, StreamedWeights) {
  SNUG_NEED(Options().model_path);
  const auto reference = Reference();
  EngineOptions o = Options();
  o.place = PlaceChoice::kStream;
  auto engine = OpenOrFail(o);
  // Of a mixture, experts leave memory before anything else.
  ASSERT_TRUE(!engine->place().resident() || engine->plan().expert_slots != 0);
  EXPECT_TRUE(SameBits(AllLogits(*engine, 0, tokens_, 48), reference));
}

INSTANTIATE_TEST_SUITE_P(
    Tiny, Determinism,
    ::testing::Values(Case{"llama", KvType::kF16, false}, Case{"qwen2", KvType::kBF16, false},
                      Case{"gemma3", KvType::kF16, false}, Case{"gemma3", KvType::kQ8_0, false},
                      Case{"gemma3", KvType::kQ4_0, false}, Case{"gemma3", KvType::kF8E4M3, false},
                      Case{"gemma3", KvType::kF32, true}, Case{"llama-yarn", KvType::kF32, true},
                      Case{"mamba", KvType::kF16, false}, Case{"mamba", KvType::kF32, true},
                      Case{"mamba2", KvType::kF16, false}, Case{"mamba2", KvType::kF32, true},
                      Case{"qwen3next", KvType::kF16, false},
                      Case{"qwen3next", KvType::kQ8_0, false},
                      Case{"qwen3next", KvType::kF32, true}),
    [](const auto& param) {
      std::string name = std::string(param.param.arch) + "_" +
                         std::string(KvTypeName(param.param.kv)) +
                         (param.param.exact ? "_exact" : "");
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

}  // namespace
}  // namespace snug
