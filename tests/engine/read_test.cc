// Decoded tokens that choose what they read, in whole models: exact prompts, the same logits for
// all chunks, threads, batches and places, plan and ledger equal, refusals by name.
#include "kv/read/read.h"

#include "engine/generate.h"
#include "engine_testing.h"
#include "kv/read/channels.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SameBits;
using testing::SomeTokens;
using testing::TinyOptions;

EngineOptions ReadOptions(const std::string& arch, const std::string& read) {
  EngineOptions o = TinyOptions(arch);
  if (read.empty()) return o;
  if (read.rfind("double", 0) == 0 && testing::Exists(o.model_path)) {
    o.channels = testing::RankChannels(o, arch);
  }
  auto method = ParseRead(read);
  EXPECT_TRUE(method.ok()) << read;
  if (method.ok()) o.read = *method;
  return o;
}

// The prompt's logits, then those of each further token, in steps of `step`.
std::vector<float> PromptAndSteps(Engine& engine, uint32_t sequence, std::span<const Token> tokens,
                                  size_t prompt, size_t step = 1) {
  const Status status = engine.Prefill(sequence, tokens.first(prompt), nullptr);
  EXPECT_TRUE(status.ok());
  if (!status.ok()) return {};
  std::vector<float> rows(engine.logits(0).begin(), engine.logits(0).end());
  const auto rest = AllLogits(engine, sequence, tokens.subspan(prompt), step);
  rows.insert(rows.end(), rest.begin(), rest.end());
  return rows;
}

constexpr const char* kReadSpecs[] = {"quest:tokens=48,dense-layers=1",
                                      "quest:tokens=1/4,least=20,dense-layers=0,page=4",
                                      "double-sparsity:tokens=40,dense-layers=1,channels=1/2"};
constexpr const char* kReadArchs[] = {"llama", "qwen2", "gemma3", "gpt-oss"};

TEST(EngineRead, ABudgetForAllRowsIsDenseBitForBit) {
  for (const char* arch : kReadArchs) {
    SNUG_NEED(ReadOptions(arch, "").model_path);
    auto dense = OpenOrFail(ReadOptions(arch, ""));
    const auto tokens = SomeTokens(220, dense->config().vocab);
    const auto reference = PromptAndSteps(*dense, 0, tokens, 150);
    for (const char* spec : {"quest:tokens=1", "quest:tokens=220", "quest:tokens=1/16,least=220",
                             "double-sparsity:tokens=220,channels=1/16"}) {
      auto engine = OpenOrFail(ReadOptions(arch, spec));
      EXPECT_TRUE(SameBits(PromptAndSteps(*engine, 0, tokens, 150), reference))
          << arch << " " << spec;
    }
  }
}

TEST(EngineRead, PromptsSeeAllRowsAndWhatFollowsDoesNot) {
  for (const char* arch : kReadArchs) {
    SNUG_NEED(ReadOptions(arch, "").model_path);
    auto dense = OpenOrFail(ReadOptions(arch, ""));
    const size_t vocab = dense->config().vocab;
    const auto tokens = SomeTokens(220, dense->config().vocab);
    const auto reference = PromptAndSteps(*dense, 0, tokens, 200);
    for (const char* spec : kReadSpecs) {
      auto engine = OpenOrFail(ReadOptions(arch, spec));
      const auto rows = PromptAndSteps(*engine, 0, tokens, 200);
      const auto row = [&](const std::vector<float>& all, size_t i) {
        return std::span(all).subspan(i * vocab, vocab);
      };
      EXPECT_TRUE(SameBits(row(rows, 0), row(reference, 0))) << arch << " " << spec;
      EXPECT_FALSE(SameBits(row(rows, 20), row(reference, 20))) << arch << " " << spec;
    }
  }
}

TEST(EngineRead, ChunksThreadsStepsBatchesAndPlaceChangeNothing) {
  for (const char* arch : kReadArchs) {
    SNUG_NEED(ReadOptions(arch, "").model_path);
    for (const char* spec : kReadSpecs) {
      auto first = OpenOrFail(ReadOptions(arch, spec));
      const size_t vocab = first->config().vocab;
      const auto tokens = SomeTokens(220, first->config().vocab);
      const auto reference = PromptAndSteps(*first, 0, tokens, 170);
      for (const uint32_t chunk : {1u, 7u, 220u}) {
        EngineOptions o = ReadOptions(arch, spec);
        o.chunk = o.logit_rows = chunk;
        o.threads = chunk == 7 ? 3 : 1;
        if (chunk == 220) o.place = PlaceChoice::kStream;
        auto engine = OpenOrFail(o);
        // Steps of several tokens give what single ones give.
        EXPECT_TRUE(
            SameBits(PromptAndSteps(*engine, 0, tokens, 170, std::min(chunk, 16u)), reference))
            << arch << " " << spec << " " << chunk;
      }
      EngineOptions o = ReadOptions(arch, spec);
      o.sequences = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectSameInABatch(
          *engine, tokens,
          [&](size_t i) { return std::span(reference).subspan((i - 169) * vocab, vocab); },
          std::string(arch) + " " + spec);
    }
  }
}

TEST(EngineRead, AllCacheTypes) {
  for (const KvType type :
       {KvType::kF16, KvType::kBF16, KvType::kQ8_0, KvType::kQ4_0, KvType::kF8E4M3}) {
    EngineOptions o = ReadOptions("qwen2", kReadSpecs[0]);
    SNUG_NEED(o.model_path);
    o.key_type = o.value_type = type;
    o.any_types = true;
    auto plan = PlanFile(o);
    if (!plan.ok()) continue;  // heads of the tiny model may have no whole blocks
    auto a = OpenOrFail(o);
    const auto tokens = SomeTokens(200, a->config().vocab);
    o.chunk = o.logit_rows = 7;
    auto b = OpenOrFail(o);
    EXPECT_TRUE(SameBits(PromptAndSteps(*a, 0, tokens, 150), PromptAndSteps(*b, 0, tokens, 150)));
  }
}

// After a rollback, and from a shared prefix, tokens get what a fresh sequence gives them; answers
// are read again, as prompts.
TEST(EngineRead, RollbacksAndPrefixes) {
  for (const char* arch : kReadArchs) {
    for (const char* spec : kReadSpecs) {
      EngineOptions o = ReadOptions(arch, spec);
      SNUG_NEED(o.model_path);
      o.sequences = 2;
      auto engine = OpenOrFail(o);
      const auto tokens = SomeTokens(220, engine->config().vocab);
      const std::span<const Token> all(tokens);
      const size_t vocab = engine->config().vocab;
      const auto reference = PromptAndSteps(*engine, 0, tokens, 170);
      ASSERT_TRUE(engine->Rollback(0, 190).ok());
      const auto again = AllLogits(*engine, 0, all.subspan(190), 5);
      EXPECT_TRUE(SameBits(again, std::span(reference).subspan(21 * vocab))) << arch << " " << spec;
      EXPECT_LE(engine->ReusePrefix(1, all), 170u);
      engine->Clear(1);
      const uint32_t reused = engine->ReusePrefix(1, all.first(171));
      // A window may have moved on.
      if (arch != std::string("gemma3") && arch != std::string("gpt-oss")) {
        EXPECT_EQ(reused, 170u);
      }
      ASSERT_TRUE(engine->Rollback(1, std::min(reused, 165u)).ok());
      const uint32_t at = engine->length(1);
      EXPECT_TRUE(SameBits(PromptAndSteps(*engine, 1, all.subspan(at), 170 - at), reference))
          << arch << " " << spec;
    }
  }
}

TEST(EngineRead, SpeculationGivesTheSameAnswer) {
  EngineOptions o;
  o.model_path = testing::TinyModel().Write();
  o.budget.bytes = 256 * kMiB;
  o.read = *ParseRead("quest:tokens=32,dense-layers=1,page=8");
  o.logit_rows = 16;
  std::vector<Token> prompt = SomeTokens(60, 256);
  prompt.insert(prompt.end(), prompt.begin(), prompt.end());
  GenerateOptions g;
  g.max_tokens = 100;
  g.ignore_eos = true;
  g.sampling.temperature = 0;
  auto plain = OpenOrFail(o);
  const auto want = Generate(*plain, 0, prompt, g);
  ASSERT_TRUE(want.ok());
  o.lookup = true;
  g.lookup = true;
  auto engine = OpenOrFail(o);
  const auto got = Generate(*engine, 0, prompt, g);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->tokens, want->tokens);
}

TEST(EngineRead, LedgerHoldsWhatThePlanSays) {
  for (const char* arch : kReadArchs) {
    SNUG_NEED(ReadOptions(arch, "").model_path);
    const auto dense = PlanFile(ReadOptions(arch, ""));
    ASSERT_TRUE(dense.ok());
    for (const char* spec : kReadSpecs) {
      EngineOptions o = ReadOptions(arch, spec);
      o.sequences = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectLedgerHoldsThePlan(*engine, std::string(arch) + " " + spec);
      EXPECT_GT(engine->plan().kv_bytes, 2 * dense->kv_bytes);  // the index lies there
    }
  }
}

// Sums of |q_c k_c| are what the first layer's queries and keys give, in any chunks.
TEST(EngineRead, RankingsDependOnNeitherChunksNorThreads) {
  for (const char* arch : kReadArchs) {
    EngineOptions o = TinyOptions(arch);
    SNUG_NEED(o.model_path);
    o.observe = Observation::kChannels;
    std::vector<std::vector<uint16_t>> want;
    for (const uint32_t chunk : {64u, 1u, 7u}) {
      o.threads = chunk == 7 ? 3 : 1;
      auto engine = OpenOrFail(o);
      AllLogits(*engine, 0, SomeTokens(100, engine->config().vocab), chunk);
      const ChannelRanking r = engine->channel_statistics()->Rank();
      if (want.empty()) want = r.layers;
      EXPECT_EQ(r.layers, want) << arch << " " << chunk;
      for (const auto& layer : r.layers) {
        EXPECT_EQ(layer.size(), size_t{engine->config().kv_heads} * engine->config().head_dim);
      }
      EXPECT_EQ(engine->ledger().snapshot().total_peak, engine->plan().peak_total);
    }
  }
}

TEST(EngineRead, RankingsOfOtherWeightsAreRefused) {
  EngineOptions o;
  o.model_path = testing::TinyModel().Write();
  o.budget.bytes = 256 * kMiB;
  o.read = *ParseRead("double-sparsity:dense-layers=0");
  auto none = Engine::Open(o);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Code::kUsage);
  EXPECT_NE(none.error().next.find("snug calibrate"), std::string::npos);
  EngineOptions bare = o;
  bare.read = nullptr;
  bare.logit_rows = bare.chunk = 64;
  o.channels = testing::RankChannels(bare, "own");
  EXPECT_TRUE(Engine::Open(o).ok());
  testing::TinyModel other;
  other.ffn = 96;
  o.model_path = other.Write();
  auto refused = Engine::Open(o);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kBadFile);
  EXPECT_NE(refused.error().message.find("was measured on the weights"), std::string::npos)
      << refused.error().message;
  o.channels += ".missing";
  EXPECT_FALSE(Engine::Open(o).ok());
}

TEST(EngineRead, RefusedByName) {
  const std::string quest = "--kv-read quest";
  for (const char* arch : {"mamba", "qwen3next"}) {
    EngineOptions o = ReadOptions(arch, "quest");
    SNUG_NEED(o.model_path);
    testing::ExpectRefused(o, {quest, "keep a state"});
  }
  EngineOptions o = ReadOptions("llama", "quest");
  SNUG_NEED(o.model_path);
  for (const char* keep : {"h2o", "keyformer", "tova"}) {
    o.keep = *ParseKeep(keep);
    testing::ExpectRefused(o, {quest, std::string("--kv-keep ") + keep + " observes"});
  }
  for (const char* keep : {"snapkv", "sink-window", "random"}) {
    o.keep = *ParseKeep(keep);
    testing::ExpectRefused(o, {quest, std::string("--kv-keep ") + keep + " moves rows"});
  }
  o.keep = nullptr;
  o.codec = *ParseCodec("kivi:residual=32,group=16");
  testing::ExpectRefused(o, {quest, "cannot be gathered one by one"});
  testing::ExpectRefusedWithoutRows(ReadOptions("llama", "quest"), quest);
}

}  // namespace
}  // namespace snug
