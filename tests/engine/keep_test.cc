// Caches that drop rows, in whole models: exact prompts, the same rows whatever the chunks, threads
// and place, plan and ledger equal, and what cannot be refused by name.
#include "kv/keep/keep.h"

#include "engine/generate.h"
#include "engine_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SameBits;
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

constexpr const char* kSpecs[] = {
    "h2o:budget=70",         "keyformer:budget=70",        "random:budget=70",
    "sink-window:budget=70", "snapkv:budget=70,answer=10", "tova:budget=70"};
constexpr const char* kArchs[] = {"llama", "qwen2", "gemma3"};

TEST(EngineKeep, WhereEveryRowStaysNotABitChanges) {
  for (const char* arch : kArchs) {
    SNUG_NEED(KeepOptions(arch, "").model_path);
    auto dense = OpenOrFail(KeepOptions(arch, ""));
    const auto tokens = SomeTokens(200, dense->config().vocab);
    const auto reference = testing::PromptAndTokens(*dense, 0, tokens, 150);
    for (const char* spec : {"h2o:budget=256", "tova:budget=256", "snapkv:budget=256"}) {
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
      const std::span<const Token> all(tokens);
      ASSERT_TRUE(engine->Prefill(1, all.first(90), nullptr).ok());
      ASSERT_TRUE(engine->Prefill(0, all.first(170), nullptr).ok());
      for (size_t i = 170; i < 200; ++i) {
        const StepItem items[] = {{1, all.subspan(i - 80, 1), StepItem::Logits::kLast},
                                  {0, all.subspan(i, 1), StepItem::Logits::kLast}};
        ASSERT_TRUE(engine->Step(items).ok());
        ASSERT_TRUE(SameBits(engine->logits(1), reference[i - 169])) << arch << " " << spec;
      }
      EXPECT_EQ(AllKept(*engine, 0), kept) << arch << " " << spec;
    }
  }
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
        const LedgerSnapshot held = engine->ledger().snapshot();
        for (size_t i = 0; i < kOwners; ++i) {
          EXPECT_EQ(held.now[i], engine->plan().at_context[i])
              << arch << " " << spec << " " << OwnerName(static_cast<Owner>(i));
        }
        EXPECT_EQ(held.total_peak, engine->plan().peak_total);
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
      const auto tokens = SomeTokens(256, engine->config().vocab);
      std::vector<std::vector<float>> first;
      for (const uint32_t sequence : {0u, 1u, 0u}) {
        engine->Clear(sequence);
        const auto rows = testing::PromptAndTokens(*engine, sequence, tokens, 240);
        if (first.empty()) first = rows;
        EXPECT_EQ(rows, first) << arch << " " << spec;
      }
      EXPECT_LE(engine->kv_bytes_held(), engine->plan().kv_bytes);
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
    const auto tokens = SomeTokens(200, engine->config().vocab);
    const auto reference = testing::PromptAndTokens(*engine, 0, tokens, 180);
    for (const uint32_t at : {1u, 90u, 179u}) {
      engine->Clear(0);
      uint32_t shown = 0;
      const Status s =
          engine->Prefill(0, std::span(tokens).first(180), [&](uint32_t done, uint32_t) {
            EXPECT_GE(done, shown);
            shown = done;
            return done < at;
          });
      ASSERT_FALSE(s.ok());
      EXPECT_EQ(s.error().code, Code::kCancelled);
      EXPECT_EQ(engine->length(0), 0u);
      EXPECT_EQ(engine->kv_bytes_held(), 0u);
      EXPECT_EQ(testing::PromptAndTokens(*engine, 0, tokens, 180), reference) << at;
    }
  }
}

TEST(EngineKeep, PrefixesAreReadAgain) {
  EngineOptions o = KeepOptions("qwen2", "h2o:budget=70");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  const auto tokens = SomeTokens(200, engine->config().vocab);
  const auto reference = testing::PromptAndTokens(*engine, 0, tokens, 180);
  EXPECT_EQ(engine->ReusePrefix(0, tokens), 0u);
  EXPECT_EQ(engine->length(0), 0u);
  EXPECT_EQ(testing::PromptAndTokens(*engine, 0, tokens, 180), reference);
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
  const auto error = [](EngineOptions o, const std::string& why) {
    auto plan = PlanFile(o);
    ASSERT_FALSE(plan.ok()) << why;
    EXPECT_EQ(plan.error().code, Code::kUsage);
    EXPECT_NE(plan.error().message.find("--kv-keep h2o"), std::string::npos);
    EXPECT_NE(plan.error().message.find(why), std::string::npos) << plan.error().message;
  };
  for (const char* arch : {"mamba", "qwen3next"}) {
    EngineOptions o = KeepOptions(arch, "h2o");
    SNUG_NEED(o.model_path);
    error(o, "keep a state instead of rows");
  }
  EngineOptions o = KeepOptions("llama", "h2o");
  SNUG_NEED(o.model_path);
  o.lookup = true;
  error(o, "rolled back");
}

}  // namespace
}  // namespace snug
