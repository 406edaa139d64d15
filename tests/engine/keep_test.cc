// Caches that drop rows, in whole models: exact prompts, the same rows whatever the chunks, threads
// and place, plan and ledger equal, and what cannot be refused by name.
#include "kv/keep/keep.h"

#include "engine/generate.h"
#include "engine_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

EngineOptions KeepOptions(const std::string& arch, const std::string& keep) {
  EngineOptions o = TinyOptions(arch);
  o.logit_rows = 1;
  if (keep.empty()) return o;
  auto method = ParseKeep(keep);
  EXPECT_TRUE(method.ok()) << keep;
  if (method.ok()) o.keep = *method;
  return o;
}

std::vector<std::vector<uint32_t>> AllKept(const Engine& engine, uint32_t sequence) {
  std::vector<std::vector<uint32_t>> kept;
  const KvLayout& l = engine.cache().layout();
  for (uint32_t layer = 0; layer < l.layers; ++layer) {
    for (uint32_t h = 0; l.Drops(layer) && h < l.kv_heads; ++h) {
      const auto rows = engine.cache().positions(sequence, layer, h);
      kept.emplace_back(rows.begin(), rows.end());
    }
  }
  return kept;
}

constexpr const char* kSpecs[] = {"h2o:budget=70",
                                  "keyformer:budget=70",
                                  "random:budget=70",
                                  "sink-window:budget=70",
                                  "snapkv:budget=70,answer=10",
                                  "tova:budget=70",
                                  "windowkv:budget=70,window=4,group=2,beta=2,suffix=16,answer=10",
                                  "chelsea:budget=70,chunk=16,sinks=2,recent=10,slack=8"};
constexpr const char* kArchs[] = {"llama", "qwen2", "gemma3"};

TEST(EngineKeep, WhereEveryRowStaysNotABitChanges) {
  for (const char* arch : kArchs) {
    SNUG_NEED(KeepOptions(arch, "").model_path);
    auto dense = OpenOrFail(KeepOptions(arch, ""));
    const auto tokens = SomeTokens(200, dense->config().vocab);
    const auto reference = testing::PromptAndTokens(*dense, 0, tokens, 150);
    for (const char* spec : {"h2o:budget=256", "tova:budget=256", "snapkv:budget=256",
                             "windowkv:budget=288,group=2,beta=2", "chelsea:budget=256"}) {
      auto engine = OpenOrFail(KeepOptions(arch, spec));
      EXPECT_EQ(testing::PromptAndTokens(*engine, 0, tokens, 150), reference)
          << arch << " " << spec;
    }
  }
}

TEST(EngineKeep, PromptsAreExactAndWhatFollowsIsNot) {
  for (const char* arch : kArchs) {
    SNUG_NEED(KeepOptions(arch, "").model_path);
    auto dense = OpenOrFail(KeepOptions(arch, ""));
    const auto tokens = SomeTokens(200, dense->config().vocab);
    const auto reference = testing::PromptAndTokens(*dense, 0, tokens, 190);
    for (const char* spec : kSpecs) {
      auto engine = OpenOrFail(KeepOptions(arch, spec));
      const auto rows = testing::PromptAndTokens(*engine, 0, tokens, 190);
      EXPECT_EQ(rows.front(), reference.front()) << arch << " " << spec;
      EXPECT_NE(rows.back(), reference.back()) << arch << " " << spec;
    }
  }
}

TEST(EngineKeep, ChunksThreadsBatchesAndPlaceDoNotChangeWhatStays) {
  for (const char* arch : kArchs) {
    SNUG_NEED(KeepOptions(arch, "").model_path);
    for (const char* spec : kSpecs) {
      std::vector<std::vector<float>> reference;
      std::vector<std::vector<uint32_t>> kept;
      std::vector<Token> tokens;
      uint64_t held = 0;
      for (const uint32_t chunk : {64u, 1u, 7u, 200u}) {
        EngineOptions o = KeepOptions(arch, spec);
        o.chunk = chunk;
        o.threads = chunk == 7 ? 3 : 1;
        if (chunk == 200) o.place = PlaceChoice::kStream;
        auto engine = OpenOrFail(o);
        if (tokens.empty()) tokens = SomeTokens(200, engine->config().vocab);
        const auto rows = testing::PromptAndTokens(*engine, 0, tokens, 170);
        if (reference.empty()) {
          reference = rows;
          kept = AllKept(*engine, 0);
          held = engine->kv_bytes_held();
        }
        EXPECT_EQ(AllKept(*engine, 0), kept) << arch << " " << spec << " " << chunk;
        // Layers with a window hold more with longer chunks.
        if (arch != std::string("gemma3")) {
          EXPECT_EQ(engine->kv_bytes_held(), held) << spec;
        }
        EXPECT_EQ(rows, reference) << arch << " " << spec << " " << chunk;
      }
      // Two sequences, one of which has other rows, take steps together.
      EngineOptions o = KeepOptions(arch, spec);
      o.sequences = o.logit_rows = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectSameInABatch(
          *engine, std::span(tokens).first(200), [&](size_t i) { return reference[i - 169]; },
          std::string(arch) + " " + spec);
      EXPECT_EQ(AllKept(*engine, 0), kept) << arch << " " << spec;
    }
  }
}

// Two groups of two layers, the second with a third of the first one's budget.
TEST(EngineKeep, GroupsOfLayersKeepTheSameTokens) {
  constexpr uint32_t kWindow = 4, kSuffix = 8, kPrompt = 180;
  const EngineOptions o = KeepOptions(
      "llama", "windowkv:budget=64,window=4,group=2,beta=4,suffix=8,strategy=average,answer=10");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  const auto tokens = SomeTokens(200, engine->config().vocab);
  ASSERT_EQ(engine->config().layers, 4u);
  const auto kept = [&](uint32_t layer, uint32_t head) {
    const auto rows = engine->cache().positions(0, layer, head);
    return std::vector<uint32_t>(rows.begin(), rows.end());
  };
  ASSERT_TRUE(engine->Prefill(0, std::span(tokens).first(kPrompt), nullptr).ok());
  const uint32_t heads = engine->cache().layout().kv_heads;
  for (const auto& [layer, budget] : {std::pair(0u, 84u), std::pair(2u, 28u)}) {
    std::vector<uint32_t> rows = kept(layer, 0);
    std::sort(rows.begin(), rows.end());
    const auto judged = static_cast<uint32_t>(rows.size()) - kSuffix;
    EXPECT_GT(judged + kWindow, budget);
    EXPECT_LT(judged, budget + kWindow);
    for (uint32_t i = 0; i < kSuffix; ++i) EXPECT_EQ(rows[judged + i], kPrompt - kSuffix + i);
    for (uint32_t i = 0; i < judged; i += kWindow) {
      EXPECT_EQ(rows[i] % kWindow, 0u);
      for (uint32_t n = 1; n < kWindow; ++n) EXPECT_EQ(rows[i + n], rows[i] + n);
    }
  }
  for (size_t i = kPrompt;; ++i) {
    for (const uint32_t layer : {0u, 2u}) {
      for (uint32_t h = 0; h < heads; ++h) {
        EXPECT_EQ(kept(layer, h), kept(layer, 0));
        EXPECT_EQ(kept(layer + 1, h), kept(layer, 0));
      }
    }
    EXPECT_NE(kept(2, 0), kept(0, 0));
    if (i == tokens.size()) break;
    const StepItem item{0, std::span(tokens).subspan(i, 1), StepItem::Logits::kLast};
    ASSERT_TRUE(engine->Step({&item, 1}).ok());
  }
}

TEST(EngineKeep, ThePromptsTextDecidesHowItIsKept) {
  EngineOptions o;
  o.model_path = testing::TinyModel().Write();
  o.budget.bytes = 256 * kMiB;
  o.keep = *ParseKeep("windowkv:group=1,beta=1");
  auto engine = OpenOrFail(o);
  for (const auto& [text, spec] : {std::pair("what is it? tell me", "windowkv:strategy=max"),
                                   std::pair("it is this. tell me", "windowkv:strategy=average")}) {
    std::vector<Token> prompt;
    engine->tokenizer().Encode(text, {}, &prompt);
    engine->Clear(0);
    ASSERT_TRUE(engine->Prefill(0, prompt, nullptr).ok());
    EXPECT_EQ(engine->cache().keeper(0).spec(), spec);
  }
}

// A cluster's tokens are counted once, whatever the rounds, and the newest are nobody's.
TEST(EngineKeep, MergedRowsStandForAllTokens) {
  EngineOptions o = KeepOptions("qwen2", "chelsea:budget=60,chunk=16,sinks=2,recent=10,slack=8");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  const auto tokens = SomeTokens(250, engine->config().vocab);
  const KvCache& cache = engine->cache();
  const auto expect_all = [&] {
    for (uint32_t l = 0; l < cache.layout().layers; ++l) {
      for (uint32_t h = 0; h < cache.layout().kv_heads; ++h) {
        uint32_t all = 0;
        for (uint32_t r = 0; r < cache.rows(0, l); ++r) all += cache.members(0, l, h, r);
        ASSERT_EQ(all, engine->length(0));
      }
    }
  };
  testing::PromptAndTokens(*engine, 0, std::span(tokens).first(150), 100, expect_all);
  ASSERT_TRUE(engine->Prefill(0, std::span(tokens).subspan(150), nullptr).ok());
  expect_all();
  EXPECT_EQ(cache.rows(0, 0), 60u);
  const Status back = engine->Rollback(0, 249);
  ASSERT_FALSE(back.ok());
  EXPECT_NE(back.error().message.find("merged"), std::string::npos);
}

TEST(EngineKeep, LedgerHoldsWhatThePlanSays) {
  for (const char* arch : kArchs) {
    for (const char* spec : kSpecs) {
      for (const PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
        EngineOptions o = KeepOptions(arch, spec);
        SNUG_NEED(o.model_path);
        o.place = place;
        o.sequences = 2;
        auto engine = OpenOrFail(o);
        testing::ExpectLedgerHoldsThePlan(*engine, std::string(arch) + " " + spec);
      }
    }
  }
}

// The pool has room for what stays of all sequences and one layer's prompt: full contexts fit, one
// sequence after the other, and a sequence's pages serve again once it is cleared.
TEST(EngineKeep, FullContextsFitThePool) {
  for (const char* arch : kArchs) {
    for (const char* spec : kSpecs) {
      EngineOptions o = KeepOptions(arch, spec);
      SNUG_NEED(o.model_path);
      o.sequences = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectFullContextsFit(*engine, std::string(arch) + " " + spec);
      engine->Clear(0);
      engine->Clear(1);
      EXPECT_EQ(engine->kv_bytes_held(), 0u);
    }
  }
}

TEST(EngineKeep, ACancelledPromptEmptiesTheSequence) {
  for (const PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
    EngineOptions o = KeepOptions("qwen2", "h2o:budget=70");
    SNUG_NEED(o.model_path);
    o.place = place;
    auto engine = OpenOrFail(o);
    testing::ExpectCancelledPromptsLeaveNothing(*engine);
  }
}

TEST(EngineKeep, PrefixesAreReadAgain) {
  EngineOptions o = KeepOptions("qwen2", "h2o:budget=70");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  testing::ExpectPrefixesAreReadAgain(*engine);
}

TEST(EngineKeep, GenerationStaysWithinTheRows) {
  EngineOptions o;
  o.model_path = testing::TinyModel().Write();
  o.budget.bytes = 256 * kMiB;
  o.keep = *ParseKeep("h2o:budget=0.25,least=16");
  auto engine = OpenOrFail(o);
  GenerateOptions g;
  g.max_tokens = 100;
  g.ignore_eos = true;
  g.sampling.temperature = 0;
  std::vector<Token> prompt = SomeTokens(120, 256);
  const auto text = Generate(*engine, 0, prompt, g);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->tokens.size(), 100u);
  EXPECT_EQ(engine->cache().rows(0, 0), 30u);
  EXPECT_EQ(engine->length(0), 219u);
}

TEST(EngineKeep, RefusedByName) {
  for (const char* arch : {"mamba", "qwen3next"}) {
    const EngineOptions o = KeepOptions(arch, "h2o");
    SNUG_NEED(o.model_path);
    testing::ExpectRefused(o, {"--kv-keep h2o", "keep a state instead of rows"});
  }
  EngineOptions o = KeepOptions("llama", "h2o");
  SNUG_NEED(o.model_path);
  o.lookup = true;
  testing::ExpectRefused(o, {"--kv-keep h2o", "rolled back"});
  testing::ExpectRefusedWithoutRows(KeepOptions("llama", "h2o"), "--kv-keep h2o");
  o = KeepOptions("llama", "chelsea");
  o.lookup = true;
  testing::ExpectRefused(o, {"--kv-keep chelsea", "rolled back"});
  for (const char* read : {"quest", "double-sparsity"}) {
    o = KeepOptions("llama", "chelsea");
    o.read = *ParseRead(read);
    o.channels = "unread";
    testing::ExpectRefused(o, {"--kv-read", read, "--kv-keep chelsea", "how many tokens a row"});
  }
  testing::ExpectRefused(KeepOptions("llama", "windowkv"), {"--kv-keep windowkv", "4 layers"});
}

}  // namespace
}  // namespace snug
