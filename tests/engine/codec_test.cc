// Codecs of old rows, in whole models: exact prompts, what is coded after any number of tokens, the
// same bytes whatever the chunks and threads, plan and ledger equal, and refusals by name.
#include "kv/codec/codec.h"

#include <cmath>
#include <filesystem>

#include "engine_testing.h"
#include "kv/codec/codebooks.h"
#include "kv/codec/key_basis.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

using Rows = std::vector<std::vector<float>>;

EngineOptions CodecOptions(const std::string& arch, const std::string& spec, bool global = false) {
  EngineOptions o = TinyOptions(arch);
  if (!spec.empty()) {
    auto codec = ParseCodec(spec);
    EXPECT_TRUE(codec.ok()) << spec;
    if (!codec.ok()) return o;
    if ((*codec)->needs_codebooks() && testing::Exists(o.model_path)) {
      const uint32_t dims = spec.find("dims=4") != std::string::npos ? 4 : 2;
      o.codebooks = testing::LearnCodebooks(o, dims, global);
    }
    if ((*codec)->needs_order() && testing::Exists(o.model_path)) {
      o.permutation = testing::OrderKeys(o);
    }
    o.codec = *codec;
  }
  o.logit_rows = 1;
  return o;
}

constexpr const char* kCodecSpecs[] = {
    "kivi:group=16,residual=32",
    "kivi:bits=4,group=16,residual=48",
    "kivi:key-bits=4,value-bits=2,group=16,residual=128",
    "million:residual=64",
    "million:dims=4",
    "rotatekv",
    "rotatekv:bits=4,clip-mode=centre,residual=20,sinks=3,sort=off",
    "zipcache:gap=32",
    "zipcache:hi=8,ratio=0.7,gap=48,selection=shared,exact=0.03"};
constexpr const char* kCodecArchs[] = {"llama", "qwen2", "gemma3"};

TEST(EngineCodec, WhereNothingIsCodedNotABitChanges) {
  for (const char* arch : kCodecArchs) {
    SNUG_NEED(CodecOptions(arch, "").model_path);
    auto dense = OpenOrFail(CodecOptions(arch, ""));
    const auto tokens = SomeTokens(127, dense->config().vocab);
    const auto reference = testing::PromptAndTokens(*dense, 0, tokens, 100);
    for (const char* spec :
         {"kivi:group=16,residual=128", "million:residual=128", "zipcache:gap=128"}) {
      auto engine = OpenOrFail(CodecOptions(arch, spec));
      EXPECT_EQ(testing::PromptAndTokens(*engine, 0, tokens, 100), reference) << arch << spec;
      EXPECT_EQ(engine->cache().coded(0, engine->config().layers - 1).codec, nullptr);
    }
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
  struct Rule {
    const char* spec;
    uint32_t (*keys)(uint32_t n);
    uint32_t (*values)(uint32_t n);
  };
  const auto residual = [](uint32_t n) { return (n - 1) / 64 * 64; };  // 1 to 64 stay exact
  const Rule kRules[] = {{"kivi:group=16,residual=32", [](uint32_t n) { return n / 32 * 32; },
                          [](uint32_t n) { return n > 32 ? n - 32 : 0; }},
                         {"million:residual=64,lag=0", residual, residual},
                         {"rotatekv", [](uint32_t n) { return n; }, [](uint32_t n) { return n; }},
                         {"zipcache:gap=32", [](uint32_t n) { return n / 32 * 32; },
                          [](uint32_t n) { return n / 32 * 32; }}};
  for (const Rule& rule : kRules) {
    const EngineOptions o = CodecOptions("qwen2", rule.spec);
    SNUG_NEED(o.model_path);
    auto engine = OpenOrFail(o);
    const auto tokens = SomeTokens(140, engine->config().vocab);
    for (const size_t prompt : {1u, 31u, 32u, 33u, 64u, 100u}) {
      engine->Clear(0);
      testing::PromptAndTokens(*engine, 0, std::span(tokens).first(prompt + 40), prompt, [&] {
        const uint32_t n = engine->length(0);
        for (uint32_t l = 0; l < engine->config().layers; ++l) {
          const CodedRows rows = engine->cache().coded(0, l);
          ASSERT_EQ(rows.keys, rule.keys(n)) << rule.spec << " " << n;
          ASSERT_EQ(rows.values, rule.values(n)) << rule.spec << " " << n;
        }
      });
    }
  }
}

// The kernel over the cache of a real run against double precision over decoded rows, after every
// step.
TEST(EngineCodec, AttentionEqualsTheReferenceAfterEveryStep) {
  const auto check = [](const char* arch, const char* spec) {
    const EngineOptions o = CodecOptions(arch, spec);
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
        for (const bool exact : {false, true}) {  // integer products may be less near
          a.exact = exact;
          const AttentionPlan plan = PlanAttention(a, 1);
          for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, room, partial.data());
          for (uint32_t h = 0; h < c.heads; ++h) CombinePartials(a, plan, partial.data(), 0, h);
          const double tolerance = exact ? 1e-5 : 3e-4;
          for (size_t i = 0; i < out.size(); ++i) {
            ASSERT_NEAR(out[i], expected[i], tolerance + 1e-4 * std::abs(expected[i]))
                << arch << " " << l;
          }
        }
      }
    });
    EXPECT_GT(2 * coded, seen) << arch;
  };
  for (const char* arch : kCodecArchs) {
    for (const char* spec :
         {"kivi:group=16,residual=32", "million:residual=64", "million:dims=4,residual=64",
          "rotatekv", "rotatekv:bits=4,group=16,heads=1,residual=20,sinks=3,sort=off",
          "zipcache:gap=20,segment=40", "zipcache:hi=4,lo=4,ratio=0,gap=50"}) {
      check(arch, spec);
    }
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
    // What is held: what is coded, a prompt's segment and those after it, and tiles that have an
    // exact row.
    const KvLayout& l = engine->cache().layout();
    const uint32_t keys = l.codec->CodedKeys(256), prompt = l.codec->CodedKeys(240);
    const uint32_t first_exact = std::min(keys, l.codec->CodedValues(256));
    const uint64_t tiles = 4 - first_exact / 64;
    uint64_t coded = l.coded().PagesOf(256) * l.coded().page_bytes(), kept = 0;
    if (l.segments().codec != nullptr) {
      coded = l.segments().SegmentBytes(prompt) + l.segments().SegmentBytes(keys - prompt) +
              (256 - keys) * l.segments().row_bytes();
    }
    for (const uint32_t s : {0u, 1u}) {
      for (uint32_t i = 0; i < l.layers; ++i) kept += engine->cache().coded(s, i).exact.count;
    }
    EXPECT_EQ(engine->kv_bytes_held(), 2 * l.layers * (tiles * l.page_bytes() + coded) +
                                           kept * 2 * l.coded().exact_row_bytes(KvType::kF16))
        << spec;
    if (l.codec->Extremes() > 0) {
      EXPECT_GT(kept, 0u);
    }
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
  o.codec = *ParseCodec("million");
  testing::ExpectRefused(o, {"leave holes in the groups of --kv million"});
  o.keep = nullptr;
  o.lookup = true;
  testing::ExpectRefused(o, {"rolled back"});
  o.lookup = false;
  o.read = *ParseRead("quest");
  o.codec = *ParseCodec("zipcache");
  testing::ExpectRefused(o, {"--kv zipcache observes", "not read are not observed"});
  o.read = *ParseRead("double-sparsity");
  o.channels = "none";
  testing::ExpectRefused(o, {"--kv zipcache observes", "not read are not observed"});
  o.read = nullptr;
  o.channels.clear();
  o.keep = *ParseKeep("h2o");
  testing::ExpectRefused(o, {"leave holes in the groups of --kv zipcache"});
  o.keep = nullptr;
  o.lookup = true;
  testing::ExpectRefused(o, {"--kv zipcache", "rolled back"});
  o.lookup = false;
  o.read = *ParseRead("quest");
  o.codec = *ParseCodec("million");
  o.codebooks = CodecOptions("llama", "million").codebooks;
  testing::ExpectRefused(o, {"rows that --kv million has taken over"});
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
  error("rotatekv:bits=3", "bits=3 is neither 2 nor 4");
  error("rotatekv:group=96", "group=96 is no power of two");
  error("rotatekv:clip=2", "clip=2 is outside 0 .. 1");
  error("rotatekv:clip-mode=zero", "clip-mode");
  error("million:dims=3", "dims=3 is neither 2 nor 4");
  error("million:dims=8", "dims=8 is outside 2 .. 4");
  error("million:residual=96", "residual=96 is no multiple of the 64");
  error("zipcache:hi=3", "hi=3 is none of 2, 4, 8 and 16");
  error("zipcache:hi=2,lo=4", "lo=4 is more than hi=2");
  error("zipcache:ratio=1.5", "ratio=1.5 is outside 0 .. 1");
  error("zipcache:gap=0", "gap=0 is outside 1 ..");
  error("zipcache:selection=all", "selection");
  EXPECT_TRUE(ParseCodec("kivi").ok());
  EXPECT_TRUE(NamesCodec("kivi:bits=9"));
  EXPECT_FALSE(NamesCodec("q8_0"));
}

// The tokens of the largest elements of a layer's input are those of a run that notes all inputs,
// and their rows are the dense cache's bit by bit.
TEST(EngineCodec, RowsOfExtremesStayAsTheyWere) {
  for (const char* arch : kCodecArchs) {
    const EngineOptions o = CodecOptions(arch, "rotatekv:sinks=6,sort=off");
    SNUG_NEED(o.model_path);
    auto engine = OpenOrFail(o);
    auto dense = OpenOrFail(CodecOptions(arch, ""));
    const ModelConfig& c = engine->config();
    const auto tokens = SomeTokens(100, c.vocab);
    testing::PromptAndTokens(*engine, 0, tokens, 90);
    ASSERT_TRUE(dense->Prefill(0, std::span(tokens).first(90), nullptr).ok());
    std::vector<float> row(c.head_dim);
    for (uint32_t l = 0; l < c.layers; ++l) {
      const CodedRows rows = engine->cache().coded(0, l);
      if (!engine->cache().layout().Codes(l)) continue;
      ASSERT_GT(rows.exact.count, 0u);
      ASSERT_LE(rows.exact.count, 6u);
      for (uint32_t i = 0; i < rows.exact.count; ++i) {
        const uint32_t t = rows.exact.tokens[i];
        ASSERT_LT(t, 90u);
        const uint8_t* page = dense->cache().tiles(0, l)[t / kTileTokens];
        for (uint32_t h = 0; h < c.kv_heads; ++h) {
          LoadKey(KvType::kF16, page + h * dense->cache().key_tile_bytes(), c.head_dim,
                  t % kTileTokens, row.data());
          for (uint32_t d = 0; d < c.head_dim; ++d) {
            ASSERT_EQ(row[d], StoredValue(KvType::kF16, rows.exact.keys,
                                          (size_t{i} * c.kv_heads + h) * c.head_dim + d));
          }
        }
      }
    }
  }
}

// With as many elements as there are, all rows of a prompt are exact, and so is what follows but
// for the tokens that follow.
TEST(EngineCodec, WhereAllRowsAreExactTheFirstTokenIsTheDenseOne) {
  const EngineOptions o = CodecOptions("qwen2", "rotatekv:sinks=1024,sort=off");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o), dense = OpenOrFail(CodecOptions("qwen2", ""));
  // One token has them all.
  const auto tokens = SomeTokens(2, engine->config().vocab);
  const auto rows = testing::PromptAndTokens(*engine, 0, tokens, 1);
  const auto want = testing::PromptAndTokens(*dense, 0, tokens, 1);
  for (size_t i = 0; i < want.back().size(); ++i) EXPECT_NEAR(rows.back()[i], want.back()[i], 2e-3);
}

TEST(EngineCodec, RotateKvIsRefusedByName) {
  EngineOptions o = CodecOptions("llama", "rotatekv");
  SNUG_NEED(o.model_path);
  const std::string permutation = o.permutation;
  o.permutation.clear();
  testing::ExpectRefused(o, {"--kv rotatekv: it needs a permutation of the model's key channels"});
  o.permutation = permutation;
  for (const char* keep : {"h2o", "sink-window"}) {
    o.keep = *ParseKeep(keep);
    testing::ExpectRefused(o,
                           {std::string("--kv-keep ") + keep, "those of --kv rotatekv span all"});
  }
  o.keep = nullptr;
  o.read = *ParseRead("quest");
  testing::ExpectRefused(o, {"--kv-read quest: each KV head reads rows of its own",
                             "those of --kv rotatekv span all"});
  o.read = nullptr;
  o.lookup = true;
  testing::ExpectRefused(o, {"rolled back"});
  o.lookup = false;
  o.codec = *ParseCodec("rotatekv:heads=1");
  testing::ExpectRefused(o, {"transforms cover 1 KV heads, and the permutation is of those of 2"});
  o.codec = *ParseCodec("rotatekv:heads=3");
  testing::ExpectRefused(o, {"transforms of 3 KV heads do not cover"});
  testing::ExpectRefusedWithoutRows(CodecOptions("llama", "rotatekv"), "--kv rotatekv");
  // Sizes that have no transform, or whose groups do not come out even.
  const auto tiles = [](const char* spec, uint32_t heads, uint32_t dim, const char* why) {
    const auto refused = (*ParseCodec(spec))->Tiles(heads, dim, 0);
    ASSERT_FALSE(refused.ok()) << why;
    EXPECT_EQ(refused.error().code, Code::kUsage);
    EXPECT_NE(refused.error().message.find(why), std::string::npos) << refused.error().message;
  };
  tiles("rotatekv", 8, 96, "heads of 96 channels have no Walsh-Hadamard transform");
  tiles("rotatekv", 3, 64, "groups of 128 do not divide a token's 192 key channels");
  tiles("rotatekv:group=16", 16, 128, "into at most 64");
  EXPECT_TRUE((*ParseCodec("rotatekv:group=64"))->Tiles(3, 64, 0).ok());
}

TEST(EngineCodec, PermutationsOfAnotherModelAreRefused) {
  testing::TinyModel tiny;
  EngineOptions o;
  o.model_path = tiny.Write();
  o.budget.bytes = 256 * kMiB;
  EngineOptions bare = o;
  bare.chunk = bare.logit_rows = 64;
  o.permutation = testing::OrderKeys(bare);
  o.codec = *ParseCodec("rotatekv");
  EXPECT_TRUE(Engine::Open(o).ok());
  testing::TinyModel other;
  other.ffn = 96;
  o.model_path = other.Write();
  auto engine = Engine::Open(o);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.error().code, Code::kBadFile);
  EXPECT_NE(engine.error().message.find("was measured on the weights"), std::string::npos);
  o.permutation += ".missing";
  EXPECT_FALSE(Engine::Open(o).ok());
  EXPECT_FALSE(PlanFile(o).ok());
}

TEST(EngineCodec, OrdersOfKeysDependOnNeitherChunksNorThreads) {
  for (const char* arch : kCodecArchs) {
    EngineOptions o = TinyOptions(arch);
    SNUG_NEED(o.model_path);
    o.observe = Observation::kKeyOrder;
    std::vector<std::vector<uint16_t>> want;
    for (const uint32_t chunk : {64u, 1u, 7u}) {
      o.threads = chunk == 7 ? 3 : 1;
      auto engine = OpenOrFail(o);
      testing::ExpectLedgerHoldsThePlan(*engine, arch);
      testing::ReadText(*engine, chunk);
      const KeyOrder order = engine->key_order_statistics()->Order();
      if (want.empty()) want = order.layers;
      EXPECT_EQ(order.layers, want) << arch << chunk;
      EXPECT_FALSE(std::is_sorted(want.back().begin(), want.back().end()));
    }
  }
}

// Samples and centroids follow from the text alone, and the ledger holds what training was planned
// to take.
TEST(EngineCodec, CodebooksDependOnNeitherChunksNorThreads) {
  for (const char* arch : kCodecArchs) {
    for (const bool global : {false, true}) {
      EngineOptions o = testing::TrainingOptions(TinyOptions(arch), 2, global);
      SNUG_NEED(o.model_path);
      std::vector<std::vector<float>> want;
      for (const uint32_t chunk : {64u, 1u, 7u}) {
        o.threads = chunk == 7 ? 3 : 1;
        auto engine = OpenOrFail(o);
        testing::ExpectLedgerHoldsThePlan(*engine, arch);
        testing::ReadText(*engine, chunk);
        CodebookTraining& training = *engine->codebook_training();
        EXPECT_LE(training.vectors(), 512u + engine->config().layers);
        EXPECT_GE(training.vectors(), 500u);
        ASSERT_TRUE(training.Train(engine->pool(), nullptr).ok());
        std::vector<std::vector<float>> books;
        const CodebookShape& shape = training.books().shape();
        for (size_t p = 0; p < shape.pairs(); ++p) {
          for (const float* b : {training.books().keys(p), training.books().values(p)})
            books.emplace_back(b, b + shape.book_floats());
        }
        if (want.empty()) want = books;
        EXPECT_EQ(books, want) << arch << " " << global << " " << chunk;
        EXPECT_NE(books[0], books[1]);
      }
    }
  }
}

TEST(EngineCodec, TooFewVectorsAndCancelling) {
  const EngineOptions o = testing::TrainingOptions(TinyOptions("qwen2"), 2, false);
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  CodebookTraining& training = *engine->codebook_training();
  const auto tokens = SomeTokens(200, engine->config().vocab);
  const uint32_t few = 255 / engine->config().kv_heads;
  testing::AllLogits(*engine, 0, std::span(tokens).first(few), 64);
  const Status none = training.Train(engine->pool(), nullptr);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Code::kBadInput);
  engine->Clear(0);
  testing::AllLogits(*engine, 0, tokens, 64);
  uint32_t books = 0;
  const Status cancelled = training.Train(engine->pool(), [&](uint32_t done, uint32_t total) {
    EXPECT_EQ(total, 2 * engine->config().layers);
    books = done;
    return done < 2;
  });
  ASSERT_FALSE(cancelled.ok());
  EXPECT_EQ(cancelled.error().code, Code::kCancelled);
  EXPECT_EQ(books, 2u);
}

TEST(EngineCodec, OneBookForAllLayers) {
  const EngineOptions o = CodecOptions("qwen2", "million:residual=64", true);
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  testing::ExpectLedgerHoldsThePlan(*engine, "global");
  const auto own = PlanFile(CodecOptions("qwen2", "million:residual=64"));
  ASSERT_TRUE(own.ok());
  EXPECT_LT(engine->plan().codebook_bytes, own->codebook_bytes);
  EXPECT_GT(engine->plan().codebook_bytes, 0u);
  const auto tokens = SomeTokens(200, engine->config().vocab);
  testing::PromptAndTokens(*engine, 0, tokens, 190);
  EXPECT_EQ(engine->cache().coded(0, 1).keys, 128u);
}

TEST(EngineCodec, CodebooksThatAreMissingOrOfAnotherModelAreRefused) {
  testing::TinyModel tiny;
  EngineOptions o;
  o.model_path = tiny.Write();
  o.budget.bytes = 256 * kMiB;
  o.codec = *ParseCodec("million:residual=64");
  auto none = Engine::Open(o);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Code::kUsage);
  EXPECT_NE(none.error().message.find("--kv million:residual=64: it needs codebooks"),
            std::string::npos);
  EXPECT_NE(none.error().next.find("snug calibrate"), std::string::npos);
  EngineOptions bare = o;
  bare.codec = nullptr;
  bare.chunk = bare.logit_rows = 64;
  o.codebooks = testing::LearnCodebooks(bare, 2, false);
  EXPECT_TRUE(Engine::Open(o).ok());
  const auto refused = [&](Code code, const std::string& why) {
    auto engine = Engine::Open(o);
    ASSERT_FALSE(engine.ok()) << why;
    EXPECT_EQ(engine.error().code, code);
    EXPECT_NE(engine.error().message.find(why), std::string::npos) << engine.error().message;
  };
  o.codec = *ParseCodec("million:dims=4");
  refused(Code::kUsage, "dims=4, and the codebooks have sub-vectors of 2");
  o.codec = *ParseCodec("million");
  testing::TinyModel other;
  other.ffn = 96;
  o.model_path = other.Write();
  refused(Code::kBadFile, "was measured on the weights");
  o.codebooks += ".missing";
  EXPECT_FALSE(Engine::Open(o).ok());
  EXPECT_FALSE(PlanFile(o).ok());
}

}  // namespace
}  // namespace snug
