// Encoders against what transformers computes with a tiny BERT, and their place in the budget.
#include "engine/embed.h"

#include <cmath>
#include <fstream>

#include "base/json.h"
#include "engine_testing.h"
#include "format/safetensors.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SameBits;

std::string Folder() { return testing::SourcePath("tests/data/bert"); }

EngineOptions BertOptions(const std::string& model) {
  EngineOptions o;
  o.model_path = model;
  o.budget.bytes = 128 * kMiB;
  o.base_bytes = 24 * kMiB;
  o.threads = 2;
  o.embed = true;
  return o;
}

std::vector<std::string> Texts() {
  const auto text = ReadWholeFile(Folder() + "/texts.json", 1 << 20);
  return ParseJson(*text, "texts")->get<std::vector<std::string>>();
}

struct Embedded {
  std::vector<std::vector<float>> vectors;
  EmbedStats stats;
};

Embedded EmbedAll(Engine& engine, const EmbedOptions& options,
                  const std::vector<std::string>& texts) {
  Embedded e;
  size_t next = 0;
  const auto stats = Embed(
      engine, options,
      [&](std::string* text) -> Result<bool> {
        if (next == texts.size()) return false;
        *text = texts[next++];
        return true;
      },
      [&](std::span<const float> v, uint32_t) { e.vectors.emplace_back(v.begin(), v.end()); });
  EXPECT_TRUE(stats.ok()) << stats.error().message;
  if (stats.ok()) e.stats = *stats;
  return e;
}

float Worst(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    worst = std::max(worst, std::abs(a[i] - b[i]));
  }
  return worst;
}

// The folder and the GGUF file hold the same model.
class EmbedGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(EmbedGolden, HiddenStatesAndPooledTextsEqualTransformers) {
  auto golden = SafetensorsFile::Open(Folder() + "/golden.safetensors");
  ASSERT_TRUE(golden.ok()) << golden.error().message;
  const std::vector<std::string> texts = Texts();
  for (const PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
    EngineOptions options = BertOptions(Folder() + GetParam());
    options.place = place;
    auto engine = OpenOrFail(options);
    ASSERT_NE(engine, nullptr);
    EXPECT_EQ(engine->config().pooling, Pooling::kCls);
    const size_t dim = engine->config().dim;
    std::vector<std::vector<Token>> tokens;
    std::vector<StepItem> items;
    for (size_t i = 0; i < texts.size(); ++i) {
      tokens.push_back(golden->ReadI32("tokens_" + std::to_string(i)).value());
      std::vector<Token> own;
      engine->tokenizer().Encode(texts[i], {}, &own);
      EXPECT_EQ(own, tokens.back()) << texts[i];
    }
    for (size_t i = 0; i < texts.size(); ++i) {
      items.push_back({static_cast<uint32_t>(i), tokens[i], StepItem::Logits::kNone});
    }
    ASSERT_TRUE(engine->Step(items).ok());
    uint32_t row = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto hidden = golden->ReadF32("hidden_" + std::to_string(i)).value();
      for (size_t t = 0; t < tokens[i].size(); ++t) {
        EXPECT_LE(Worst(engine->hidden(row++), std::span(hidden).subspan(t * dim, dim)), 5e-5f);
      }
      engine->Clear(static_cast<uint32_t>(i));
    }
    for (const auto& [pooling, name] :
         {std::pair{Pooling::kMean, "mean_"}, {Pooling::kCls, "cls_"}}) {
      EmbedOptions o;
      o.pooling = pooling;
      o.normalize = true;
      const Embedded e = EmbedAll(*engine, o, texts);
      ASSERT_EQ(e.vectors.size(), texts.size());
      for (size_t i = 0; i < texts.size(); ++i) {
        const auto expected = golden->ReadF32(name + std::to_string(i)).value();
        EXPECT_LE(Worst(e.vectors[i], expected), 1e-5f) << name << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, EmbedGolden, ::testing::Values("", "/model.gguf"),
                         [](const auto& param) { return *param.param == 0 ? "Folder" : "Gguf"; });

TEST(Embed, DoesNotDependOnWhatSharesTheStep) {
  const std::vector<std::string> texts = Texts();
  EngineOptions options = BertOptions(Folder() + "/model.gguf");
  auto engine = OpenOrFail(options);
  ASSERT_NE(engine, nullptr);
  const Embedded together = EmbedAll(*engine, {}, texts);
  EXPECT_EQ(together.stats.texts, texts.size());
  options.threads = 1;
  options.chunk = 128;
  auto other = OpenOrFail(options);
  ASSERT_NE(other, nullptr);
  for (size_t i = 0; i < texts.size(); ++i) {
    const Embedded alone = EmbedAll(*other, {}, {texts[i]});
    EXPECT_TRUE(SameBits(alone.vectors[0], together.vectors[i])) << i;
  }
  // More texts than a step takes.
  std::vector<std::string> many;
  for (size_t i = 0; i < 100; ++i) many.push_back(texts[i % texts.size()]);
  const Embedded all = EmbedAll(*engine, {}, many);
  ASSERT_EQ(all.vectors.size(), many.size());
  for (size_t i = 0; i < many.size(); ++i) {
    EXPECT_TRUE(SameBits(all.vectors[i], together.vectors[i % texts.size()])) << i;
  }
}

TEST(Embed, NormalizesWhereAsked) {
  auto engine = OpenOrFail(BertOptions(Folder() + "/model.gguf"));
  ASSERT_NE(engine, nullptr);
  EmbedOptions o;
  o.normalize = false;
  const auto plain = EmbedAll(*engine, o, {"the cat"}).vectors[0];
  o.normalize = true;
  const auto unit = EmbedAll(*engine, o, {"the cat"}).vectors[0];
  double squares = 0;
  for (const float v : plain) squares += double{v} * v;
  EXPECT_GT(std::abs(squares - 1), 0.1);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_NEAR(unit[i], plain[i] / std::sqrt(squares), 1e-6);
  }
}

TEST(Embed, RefusesOrTruncatesLongTexts) {
  EngineOptions options = BertOptions(Folder() + "/model.gguf");
  options.context = 10;
  auto engine = OpenOrFail(options);
  ASSERT_NE(engine, nullptr);
  const std::vector<std::string> texts = {"a", "the a of to in and is it that was for on with"};
  size_t next = 0;
  const auto refused = Embed(
      *engine, {},
      [&](std::string* text) -> Result<bool> {
        if (next == texts.size()) return false;
        *text = texts[next++];
        return true;
      },
      [](std::span<const float>, uint32_t) {});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kDoesNotFit);
  EXPECT_NE(refused.error().message.find("text 2 has 15 tokens"), std::string::npos)
      << refused.error().message;
  EmbedOptions cut;
  cut.truncate = true;
  const Embedded e = EmbedAll(*engine, cut, texts);
  EXPECT_EQ(e.stats.truncated, 1u);
  // The first eight words between the tokens that begin and end every text.
  const Embedded whole = EmbedAll(*engine, {}, {"the a of to in and is it"});
  EXPECT_TRUE(SameBits(e.vectors[1], whole.vectors[0]));
}

TEST(Embed, LedgerHoldsWhatThePlanSaysAndEveryBudgetIsKept) {
  EngineOptions options = BertOptions(Folder() + "/model.gguf");
  int refused = 0, ran = 0;
  std::vector<float> reference;
  for (int i = 0; i < 40; ++i) {
    options.budget.bytes = options.base_bytes + i * (kMiB / 2);
    auto engine = Engine::Open(options);
    if (!engine.ok()) {
      ++refused;
      EXPECT_EQ(engine.error().code, Code::kDoesNotFit);
      EXPECT_NE(engine.error().next.find("--memory"), std::string::npos) << engine.error().next;
      EXPECT_EQ(engine.error().next.find("--kv"), std::string::npos);
      continue;
    }
    ++ran;
    const LedgerSnapshot held = (*engine)->ledger().snapshot();
    for (size_t w = 0; w < kOwners; ++w) {
      EXPECT_EQ(held.now[w], (*engine)->plan().at_context[w]) << OwnerName(static_cast<Owner>(w));
    }
    const auto v = EmbedAll(**engine, {}, Texts()).vectors[1];
    if (reference.empty()) reference = v;
    EXPECT_TRUE(SameBits(v, reference));
    EXPECT_LE((*engine)->ledger().snapshot().total_peak, options.budget.bytes);
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(ran, 0);
}

TEST(Embed, EncodersAndDecodersAreNotMixedUp) {
  EngineOptions options = BertOptions(Folder() + "/model.gguf");
  options.embed = false;
  auto generator = Engine::Open(options);
  ASSERT_FALSE(generator.ok());
  EXPECT_EQ(generator.error().code, Code::kUsage);
  EXPECT_NE(generator.error().next.find("embed"), std::string::npos);
  options = testing::TinyOptions("qwen2");
  SNUG_NEED(options.model_path);
  options.embed = true;
  auto encoder = Engine::Open(options);
  ASSERT_FALSE(encoder.ok());
  EXPECT_EQ(encoder.error().code, Code::kUsage);
}

}  // namespace
}  // namespace snug
