// Copies of sequences, with every kind of cache: both go on as if each were alone.
#include "engine_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

enum class Seam : uint8_t { kNone, kKeep, kCodec, kRead, kShare };

EngineOptions ForkOptions(const std::string& arch, Seam seam, const std::string& spec) {
  EngineOptions o = TinyOptions(arch);
  o.sequences = 2;
  o.logit_rows = 2;
  const auto set = [&](auto parsed, auto* to) {
    ASSERT_TRUE(parsed.ok()) << spec;
    *to = *parsed;
  };
  if (seam == Seam::kKeep) set(ParseKeep(spec), &o.keep);
  if (seam == Seam::kCodec) set(ParseCodec(spec), &o.codec);
  if (o.codec != nullptr && o.codec->needs_codebooks() && testing::Exists(o.model_path)) {
    EngineOptions training = TinyOptions(arch);
    o.codebooks = testing::LearnCodebooks(training, 2, false);
  }
  if (seam == Seam::kRead) set(ParseRead(spec), &o.read);
  if (seam == Seam::kShare) set(ParseShare(spec), &o.share);
  return o;
}

// Logits of further tokens, one by one.
std::vector<std::vector<float>> GoOn(Engine& engine, uint32_t sequence,
                                     std::span<const Token> tokens) {
  std::vector<std::vector<float>> rows;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const StepItem item{sequence, tokens.subspan(i, 1), StepItem::Logits::kLast};
    const Status status = engine.Step({&item, 1});
    EXPECT_TRUE(status.ok());
    if (!status.ok()) return rows;
    const auto row = engine.logits(0);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

TEST(EngineFork, BothGoOnAsIfAlone) {
  const struct {
    const char* arch;
    Seam seam;
    const char* spec;
    bool rolling = false;
  } kCases[] = {
      {"qwen2", Seam::kNone, ""},
      {"gemma3", Seam::kNone, ""},
      {"mamba", Seam::kNone, ""},
      {"qwen2", Seam::kKeep, "h2o:budget=40"},
      {"gemma3", Seam::kKeep, "snapkv:budget=40"},
      {"qwen2", Seam::kKeep, "chelsea:budget=80"},
      {"gemma3", Seam::kKeep, "sink-window:budget=40", true},
      {"qwen2", Seam::kKeep, "h2o:budget=40", true},
      {"qwen2", Seam::kCodec, "kivi:group=16,residual=32"},
      {"llama", Seam::kCodec, "zipcache:gap=32"},
      {"llama", Seam::kCodec, "million:residual=64,lag=30"},
      {"llama", Seam::kCodec, "rotatekv:residual=20,sinks=3,sort=off"},
      {"qwen2", Seam::kRead, "quest:tokens=1/4"},
      {"llama", Seam::kShare, "minicache:start=0,residual=16"},
  };
  for (const auto& c : kCases) {
    EngineOptions options = ForkOptions(c.arch, c.seam, c.spec);
    options.rolling = c.rolling;
    SNUG_NEED(options.model_path);
    auto engine = OpenOrFail(options), alone = OpenOrFail(options);
    ASSERT_TRUE(engine != nullptr && alone != nullptr) << c.spec;
    const uint32_t vocab = engine->config().vocab;
    const auto tokens = SomeTokens(170, vocab), a = SomeTokens(40, vocab, 5);
    const auto b = SomeTokens(40, vocab, 6);
    std::vector<std::vector<float>> reference[2];
    for (const auto* more : {&a, &b}) {
      alone->Clear(0);
      testing::PromptAndTokens(*alone, 0, tokens, 150);
      reference[more == &a ? 0 : 1] = GoOn(*alone, 0, *more);
    }
    const uint64_t held_alone = alone->kv_bytes_held();
    testing::PromptAndTokens(*engine, 0, tokens, 150);
    // What sequence 1 held before is no more.
    GoOn(*engine, 1, a);
    ASSERT_TRUE(engine->Fork(0, 1).ok());
    EXPECT_TRUE(std::ranges::equal(engine->tokens(1), tokens)) << c.spec;
    EXPECT_EQ(GoOn(*engine, 1, b), reference[1]) << c.arch << " " << c.spec;
    EXPECT_EQ(GoOn(*engine, 0, a), reference[0]) << c.arch << " " << c.spec;
    engine->Clear(0);
    EXPECT_EQ(engine->kv_bytes_held(), held_alone) << c.arch << " " << c.spec;
    // A copy goes to an empty sequence, and back.
    ASSERT_TRUE(engine->Fork(1, 0).ok());
    engine->Clear(1);
    EXPECT_EQ(engine->kv_bytes_held(), held_alone) << c.arch << " " << c.spec;
    engine->Clear(0);
    EXPECT_EQ(engine->kv_bytes_held(), 0u) << c.arch << " " << c.spec;
  }
}

}  // namespace
}  // namespace snug
