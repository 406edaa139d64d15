// WindowKV against its rule: budgets of groups, windows by hand, and what stays of a prompt against
// the softmax of its last queries in double.
#include "keep_testing.h"

namespace snug {
namespace {

using keep_testing::kHeads;
using keep_testing::kKvHeads;
using keep_testing::Sequence;
using keep_testing::UpTo;

std::shared_ptr<const KeepMethod> Method(const std::string& spec) {
  auto method = ParseKeep(spec);
  EXPECT_TRUE(method.ok()) << spec;
  return method.ok() ? *method : nullptr;
}

TEST(WindowKv, BudgetsFallInEqualStepsFromGroupToGroup) {
  const auto budgets = [](const std::string& spec, uint32_t layers, uint32_t suffix) {
    std::vector<uint32_t> rows;
    const auto method = Method(spec);
    for (uint32_t l = 0; l < layers; ++l) {
      const KeepPlace place{l, layers};
      const uint32_t budget = method->RowsAfterPrompt(100000, place) - suffix;
      if (method->FollowsLayerBefore(place)) {
        EXPECT_EQ(budget, rows.back()) << l;
      } else {
        rows.push_back(budget);
      }
    }
    return rows;
  };
  using Rows = std::vector<uint32_t>;
  EXPECT_EQ(budgets("windowkv:budget=2080,strategy=max", 32, 32), Rows({2926, 2341, 1756, 1170}));
  EXPECT_EQ(budgets("windowkv:budget=1040,strategy=average", 32, 16), Rows({1463, 1171, 879, 585}));
  EXPECT_EQ(budgets("windowkv:budget=544", 32, 32), Rows({732, 586, 440, 292}));
  EXPECT_EQ(budgets("windowkv:budget=40,group=2,beta=4,suffix=8", 8, 8), Rows({48, 38, 28, 16}));
  // Layers that fill no group are the last one's.
  EXPECT_EQ(budgets("windowkv:budget=1056", 30, 32), Rows({1463, 1024, 585}));
  EXPECT_EQ(budgets("windowkv:budget=100,group=4,beta=4,suffix=8", 6, 8), Rows({92}));
}

// The plan of a full context has room for every shorter one.
TEST(WindowKv, RowsAreBounded) {
  for (const char* spec :
       {"windowkv:budget=0.5,least=1,group=1,beta=3,window=5,answer=7",
        "windowkv:budget=0.3,least=40,group=2,beta=2.5,strategy=average", "windowkv:budget=0.2"}) {
    const auto method = Method(spec);
    constexpr uint32_t kLayers = 21;
    ASSERT_TRUE(method->Check(kLayers).ok());
    for (uint32_t l = 0; l < kLayers; ++l) {
      uint32_t most = 0, answer = 0;
      for (uint32_t tokens = 1; tokens < 3000; ++tokens) {
        for (const char* text : {"?", ""}) {
          const KeepMethod& kept = method->ForPrompt(text);
          most = std::max(most, kept.RowsAfterPrompt(tokens, {l, kLayers}));
          answer = std::max(answer, kept.RowsAtMost(tokens, {l, kLayers}));
        }
        ASSERT_LE(most, method->RowsAtMost(tokens, {l, kLayers})) << spec << " " << l;
        ASSERT_LE(answer, method->RowsAtMost(tokens, {l, kLayers})) << spec << " " << l;
      }
    }
  }
}

// What goes of rows in order with the given sums, `stay` of which are asked to stay.
std::vector<uint32_t> Dropped(const std::string& spec, std::vector<float> sums, uint32_t stay) {
  const std::vector<uint32_t> positions = UpTo(static_cast<uint32_t>(sums.size()));
  std::vector<uint32_t> dropped(sums.size()), order(sums.size());
  std::vector<float> scores(sums.size());
  KeepLayer layer;
  layer.heads = layer.query_heads = 1;
  layer.rows = layer.length = static_cast<uint32_t>(sums.size());
  layer.stay = stay;
  layer.positions = positions.data();
  layer.sums = sums.data();
  layer.stride = sums.size();
  dropped.resize(Method(spec)->Drop(layer, 0, dropped, {order, scores}));
  return dropped;
}

TEST(WindowKv, WindowsByHand) {
  const std::string spec = "windowkv:budget=5,window=4,group=1,beta=1,suffix=1,strategy=";
  const std::vector<float> sums{.4f, 0, 0, 0, .15f, .15f, .15f, .15f, 1};
  using Rows = std::vector<uint32_t>;
  EXPECT_EQ(Dropped(spec + "average", sums, 5), Rows({0, 1, 2, 3}));
  EXPECT_EQ(Dropped(spec + "max", sums, 5), Rows({4, 5, 6, 7}));
  // 18 judged rows are 5 windows, the last of 2; three of them go.
  std::vector<float> rising(19), falling(19);
  for (uint32_t i = 0; i < 19; ++i) rising[i] = falling[18 - i] = static_cast<float>(i);
  EXPECT_EQ(Dropped(spec + "average", rising, 9), UpTo(12));
  EXPECT_EQ(Dropped(spec + "average", falling, 9), Rows({8, 9, 10, 11, 12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(Dropped(spec + "max", rising, 1), UpTo(18));
  // Equal windows: the older stays.
  EXPECT_EQ(Dropped(spec + "max", std::vector<float>(9, 1.0f), 5), Rows({4, 5, 6, 7}));
}

TEST(WindowKv, IsItsRule) {
  constexpr uint32_t kPrompt = 200, kSuffix = 16, kJudged = kPrompt - kSuffix, kBudget = 54;
  for (const bool max : {false, true}) {
    for (const uint32_t window : {1u, 2u, 5u, 8u, 64u}) {
      const std::string spec =
          "windowkv:budget=70,group=1,beta=1,suffix=16,answer=20,window=" + std::to_string(window) +
          (max ? ",strategy=max" : ",strategy=average");
      Sequence s(spec, KvType::kF32);
      s.Prompt(kPrompt, 33);
      std::vector<std::vector<double>> sums(kHeads, std::vector<double>(kPrompt));
      std::vector<double> out;
      for (uint32_t t = kJudged; t < kPrompt; ++t) {
        for (uint32_t h = 0; h < kHeads; ++h) {
          const auto w = s.Softmax(t, h, UpTo(t + 1), &out);
          for (uint32_t p = 0; p <= t; ++p) sums[h][p] += w[p];
        }
      }
      const uint32_t top = max ? std::max(1u, window / 2) : window;
      std::vector<std::pair<double, uint32_t>> windows;  // score and first token
      for (uint32_t first = 0; first < kJudged; first += window) {
        const uint32_t last = std::min(kJudged, first + window);
        double score = 0;
        for (uint32_t h = 0; h < kHeads; ++h) {
          std::vector<double> in(sums[h].begin() + first, sums[h].begin() + last);
          std::sort(in.rbegin(), in.rend());
          in.resize(std::min<size_t>(in.size(), top));
          for (const double x : in) score += x / static_cast<double>(in.size());
        }
        windows.emplace_back(score, first);
      }
      std::sort(windows.rbegin(), windows.rend());
      windows.resize(windows.size() - (kJudged - kBudget + window - 1) / window);
      std::vector<uint32_t> kept;
      for (const auto& [score, first] : windows) {
        for (uint32_t p = first; p < std::min(kJudged, first + window); ++p) kept.push_back(p);
      }
      EXPECT_GT(kept.size() + window, kBudget);
      EXPECT_LT(kept.size(), kBudget + window);
      for (uint32_t p = kJudged; p < kPrompt; ++p) kept.push_back(p);
      std::sort(kept.begin(), kept.end());
      for (uint32_t h = 0; h < kKvHeads; ++h) ASSERT_EQ(s.Kept(h), kept) << spec;
      // Of the answer the last 20 stay, and those for which the windows that went left room.
      const uint32_t room = kBudget + window - 1 + kSuffix - static_cast<uint32_t>(kept.size());
      for (uint32_t t = kPrompt; t < 300; ++t) s.Token();
      for (uint32_t t = kPrompt; t < std::min(280u, kPrompt + room); ++t) kept.push_back(t);
      for (uint32_t t = 280; t < 300; ++t) kept.push_back(t);
      EXPECT_EQ(s.Kept(1), kept) << spec;
      s.ExpectRowsAreTheirTokens();
    }
  }
}

TEST(WindowKv, AutoGoesByThePromptsEnd) {
  const auto method = Method("windowkv");
  EXPECT_EQ(method->reads_end(), 256u);
  EXPECT_EQ(method->ForPrompt("Where was she born?").spec(), "windowkv:strategy=max");
  EXPECT_EQ(method->ForPrompt("QUESTION: name it\nAnswer:").spec(), "windowkv:strategy=max");
  EXPECT_EQ(method->ForPrompt("Sum it up.").spec(), "windowkv:strategy=average");
  EXPECT_EQ(method->ForPrompt("?").observes().prompt_queries, 32u);
  EXPECT_EQ(method->ForPrompt("").observes().prompt_queries, 16u);
  const auto given = Method("windowkv:strategy=average");
  EXPECT_EQ(given->reads_end(), 0u);
  EXPECT_EQ(&given->ForPrompt("?"), given.get());
}

TEST(WindowKv, WhatCannotBeIsRefused) {
  for (const char* spec :
       {"windowkv:strategy=best", "windowkv:strategy=0", "windowkv:window=0", "windowkv:group=0",
        "windowkv:beta=0", "windowkv:group=15", "windowkv:suffix=-1"}) {
    const auto method = ParseKeep(spec);
    ASSERT_FALSE(method.ok()) << spec;
    EXPECT_EQ(method.error().code, Code::kUsage);
    EXPECT_NE(method.error().message.find("windowkv"), std::string::npos);
  }
  const Status few = Method("windowkv")->Check(15);
  ASSERT_FALSE(few.ok());
  EXPECT_NE(few.error().message.find("15 layers"), std::string::npos);
  EXPECT_TRUE(Method("windowkv")->Check(16).ok());
  EXPECT_TRUE(Method("windowkv:group=15,beta=15")->Check(15).ok());
}

}  // namespace
}  // namespace snug
