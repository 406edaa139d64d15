// Random models of many shapes against a forward pass in plain loops.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/engine.h"
#include "random_model.h"
#include "testing.h"

namespace snug {
namespace {

using testing::ModelShape;
using testing::RandomModel;

constexpr size_t kTokens = 20;

std::vector<ModelShape> AllShapes() {
  std::vector<ModelShape> shapes = {
      {.arch = "llama", .heads = 3, .kv_heads = 1, .head_dim = 64, .biased = true},
      {.arch = "llama", .dim = 40, .heads = 5, .kv_heads = 5, .head_dim = 80, .ffn = 33},
      {.arch = "llama", .heads = 1, .kv_heads = 1, .head_dim = 256, .tied = true, .window = 6},
      {.arch = "llama", .heads = 2, .kv_heads = 1, .head_dim = 1024},
      {.arch = "llama", .dim = 64, .heads = 6, .head_dim = 96, .ffn = 96, .q8_0 = true},
      {.arch = "qwen2", .heads = 7, .kv_heads = 1, .head_dim = 112, .biased = true},
      {.arch = "qwen3", .heads = 9, .kv_heads = 3, .head_dim = 128, .tied = true},
      {.arch = "qwen3", .heads = 2, .kv_heads = 2, .head_dim = 2, .biased = true},
      {.arch = "gemma2",
       .heads = 3,
       .kv_heads = 3,
       .head_dim = 80,
       .tied = true,
       .window = 5,
       .attn_cap = 2,
       .final_cap = 3},
      {.arch = "granite", .heads = 5, .kv_heads = 1, .head_dim = 96, .tied = true},
      {.arch = "olmo2", .heads = 3, .kv_heads = 1, .head_dim = 112},
      {.arch = "smollm3", .layers = 5, .heads = 3, .kv_heads = 3, .head_dim = 64, .tied = true},
      {.arch = "llama", .head_dim = 80, .experts = 8, .used = 2},
      {.arch = "llama",
       .dim = 64,
       .head_dim = 64,
       .ffn = 32,
       .experts = 3,
       .used = 3,
       .q8_0 = true},
      {.arch = "qwen3moe",
       .heads = 3,
       .kv_heads = 1,
       .head_dim = 64,
       .ffn = 17,
       .experts = 40,
       .used = 5},
      {.arch = "qwen3moe",
       .dim = 32,
       .head_dim = 32,
       .ffn = 32,
       .experts = 5,
       .used = 1,
       .q8_0 = true},
      {.arch = "olmoe", .heads = 4, .kv_heads = 4, .head_dim = 16, .experts = 7, .used = 3},
      {.arch = "gpt-oss",
       .heads = 8,
       .kv_heads = 1,
       .head_dim = 64,
       .biased = true,
       .window = 7,
       .experts = 6,
       .used = 2},
  };
  return shapes;
}

class ModelShapes : public ::testing::TestWithParam<ModelShape> {
 protected:
  void SetUp() override {
    model_ = std::make_unique<RandomModel>(GetParam(), 3);
    path_ = testing::TempDir() + "/m.gguf";
    model_->Write(path_);
    for (size_t i = 0; i < kTokens; ++i) {
      tokens_.push_back(static_cast<Token>(1 + i * i % (GetParam().vocab - 1)));
    }
  }
  // Logits of all tokens in chunks of `chunk`.
  std::vector<float> Run(bool exact, uint32_t chunk, PlaceChoice place = PlaceChoice::kAuto) {
    EngineOptions o;
    o.model_path = path_;
    o.budget.bytes = 256 * kMiB;
    o.context = 64;
    o.chunk = o.logit_rows = kTokens;
    o.exact = exact;
    o.threads = 2;
    o.place = place;
    auto engine = Engine::Open(o);
    if (!engine.ok()) {
      ADD_FAILURE() << engine.error().message;
      return {};
    }
    std::vector<float> all;
    for (size_t i = 0; i < kTokens; i += chunk) {
      const size_t n = std::min<size_t>(chunk, kTokens - i);
      const StepItem item{0, std::span<const Token>(tokens_).subspan(i, n), StepItem::Logits::kAll};
      EXPECT_TRUE((*engine)->Step({&item, 1}).ok());
      for (size_t t = 0; t < n; ++t) {
        const auto row = (*engine)->logits(t);
        all.insert(all.end(), row.begin(), row.end());
      }
    }
    return all;
  }

  std::unique_ptr<RandomModel> model_;
  std::string path_;
  std::vector<Token> tokens_;
};

TEST_P(ModelShapes, ExactLogitsEqualPlainLoops) {
  const std::vector<float> expected = model_->Logits(tokens_);
  const std::vector<float> got = Run(true, kTokens);
  ASSERT_EQ(got.size(), expected.size());
  double spread = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected[i], 3e-4) << "position " << i / GetParam().vocab;
    spread += std::abs(expected[i]);
  }
  EXPECT_GT(spread / static_cast<double>(got.size()), 0.1);  // they say something
}

TEST_P(ModelShapes, ChunksAndPlacesDoNotChangeABit) {
  for (const bool exact : {false, true}) {
    const std::vector<float> whole = Run(exact, kTokens);
    EXPECT_EQ(Run(exact, 1), whole);
    EXPECT_EQ(Run(exact, 7), whole);
    EXPECT_EQ(Run(exact, 7, PlaceChoice::kStream), whole);
  }
}

INSTANTIATE_TEST_SUITE_P(Random, ModelShapes, ::testing::ValuesIn(AllShapes()),
                         [](const auto& param) { return param.param.name(); });

TEST(HeadSizes, BeyondTheKernelsAreRefused) {
  for (const uint32_t head_dim : {1026u, 4096u}) {
    const std::string path = testing::TempDir() + "/large.gguf";
    RandomModel({.heads = 1, .kv_heads = 1, .head_dim = head_dim}, 3).Write(path);
    EngineOptions o;
    o.model_path = path;
    o.budget.bytes = 256 * kMiB;
    auto plan = PlanFile(o);
    ASSERT_FALSE(plan.ok()) << head_dim;
    EXPECT_EQ(plan.error().code, Code::kBadFile);
    EXPECT_NE(plan.error().message.find(std::to_string(head_dim)), std::string::npos)
        << plan.error().message;
  }
}

TEST(KeysInFourBits, AreRefusedWhereTheyRuinTheModel) {
  for (const char* arch : {"qwen2", "llama"}) {
    EngineOptions o;
    o.model_path = testing::TempDir() + "/keys.gguf";
    RandomModel({.arch = arch, .head_dim = 32, .biased = true}, 3).Write(o.model_path);
    o.budget.bytes = 256 * kMiB;
    o.key_type = KvType::kQ4_0;
    auto plan = PlanFile(o);
    EXPECT_EQ(plan.ok(), arch == std::string("llama"));
    if (!plan.ok()) {
      EXPECT_EQ(plan.error().code, Code::kUsage);
      EXPECT_NE(plan.error().message.find("keys in q4_0 ruin"), std::string::npos);
    }
    o.any_types = true;
    EXPECT_TRUE(PlanFile(o).ok());
    o.any_types = false;
    o.key_type = KvType::kQ8_0;
    o.value_type = KvType::kQ4_0;
    EXPECT_TRUE(PlanFile(o).ok());
  }
}

}  // namespace
}  // namespace snug
