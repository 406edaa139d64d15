// Layers that share rows, in whole models: exact prompts, the same bits whatever the chunks and
// threads, plan and ledger equal, and refusals by name.
#include "kv/share/share.h"

#include <cmath>

#include "engine_testing.h"
#include "kv/tiles.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

using Rows = std::vector<std::vector<float>>;

EngineOptions ShareOptions(const std::string& arch, const std::string& spec) {
  EngineOptions o = TinyOptions(arch);
  o.logit_rows = 1;
  if (spec.empty()) return o;
  auto share = ParseShare(spec);
  EXPECT_TRUE(share.ok()) << spec;
  if (share.ok()) o.share = *share;
  return o;
}

constexpr const char* kShareSpecs[] = {"minicache:start=0", "minicache:start=0,unit=head,gamma=0.2",
                                       "minicache:start=0,retain=range,values=keys,residual=32"};
constexpr const char* kShareArchs[] = {"llama", "qwen2"};

TEST(EngineShare, WithoutPairsNotABitChanges) {
  for (const char* arch : kShareArchs) {
    SNUG_NEED(ShareOptions(arch, "").model_path);
    auto dense = OpenOrFail(ShareOptions(arch, ""));
    const auto tokens = SomeTokens(200, dense->config().vocab);
    const auto reference = testing::PromptAndTokens(*dense, 0, tokens, 150);
    auto none = OpenOrFail(ShareOptions(arch, "minicache:start=1"));
    EXPECT_EQ(testing::PromptAndTokens(*none, 0, tokens, 150), reference) << arch;
    // Nor where all tokens are newest.
    auto newest = OpenOrFail(ShareOptions(arch, "minicache:start=0,residual=200"));
    EXPECT_EQ(testing::PromptAndTokens(*newest, 0, tokens, 150), reference) << arch;
    // All rows apart: only the order of sums is another. Exactly, as rounded activations would
    // make more of it.
    Rows exact[2];
    for (const char* spec : {"", "minicache:start=0,gamma=1"}) {
      EngineOptions o = ShareOptions(arch, spec);
      o.exact = true;
      auto engine = OpenOrFail(o);
      exact[*spec == 0 ? 0 : 1] = testing::PromptAndTokens(*engine, 0, tokens, 150);
    }
    for (size_t i = 0; i < exact[0].size(); ++i) {
      for (size_t v = 0; v < exact[0][i].size(); ++v) {
        ASSERT_NEAR(exact[1][i][v], exact[0][i][v], 1e-4) << arch << " " << i;
      }
    }
  }
}

TEST(EngineShare, PromptsAreExactAndWhatFollowsIsNot) {
  for (const char* arch : kShareArchs) {
    SNUG_NEED(ShareOptions(arch, "").model_path);
    auto dense = OpenOrFail(ShareOptions(arch, ""));
    const auto tokens = SomeTokens(200, dense->config().vocab);
    const auto reference = testing::PromptAndTokens(*dense, 0, tokens, 190);
    for (const char* spec : kShareSpecs) {
      auto engine = OpenOrFail(ShareOptions(arch, spec));
      const auto rows = testing::PromptAndTokens(*engine, 0, tokens, 190);
      EXPECT_EQ(rows.front(), reference.front()) << arch << " " << spec;
      EXPECT_NE(rows.back(), reference.back()) << arch << " " << spec;
    }
  }
}

// The kernel over the cache of a real run against double precision over restored rows, after every
// step; at least half of what is read is merged.
TEST(EngineShare, AttentionEqualsTheReferenceAfterEveryStep) {
  for (const char* spec : kShareSpecs) {
    const EngineOptions o = ShareOptions("qwen2", spec);
    SNUG_NEED(o.model_path);
    auto engine = OpenOrFail(o);
    const ModelConfig& c = engine->config();
    const KvCache& cache = engine->cache();
    ASSERT_FALSE(cache.layout().pairs.empty());
    const auto tokens = SomeTokens(220, c.vocab);
    std::vector<float> q(size_t{c.heads} * c.head_dim), out(q.size()), expected(q.size());
    for (size_t i = 0; i < q.size(); ++i) q[i] = std::sin(static_cast<float>(7 * i + 1));
    std::vector<uint8_t> scratch(AttentionScratchBytes(c.head_dim, c.heads / c.kv_heads) + 64);
    uint8_t* room = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    std::vector<float> partial(PartialFloats(1, c.heads, c.head_dim, 256));
    uint64_t merged = 0, seen = 0;
    testing::PromptAndTokens(*engine, 0, tokens, 170, [&] {
      for (uint32_t l = 0; l < c.layers; ++l) {
        if (cache.layout().PairOf(l) < 0) continue;
        AttentionArgs a;
        a.heads = c.heads;
        a.kv_heads = c.kv_heads;
        a.head_dim = c.head_dim;
        a.scale = c.attention_scale;
        a.q = q.data();
        a.q_stride = a.out_stride = q.size();
        a.tokens = 1;
        a.first_pos = engine->length(0) - 1;
        a.tiles = cache.tiles(0, l);
        a.shared = cache.shared(0, l);
        merged += a.shared.rows;
        seen += a.first_pos + 1;
        a.out = expected.data();
        AttentionReference(a);
        a.out = out.data();
        const AttentionPlan plan = PlanAttention(a, 1);
        for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, room, partial.data());
        for (uint32_t h = 0; h < c.heads; ++h) CombinePartials(a, plan, partial.data(), 0, h);
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], expected[i], 1e-5 + 1e-4 * std::abs(expected[i])) << spec << " " << l;
        }
      }
    });
    EXPECT_GT(2 * merged, seen) << spec;
  }
}

TEST(EngineShare, ChunksThreadsBatchesAndPlaceDoNotChangeABit) {
  for (const char* arch : kShareArchs) {
    SNUG_NEED(ShareOptions(arch, "").model_path);
    for (const char* spec : kShareSpecs) {
      Rows reference, second;
      std::vector<Token> tokens;
      uint64_t held = 0;
      for (const uint32_t chunk : {64u, 1u, 7u, 200u}) {
        EngineOptions o = ShareOptions(arch, spec);
        o.chunk = chunk;
        o.threads = chunk == 7 ? 3 : 1;
        if (chunk == 200) o.place = PlaceChoice::kStream;
        auto engine = OpenOrFail(o);
        if (tokens.empty()) tokens = SomeTokens(250, engine->config().vocab);
        const auto rows = testing::PromptAndTokens(*engine, 0, std::span(tokens).first(200), 170);
        // A second prompt after what is merged.
        const auto more = testing::PromptAndTokens(*engine, 0, std::span(tokens).subspan(200), 40);
        if (reference.empty()) {
          reference = rows;
          second = more;
          held = engine->kv_bytes_held();
        }
        EXPECT_EQ(rows, reference) << arch << " " << spec << " " << chunk;
        EXPECT_EQ(more, second) << arch << " " << spec << " " << chunk;
        EXPECT_EQ(engine->kv_bytes_held(), held) << spec;
      }
      EngineOptions o = ShareOptions(arch, spec);
      o.sequences = o.logit_rows = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectSameInABatch(
          *engine, std::span(tokens).first(200), [&](size_t i) { return reference[i - 169]; },
          std::string(arch) + " " + spec);
    }
  }
}

TEST(EngineShare, LedgerHoldsWhatThePlanSaysAndFullContextsFit) {
  for (const char* spec : kShareSpecs) {
    for (const PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
      EngineOptions o = ShareOptions("qwen2", spec);
      SNUG_NEED(o.model_path);
      o.place = place;
      o.sequences = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectLedgerHoldsThePlan(*engine, spec);
      testing::ExpectFullContextsFit(*engine, spec);
      engine->Clear(0);
      engine->Clear(1);
      EXPECT_EQ(engine->kv_bytes_held(), 0u);
    }
  }
}

// Pages at most: of what stays, and of two layers' rows as they were stored.
TEST(EngineShare, PromptsTakeTwoLayersMoreAtMost) {
  const EngineOptions o = ShareOptions("qwen2", "minicache:start=0");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  const KvLayout& l = engine->cache().layout();
  uint64_t held = 0;
  for (uint32_t layer = 0; layer < l.layers; ++layer) held += l.PagesOf(layer, l.context);
  EXPECT_LE(l.total_pages(), held + 2 * Tiles(l.context));
  EXPECT_LT(held, l.layers * Tiles(l.context));
}

TEST(EngineShare, CancelledPromptsAndPrefixesLeaveNothing) {
  const auto o = ShareOptions("qwen2", kShareSpecs[0]);
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  testing::ExpectCancelledPromptsLeaveNothing(*engine);
  testing::ExpectPrefixesAreReadAgain(*engine);
  const uint32_t length = engine->length(0);
  const Status back = engine->Rollback(0, length - 1);
  ASSERT_FALSE(back.ok());
  EXPECT_EQ(back.error().code, Code::kUsage);
  EXPECT_EQ(engine->length(0), length);
}

TEST(EngineShare, WhatCannotBeIsRefusedByName) {
  EngineOptions o = ShareOptions("qwen2", "minicache:start=0");
  SNUG_NEED(o.model_path);
  const auto with = [&](auto set) {
    EngineOptions other = o;
    set(other);
    return other;
  };
  const auto keep = [](const char* spec) {
    return [spec](EngineOptions& e) { e.keep = *ParseKeep(spec); };
  };
  for (const char* spec : {"h2o", "snapkv", "tova", "sink-window"}) {
    testing::ExpectRefused(with(keep(spec)), {"minicache", spec, "by layer and head"});
  }
  testing::ExpectRefused(with(keep("chelsea")), {"minicache", "chelsea", "merges the tokens"});
  testing::ExpectRefused(with([](EngineOptions& e) { e.read = *ParseRead("quest"); }),
                         {"minicache", "quest", "index"});
  testing::ExpectRefused(with([](EngineOptions& e) { e.codec = *ParseCodec("kivi:group=16"); }),
                         {"minicache", "kivi"});
  testing::ExpectRefused(with([](EngineOptions& e) { e.lookup = true; }),
                         {"minicache", "rolled back"});
  testing::ExpectRefused(
      with([](EngineOptions& e) { e.share = *ParseShare("minicache:start=99"); }),
      {"start=99", "layer 99"});
  testing::TinyModel wide;
  wide.dim = 64;
  testing::ExpectRefused(with([&](EngineOptions& e) {
                           e.model_path = wide.Write();
                           e.key_type = KvType::kQ8_0;
                         }),
                         {"minicache", "q8_0"});
  testing::ExpectRefusedWithoutRows(o, "minicache");
  // Layers with and without windows, or rotation: both are named.
  for (const char* arch : {"gemma3", "smollm3"}) {
    const EngineOptions unlike = ShareOptions(arch, "minicache:start=0");
    SNUG_NEED(unlike.model_path);
    testing::ExpectRefused(unlike, {"minicache", "layers ", " and ", "are unlike"});
  }
  const EngineOptions recurrent = ShareOptions("mamba", "minicache:start=0");
  SNUG_NEED(recurrent.model_path);
  testing::ExpectRefused(recurrent, {"minicache", "keep a state"});
}

// A budget chooses types beside it, and never it.
TEST(EngineShare, ABudgetDoesNotProposeIt) {
  EngineOptions o = ShareOptions("qwen2", "");
  SNUG_NEED(o.model_path);
  o.kv_choice = KvChoice::kEncoding;
  for (const uint64_t bytes : {uint64_t{1} << 30, uint64_t{100} << 10, uint64_t{40} << 10}) {
    o.kv_bytes = bytes;
    const auto plan = PlanFile(o);
    if (plan.ok()) {
      EXPECT_EQ(plan->cache.find("minicache"), std::string::npos) << plan->cache;
    }
  }
  // Where it is asked for it counts.
  o.share = *ParseShare("minicache:start=0");
  o.kv_bytes = uint64_t{1} << 30;
  const auto plan = PlanFile(o);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->cache, "--kv f16 --kv-share minicache:start=0");
}

}  // namespace
}  // namespace snug
