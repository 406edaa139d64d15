// Codecs of old rows, in whole models: exact prompts, what is coded after any number of tokens, the
// same bytes whatever the chunks and threads, plan and ledger equal, and refusals by name.
#include "kv/codec/codec.h"

#include <cmath>

#include "engine_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

using Rows = std::vector<std::vector<float>>;

EngineOptions CodecOptions(const std::string& arch, const std::string& spec) {
  EngineOptions o = TinyOptions(arch);
  o.logit_rows = 1;
  if (spec.empty()) return o;
  auto codec = ParseCodec(spec);
  EXPECT_TRUE(codec.ok()) << spec;
  if (codec.ok()) o.codec = *codec;
  return o;
}

constexpr const char* kCodecSpecs[] = {"kivi:group=16,residual=32",
                                       "kivi:bits=4,group=16,residual=48",
                                       "kivi:key-bits=4,value-bits=2,group=16,residual=128"};
constexpr const char* kCodecArchs[] = {"llama", "qwen2", "gemma3"};

TEST(EngineCodec, WhereNothingIsCodedNotABitChanges) {
  for (const char* arch : kCodecArchs) {
    SNUG_NEED(CodecOptions(arch, "").model_path);
    auto dense = OpenOrFail(CodecOptions(arch, ""));
    const auto tokens = SomeTokens(127, dense->config().vocab);
    auto engine = OpenOrFail(CodecOptions(arch, "kivi:group=16,residual=128"));
    EXPECT_EQ(testing::PromptAndTokens(*engine, 0, tokens, 100),
              testing::PromptAndTokens(*dense, 0, tokens, 100));
    EXPECT_EQ(engine->cache().coded(0, engine->config().layers - 1).codec, nullptr);
  }
}

TEST(EngineCodec, PromptsAreExactAndWhatFollowsIsNot) {
  for (const char* arch : kCodecArchs) {
    SNUG_NEED(CodecOptions(arch, "").model_path);
    auto dense = OpenOrFail(CodecOptions(arch, ""));
    const auto tokens = SomeTokens(200, dense->config().vocab);
    const auto reference = testing::PromptAndTokens(*dense, 0, tokens, 190);
    for (const char* spec : kCodecSpecs) {
      auto engine = OpenOrFail(CodecOptions(arch, spec));
      const auto rows = testing::PromptAndTokens(*engine, 0, tokens, 190);
      EXPECT_EQ(rows.front(), reference.front()) << arch << " " << spec;
      EXPECT_NE(rows.back(), reference.back()) << arch << " " << spec;
    }
  }
}

TEST(EngineCodec, CountsAreThoseOfTheRule) {
  const EngineOptions o = CodecOptions("qwen2", "kivi:group=16,residual=32");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  const auto tokens = SomeTokens(140, engine->config().vocab);
  for (const size_t prompt : {1u, 31u, 32u, 33u, 64u, 100u}) {
    engine->Clear(0);
    testing::PromptAndTokens(*engine, 0, std::span(tokens).first(prompt + 40), prompt, [&] {
      const uint32_t n = engine->length(0);
      for (uint32_t l = 0; l < engine->config().layers; ++l) {
        const CodedRows rows = engine->cache().coded(0, l);
        ASSERT_EQ(rows.keys, n / 32 * 32) << n;
        ASSERT_EQ(rows.values, n > 32 ? n - 32 : 0) << n;
      }
    });
  }
}

// The kernel over the cache of a real run against double precision over decoded rows, after every
// step.
TEST(EngineCodec, AttentionEqualsTheReferenceAfterEveryStep) {
  for (const char* arch : kCodecArchs) {
    const EngineOptions o = CodecOptions(arch, "kivi:group=16,residual=32");
    SNUG_NEED(o.model_path);
    auto engine = OpenOrFail(o);
    const ModelConfig& c = engine->config();
    const auto tokens = SomeTokens(180, c.vocab);
    std::vector<float> q(size_t{c.heads} * c.head_dim), out(q.size()), expected(q.size());
    for (size_t i = 0; i < q.size(); ++i) q[i] = std::sin(static_cast<float>(7 * i + 1));
    std::vector<uint8_t> scratch(AttentionScratchBytes(c.head_dim, c.heads / c.kv_heads) + 64);
    uint8_t* room = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    std::vector<float> partial(PartialFloats(1, c.heads, c.head_dim, 256));
    uint64_t coded = 0, seen = 0;
    testing::PromptAndTokens(*engine, 0, tokens, 120, [&] {
      for (uint32_t l = 0; l < c.layers; ++l) {
        if (!engine->cache().layout().Codes(l)) continue;
        AttentionArgs a;
        a.heads = c.heads;
        a.kv_heads = c.kv_heads;
        a.head_dim = c.head_dim;
        a.scale = c.attention_scale;
        a.softcap = c.attention_softcap;
        a.q = q.data();
        a.q_stride = a.out_stride = q.size();
        a.tokens = 1;
        a.first_pos = engine->length(0) - 1;
        a.tiles = engine->cache().tiles(0, l);
        a.coded = engine->cache().coded(0, l);
        coded += a.coded.values;
        seen += a.first_pos + 1;
        a.out = expected.data();
        AttentionReference(a);
        a.out = out.data();
        const AttentionPlan plan = PlanAttention(a, 1);
        for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, room, partial.data());
        for (uint32_t h = 0; h < c.heads; ++h) CombinePartials(a, plan, partial.data(), 0, h);
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], expected[i], 1e-5 + 1e-4 * std::abs(expected[i])) << arch << " " << l;
        }
      }
    });
    EXPECT_GT(2 * coded, seen) << arch;
  }
}

TEST(EngineCodec, ChunksThreadsBatchesAndPlaceDoNotChangeABit) {
  for (const char* arch : kCodecArchs) {
    SNUG_NEED(CodecOptions(arch, "").model_path);
    for (const char* spec : kCodecSpecs) {
      Rows reference, second;
      std::vector<Token> tokens;
      uint64_t held = 0;
      for (const uint32_t chunk : {64u, 1u, 7u, 200u}) {
        EngineOptions o = CodecOptions(arch, spec);
        o.chunk = chunk;
        o.threads = chunk == 7 ? 3 : 1;
        if (chunk == 200) o.place = PlaceChoice::kStream;
        auto engine = OpenOrFail(o);
        if (tokens.empty()) tokens = SomeTokens(250, engine->config().vocab);
        const auto rows = testing::PromptAndTokens(*engine, 0, std::span(tokens).first(200), 170);
        // A second prompt after what is coded.
        const auto more = testing::PromptAndTokens(*engine, 0, std::span(tokens).subspan(200), 40);
        if (reference.empty()) {
          reference = rows;
          second = more;
          held = engine->kv_bytes_held();
        }
        EXPECT_EQ(rows, reference) << arch << " " << spec << " " << chunk;
        EXPECT_EQ(more, second) << arch << " " << spec << " " << chunk;
        // Layers with a window hold more with longer chunks.
        if (arch != std::string("gemma3")) {
          EXPECT_EQ(engine->kv_bytes_held(), held) << spec;
        }
      }
      EngineOptions o = CodecOptions(arch, spec);
      o.sequences = o.logit_rows = 2;
      auto engine = OpenOrFail(o);
      testing::ExpectSameInABatch(
          *engine, std::span(tokens).first(200), [&](size_t i) { return reference[i - 169]; },
          std::string(arch) + " " + spec);
    }
  }
}

TEST(EngineCodec, LedgerHoldsWhatThePlanSays) {
  for (const char* arch : kCodecArchs) {
    for (const char* spec : kCodecSpecs) {
      for (const PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
        EngineOptions o = CodecOptions(arch, spec);
        SNUG_NEED(o.model_path);
        o.place = place;
        o.sequences = 2;
        auto engine = OpenOrFail(o);
        testing::ExpectLedgerHoldsThePlan(*engine, std::string(arch) + " " + spec);
      }
    }
  }
}

// The pools have room for what is coded, the exact rows of all sequences and one layer's prompt:
// full contexts fit, one sequence after the other, and a sequence's pages serve again once it is
// cleared.
TEST(EngineCodec, FullContextsFitThePoolsExactly) {
  for (const char* spec : kCodecSpecs) {
    EngineOptions o = CodecOptions("qwen2", spec);
    SNUG_NEED(o.model_path);
    o.sequences = 2;
    auto engine = OpenOrFail(o);
    testing::ExpectFullContextsFit(*engine, spec);
    // What is held: the coded tiles, and those that have an exact row.
    const KvLayout& l = engine->cache().layout();
    const uint32_t exact = l.codec->MostExact() - 1;
    const uint64_t tiles = (256 - std::min(l.codec->CodedKeys(256), 256 - exact) + 63) / 64;
    EXPECT_EQ(
        engine->kv_bytes_held(),
        2 * l.layers * (tiles * l.page_bytes() + l.coded().PagesOf(256) * l.coded().page_bytes()));
    engine->Clear(0);
    engine->Clear(1);
    EXPECT_EQ(engine->kv_bytes_held(), 0u);
  }
}

TEST(EngineCodec, CancelledPromptsAndPrefixesLeaveNothing) {
  const auto o = CodecOptions("qwen2", kCodecSpecs[0]);
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  testing::ExpectCancelledPromptsLeaveNothing(*engine);
  testing::ExpectPrefixesAreReadAgain(*engine);
  // What the cache cannot do is an error, and changes nothing.
  const auto tokens = SomeTokens(3, engine->config().vocab);
  const StepItem several{0, tokens, StepItem::Logits::kLast};
  const uint32_t length = engine->length(0);
  for (const Status& s : {engine->Step({&several, 1}), engine->Rollback(0, length - 1)}) {
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.error().code, Code::kUsage);
  }
  EXPECT_EQ(engine->length(0), length);
}

TEST(EngineCodec, RefusedByName) {
  for (const char* arch : {"mamba", "qwen3next"}) {
    const EngineOptions o = CodecOptions(arch, "kivi:group=16");
    SNUG_NEED(o.model_path);
    testing::ExpectRefused(o, {"keep a state instead of rows"});
  }
  EngineOptions o = CodecOptions("llama", "kivi:group=16");
  SNUG_NEED(o.model_path);
  o.lookup = true;
  testing::ExpectRefused(o, {"rolled back"});
  o.lookup = false;
  o.keep = *ParseKeep("h2o");
  testing::ExpectRefused(o, {"leave holes in the groups of --kv kivi:group=16"});
  testing::ExpectRefused(CodecOptions("llama", "kivi:group=64,residual=64"),
                         {"do not divide heads of"});
  testing::ExpectRefusedWithoutRows(CodecOptions("llama", "kivi:group=16"), "--kv kivi");
}

TEST(EngineCodec, WrongParametersAreNamed) {
  const auto error = [](const std::string& spec, const std::string& why) {
    auto codec = ParseCodec(spec);
    ASSERT_FALSE(codec.ok()) << spec;
    EXPECT_EQ(codec.error().code, Code::kUsage);
    EXPECT_NE(codec.error().message.find(why), std::string::npos) << codec.error().message;
  };
  error("kivi:bits=3", "bits=3 is neither 2 nor 4");
  error("kivi:bits=8", "bits=8 is outside 2 .. 4");
  error("kivi:key-bits=1", "key-bits=1 is neither");
  error("kivi:group=48", "group=48 does not divide the 64");
  error("kivi:residual=100", "residual=100 is no multiple of group=32");
  error("kivi:window=4", "no parameter 'window'");
  EXPECT_TRUE(ParseCodec("kivi").ok());
  EXPECT_TRUE(NamesCodec("kivi:bits=9"));
  EXPECT_FALSE(NamesCodec("q8_0"));
}

}  // namespace
}  // namespace snug
