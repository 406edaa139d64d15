// Positions that roll, in whole models: texts far past the context and what the model was trained
// for, in a cache that does not grow.
#include "engine/generate.h"
#include "engine_testing.h"
#include "kv/codec/codec.h"
#include "kv/keep/keep.h"
#include "kv/read/read.h"
#include "kv/share/share.h"
#include "model/rope.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;

EngineOptions Rolling(const std::string& arch, const std::string& keep) {
  EngineOptions o = testing::TinyOptions(arch);
  o.logit_rows = o.threads = 1;
  o.keep = *ParseKeep(keep);
  o.rolling = true;
  return o;
}

constexpr const char* kSpecs[] = {"sink-window:budget=70", "h2o:budget=70",
                                  "snapkv:budget=70,answer=10"};
constexpr const char* kArchs[] = {"llama", "qwen2", "gemma3"};

TEST(EngineRolling, WhereEveryRowStaysNotABitChanges) {
  for (const char* arch : kArchs) {
    EngineOptions o = Rolling(arch, "sink-window:budget=250");
    SNUG_NEED(o.model_path);
    std::vector<std::vector<float>> reference;
    for (const bool rolling : {false, true}) {
      o.rolling = rolling;
      auto engine = OpenOrFail(o);
      const auto tokens = SomeTokens(240, engine->config().vocab);
      const auto rows = testing::PromptAndTokens(*engine, 0, tokens, 100);
      if (!rolling) reference = rows;
      EXPECT_EQ(rows, reference) << arch;
    }
  }
}

// What enters the first layer that drops rows is the same whatever is dropped, so that its keys are
// those of a dense cache turned to their places: by the model's own rotary settings.
TEST(EngineRolling, KeysAreTurnedToTheirPlaces) {
  for (const char* arch :
       {"llama", "llama-yarn", "llama3-rope", "qwen2", "qwen3", "gemma3", "phi3", "gpt-oss"}) {
    for (const char* spec : kSpecs) {
      EngineOptions o = Rolling(arch, spec);
      SNUG_NEED(o.model_path);
      o.exact = true;
      o.chunk = 0;
      EngineOptions all = o;
      all.keep = nullptr;
      all.rolling = false;
      o.context = 128;
      auto engine = OpenOrFail(o), dense = OpenOrFail(all);
      const ModelConfig& c = engine->config();
      const auto tokens = SomeTokens(250, c.vocab);
      testing::PromptAndTokens(*dense, 0, tokens, 100);
      testing::PromptAndTokens(*engine, 0, tokens, 100);
      const KvCache& cache = engine->cache();
      uint32_t layer = 0;
      while (c.window[layer] != 0) ++layer;
      const std::vector<float>& frequencies = cache.layout().rolling->frequencies;
      ASSERT_EQ(frequencies.size(), c.rope.dim / 2);
      for (uint32_t h = 0; h < c.kv_heads; ++h) {
        const auto rows = cache.positions(0, layer, h);
        std::vector<uint32_t> sorted(rows.begin(), rows.end());
        std::sort(sorted.begin(), sorted.end());
        for (uint32_t r = 0; r < rows.size(); ++r) {
          std::vector<float> got(c.head_dim), want(c.head_dim);
          LoadKey(KvType::kF32, cache.tiles(0, layer)[h * cache.table_stride() + r / kTileTokens],
                  c.head_dim, r % kTileTokens, got.data());
          LoadKey(KvType::kF32,
                  dense->cache().tiles(0, layer)[rows[r] / kTileTokens] +
                      h * dense->cache().key_tile_bytes(),
                  c.head_dim, rows[r] % kTileTokens, want.data());
          const auto rank = std::lower_bound(sorted.begin(), sorted.end(), rows[r]);
          const double place = 250.0 - static_cast<double>(sorted.end() - rank);
          for (uint32_t i = 0; i < c.rope.dim / 2; ++i) {
            const uint32_t a = c.rope.interleaved ? 2 * i : i;
            const uint32_t b = c.rope.interleaved ? 2 * i + 1 : i + c.rope.dim / 2;
            const double angle = frequencies[i] * (place - rows[r]), x = want[a], y = want[b];
            want[a] = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
            want[b] = static_cast<float>(y * std::cos(angle) + x * std::sin(angle));
          }
          for (uint32_t d = 0; d < c.head_dim; ++d) {
            ASSERT_NEAR(got[d], want[d], 2e-5 * (1 + std::abs(want[d])))
                << arch << " " << spec << " row " << r;
          }
        }
      }
    }
  }
}

// Tables of layers with a window are shortened at other tokens where chunks or contexts differ.
TEST(EngineRolling, ChunksThreadsContextsAndBatchesDoNotChangeABit) {
  for (const char* arch : kArchs) {
    for (const char* spec : kSpecs) {
      std::vector<std::vector<float>> reference;
      std::vector<Token> tokens;
      const bool grows = spec == kSpecs[1];  // by the rows that lie before dropped ones
      const uint32_t length = arch == kArchs[2] && spec == kSpecs[0] ? 1000 : 360;
      for (const uint32_t chunk : {64u, 7u, 1u}) {
        EngineOptions o = Rolling(arch, spec);
        SNUG_NEED(o.model_path);
        o.chunk = chunk;
        o.threads = chunk == 7 ? 3 : 1;
        o.context = chunk == 1 ? 512 : 180;
        if (chunk == 1) o.place = PlaceChoice::kStream;
        auto engine = OpenOrFail(o);
        if (tokens.empty()) tokens = SomeTokens(length, engine->config().vocab);
        std::vector<uint64_t> held;
        const auto rows = testing::PromptAndTokens(*engine, 0, tokens, 170, [&] {
          held.push_back(engine->kv_bytes_held());
          EXPECT_LE(held.back(), engine->plan().kv_bytes);
        });
        if (reference.empty()) reference = rows;
        EXPECT_EQ(rows, reference) << arch << " " << spec << " " << chunk;
        EXPECT_EQ(engine->length(0), length);
        EXPECT_EQ(engine->tokens(0).size(), std::min(length, o.context));
        // It does not grow with the text.
        const auto middle = held.begin() + static_cast<std::ptrdiff_t>(held.size() / 2);
        const auto most = [](auto from, auto to) { return *std::max_element(from, to); };
        if (!grows) {
          EXPECT_GE(most(held.begin(), middle), most(middle, held.end())) << spec;
        }
        testing::ExpectLedgerHoldsThePlan(*engine, std::string(arch) + " " + spec);
      }
      EngineOptions o = Rolling(arch, spec);
      o.sequences = o.logit_rows = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectSameInABatch(
          *engine, std::span(tokens).first(300), [&](size_t i) { return reference[i - 169]; },
          std::string(arch) + " " + spec);
      engine->Clear(0);
      engine->Clear(1);
      EXPECT_EQ(engine->kv_bytes_held(), 0u);
    }
  }
}

TEST(EngineRolling, AnswersGoOnPastTheContextAndPromptsDoNot) {
  EngineOptions o = testing::TinyOptions("");
  o.model_path = testing::TinyModel().Write();
  o.logit_rows = 1;
  o.context = 128;
  o.keep = *ParseKeep("sink-window:budget=64");
  GenerateOptions g;
  g.max_tokens = 600;
  g.ignore_eos = true;
  g.sampling.temperature = 0;
  const std::vector<Token> prompt = SomeTokens(120, 256);
  auto engine = OpenOrFail(o);
  EXPECT_FALSE(Generate(*engine, 0, prompt, g).ok());
  o.rolling = true;
  engine = OpenOrFail(o);
  const auto answer = Generate(*engine, 0, prompt, g);
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->tokens.size(), 600u);
  EXPECT_EQ(engine->cache().rows(0, 0), 64u);
  const auto longer = Generate(*engine, 0, SomeTokens(129, 256), g);
  ASSERT_FALSE(longer.ok());
  EXPECT_EQ(longer.error().code, Code::kDoesNotFit);
  EXPECT_EQ(longer.error().message, "129 prompt tokens exceed the context of 128");
  // A second prompt has the context beside the rows that stay.
  ASSERT_TRUE(engine->Prefill(0, std::span(prompt).first(64), nullptr).ok());
  EXPECT_FALSE(engine->Prefill(0, std::span(prompt).first(65), nullptr).ok());
}

TEST(EngineRolling, RefusedByName) {
  testing::TinyModel model;
  model.dim = 64;
  EngineOptions o = testing::TinyOptions("");
  o.model_path = model.Write();
  o.logit_rows = 1;
  o.rolling = true;
  const auto with = [&](const char* keep) {
    EngineOptions k = o;
    k.keep = *ParseKeep(keep);
    return k;
  };
  const std::string_view rolling = "--kv-positions rolling";
  testing::ExpectRefused(o, {rolling, "no row is dropped"});
  for (const char* codec : {"kivi", "million", "zipcache"}) {
    EngineOptions c = o;
    c.codec = *ParseCodec(codec);
    testing::ExpectRefused(c, {rolling, codec, "as they were rotated for their positions"});
  }
  EngineOptions c = with("sink-window:budget=64");
  c.codec = *ParseCodec("rotatekv:sort=off");
  testing::ExpectRefused(c, {rolling, "rotatekv", "as it reads them"});
  c = o;
  c.share = *ParseShare("minicache");
  testing::ExpectRefused(c, {rolling, "minicache"});
  c = o;
  c.read = *ParseRead("quest");
  testing::ExpectRefused(c, {rolling, "no row is dropped"});
  testing::ExpectRefused(with("chelsea"), {rolling, "chelsea", "merges keys"});
  testing::ExpectRefused(with("sink-window:budget=256"), {"up to 256 rows", "context of 256"});
  testing::ExpectRefused(with("snapkv:budget=200,answer=100"), {"up to 300 rows"});
  EXPECT_TRUE(PlanFile(with("sink-window:budget=255")).ok());
}

TEST(EngineRolling, PositionsOfTheTextEndWhereTheModelWasTrained) {
  EngineOptions o = Rolling("llama", "sink-window:budget=64");
  SNUG_NEED(o.model_path);
  o.context = 513;
  for (const bool rolling : {false, true}) {
    o.rolling = rolling;
    const auto plan = PlanFile(o);
    ASSERT_FALSE(plan.ok());
    EXPECT_EQ(plan.error().code, Code::kDoesNotFit);
    EXPECT_NE(plan.error().message.find("513"), std::string::npos);
    EXPECT_NE(plan.error().next.find(rolling ? "a text goes on past it" : "--kv-positions rolling"),
              std::string::npos)
        << plan.error().next;
  }
}

// Rows are found that hold, although the context has no room for the most.
TEST(EngineRolling, ABudgetOfBytesFindsRows) {
  EngineOptions o = testing::TinyOptions("");
  o.model_path = testing::TinyModel().Write();
  o.logit_rows = 1;
  o.keep = *ParseKeep("sink-window");
  o.rolling = true;
  o.kv_bytes = 64 * kMiB;
  const auto plan = PlanFile(o);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->cache, "--kv f16 --kv-keep sink-window:budget=255 --kv-positions rolling");
}

}  // namespace
}  // namespace snug
