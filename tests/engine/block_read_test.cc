// Prompts whose queries choose blocks of keys, in whole models.
#include "engine/generate.h"
#include "engine_testing.h"
#include "kv/read/blocks.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::PromptAndTokens;
using testing::SomeTokens;
using testing::TinyOptions;

EngineOptions BlockOptions(const std::string& arch, const std::string& read) {
  EngineOptions o = TinyOptions(arch);
  if (read.empty()) return o;
  auto method = ParseRead(read);
  EXPECT_TRUE(method.ok()) << read;
  if (method.ok()) o.read = *method;
  return o;
}

constexpr const char* kBlockSpecs[] = {"dhsa:queries=32,keys=16,density=1/4",
                                       "dhsa:mode=topk,queries=32,keys=16,density=1/4",
                                       "block-sparse:queries=16,keys=16,density=1/4"};
constexpr const char* kBlockArchs[] = {"llama", "qwen2", "gemma3", "gpt-oss"};
constexpr size_t kPromptTokens = 210;

// The budget covers the first 192 tokens, the last block is dense: what is chosen is all.
TEST(EngineBlocks, ABudgetForAllIsDenseBitForBit) {
  for (const char* arch : kBlockArchs) {
    SNUG_NEED(BlockOptions(arch, "").model_path);
    auto dense = OpenOrFail(BlockOptions(arch, ""));
    const auto tokens = SomeTokens(220, dense->config().vocab);
    const auto reference = PromptAndTokens(*dense, 0, tokens, kPromptTokens);
    for (const char* spec : {"dhsa:density=1,queries=16,keys=16", "dhsa", "block-sparse"}) {
      auto engine = OpenOrFail(BlockOptions(arch, spec));
      EXPECT_EQ(PromptAndTokens(*engine, 0, tokens, kPromptTokens), reference) << arch << spec;
    }
  }
}

// The keys and values of the first layer are the dense ones, and those of the second are, too, for
// tokens that read all they see: the first, which the budget covers, and no others.
TEST(EngineBlocks, TokensWithinTheBudgetAreDenseBitForBit) {
  for (const char* arch : {"llama", "qwen2"}) {
    SNUG_NEED(BlockOptions(arch, "").model_path);
    auto dense = OpenOrFail(BlockOptions(arch, ""));
    const auto tokens = SomeTokens(kPromptTokens, dense->config().vocab);
    ASSERT_TRUE(dense->Prefill(0, tokens, nullptr).ok());
    const auto key = [&](Engine& e, uint32_t layer, uint32_t t) {
      const KvLayout& kv = e.cache().layout();
      std::vector<float> row(kv.head_dim);
      LoadKey(kv.key_type, e.cache().tiles(0, layer)[t / kTileTokens], kv.head_dim, t % kTileTokens,
              row.data());
      return row;
    };
    for (const char* spec : kBlockSpecs) {
      auto engine = OpenOrFail(BlockOptions(arch, spec));
      ASSERT_TRUE(engine->Prefill(0, tokens, nullptr).ok());
      const BlockBudget& b = engine->options().read->blocks()->budget();
      uint32_t differ = 0;
      for (uint32_t t = 0; t < kPromptTokens; ++t) {
        EXPECT_EQ(key(*engine, 0, t), key(*dense, 0, t)) << arch << " " << spec << " " << t;
        const bool same = key(*engine, 1, t) == key(*dense, 1, t);
        differ += same ? 0 : 1;
        if (b.Dense(kPromptTokens, t / b.queries)) {
          EXPECT_TRUE(same) << arch << " " << spec << " " << t;
        }
      }
      EXPECT_GT(differ, 50u);
    }
  }
}

TEST(EngineBlocks, ChoicesChangeWhatFollows) {
  // The only layer of gemma3's that chooses is the last one.
  for (const char* arch : {"llama", "qwen2", "gpt-oss"}) {
    SNUG_NEED(BlockOptions(arch, "").model_path);
    auto dense = OpenOrFail(BlockOptions(arch, ""));
    const auto tokens = SomeTokens(220, dense->config().vocab);
    const auto reference = PromptAndTokens(*dense, 0, tokens, kPromptTokens);
    for (const char* spec : kBlockSpecs) {
      auto engine = OpenOrFail(BlockOptions(arch, spec));
      const auto rows = PromptAndTokens(*engine, 0, tokens, kPromptTokens);
      EXPECT_NE(rows[0], reference[0]) << arch << " " << spec;
      EXPECT_NE(rows[5], reference[5]) << arch << " " << spec;
    }
  }
}

TEST(EngineBlocks, ChunksThreadsBatchesAndPlaceChangeNothing) {
  for (const char* arch : kBlockArchs) {
    SNUG_NEED(BlockOptions(arch, "").model_path);
    for (const char* spec : kBlockSpecs) {
      auto first = OpenOrFail(BlockOptions(arch, spec));
      const auto tokens = SomeTokens(220, first->config().vocab);
      const auto reference = PromptAndTokens(*first, 0, tokens, kPromptTokens);
      for (const uint32_t chunk : {1u, 7u, 220u}) {
        if (chunk == 1 && arch != std::string("qwen2")) continue;
        EngineOptions o = BlockOptions(arch, spec);
        o.chunk = o.logit_rows = chunk;
        o.threads = chunk == 7 ? 3 : 1;
        if (chunk == 220) o.place = PlaceChoice::kStream;
        auto engine = OpenOrFail(o);
        EXPECT_EQ(PromptAndTokens(*engine, 0, tokens, kPromptTokens), reference)
            << arch << " " << spec << " " << chunk;
      }
      EngineOptions o = BlockOptions(arch, spec);
      o.sequences = 2;
      auto engine = OpenOrFail(o);
      const auto alone = PromptAndTokens(*engine, 0, tokens, 170);
      engine->Clear(0);
      testing::ExpectSameInABatch(
          *engine, tokens, [&](size_t i) { return alone[i - 169]; }, arch);
    }
  }
}

TEST(EngineBlocks, RollbacksPrefixesAndCancelledPrompts) {
  for (const char* arch : {"llama", "qwen2"}) {
    EngineOptions o = BlockOptions(arch, kBlockSpecs[0]);
    SNUG_NEED(o.model_path);
    auto engine = OpenOrFail(o);
    testing::ExpectPrefixesAreReadAgain(*engine);
    engine->Clear(0);
    testing::ExpectCancelledPromptsLeaveNothing(*engine);
    // Answers see all rows, so they can be gone back in, and steps may have several tokens.
    engine->Clear(0);
    const auto tokens = SomeTokens(220, engine->config().vocab);
    const auto reference = PromptAndTokens(*engine, 0, tokens, 180);
    ASSERT_TRUE(engine->Rollback(0, 190).ok());
    const size_t vocab = engine->config().vocab;
    const auto again = testing::AllLogits(*engine, 0, std::span(tokens).subspan(190), 5);
    for (size_t i = 0; i < 30; ++i) {
      EXPECT_TRUE(testing::SameBits(std::span(again).subspan(i * vocab, vocab), reference[11 + i]));
    }
  }
}

TEST(EngineBlocks, LedgerHoldsWhatThePlanSays) {
  for (const char* arch : kBlockArchs) {
    SNUG_NEED(BlockOptions(arch, "").model_path);
    const auto dense = PlanFile(BlockOptions(arch, ""));
    ASSERT_TRUE(dense.ok());
    for (const char* spec : kBlockSpecs) {
      EngineOptions o = BlockOptions(arch, spec);
      auto engine = OpenOrFail(o);
      testing::ExpectLedgerHoldsThePlan(*engine, std::string(arch) + " " + spec);
      EXPECT_GT(engine->plan().scratch_bytes, dense->scratch_bytes);
      EXPECT_EQ(engine->plan().kv_bytes, dense->kv_bytes);
      EXPECT_GT(engine->plan().hidden_bytes, 0u);
    }
  }
}

TEST(EngineBlocks, RefusedByName) {
  const std::string dhsa = "--kv-read dhsa";
  for (const char* arch : {"mamba", "qwen3next"}) {
    EngineOptions o = BlockOptions(arch, "dhsa");
    SNUG_NEED(o.model_path);
    testing::ExpectRefused(o, {dhsa, "keep a state"});
  }
  EngineOptions o = BlockOptions("llama", "dhsa");
  SNUG_NEED(o.model_path);
  for (const char* keep : {"h2o", "keyformer", "tova", "snapkv", "windowkv:group=1,beta=1"}) {
    o.keep = *ParseKeep(keep);
    testing::ExpectRefused(o, {dhsa, std::string("--kv-keep ") + keep + " observes"});
  }
  testing::ExpectRefusedWithoutRows(BlockOptions("llama", "dhsa"), dhsa);
}

}  // namespace
}  // namespace snug
