// GemFilter's choice against its rule, worked out in double with a full sort, and by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tokens/reduce/reduce.h"

namespace snug {
namespace {

std::shared_ptr<const ReduceMethod> Method(const std::string& spec) {
  auto method = ParseReduce(spec);
  EXPECT_TRUE(method.ok()) << spec;
  return method.ok() ? *method : nullptr;
}

// q.k of some heads with some tokens.
struct Dots {
  uint32_t heads, tokens;
  std::vector<float> values;  // [heads, tokens]
  float scale = 0.25f, softcap = 0;

  PromptScores scores() const { return {tokens, heads, values.data(), tokens, scale, softcap}; }
};

Dots Random(uint32_t heads, uint32_t tokens, uint32_t seed) {
  Dots d{heads, tokens, {}};
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 3);
  for (uint32_t i = 0; i < heads * tokens; ++i) d.values.push_back(normal(rng));
  return d;
}

std::vector<uint32_t> Choose(const std::string& spec, const Dots& d) {
  const auto method = Method(spec);
  std::vector<uint32_t> chosen(method->Stay(d.tokens));
  std::vector<float> room(2 * d.tokens);
  const Status status = method->Choose(d.scores(), room, chosen);
  EXPECT_TRUE(status.ok()) << spec;
  return chosen;
}

std::vector<uint32_t> Reference(const Dots& d, uint32_t keep, int pool, uint32_t first,
                                uint32_t last, bool softmax) {
  const auto n = static_cast<int>(d.tokens);
  std::vector<double> sums(n, 0.0), pooled(n, 0.0);
  for (uint32_t h = 0; h < d.heads; ++h) {
    std::vector<double> row(n);
    for (int i = 0; i < n; ++i) {
      row[i] = d.values[h * d.tokens + i];
      if (!softmax) continue;
      row[i] *= d.scale;
      if (d.softcap != 0) row[i] = d.softcap * std::tanh(row[i] / d.softcap);
    }
    double total = 0;
    for (double& x : row) total += softmax ? (x = std::exp(x)) : 1;
    for (int i = 0; i < n; ++i) sums[i] += softmax ? row[i] / total / d.heads : row[i];
  }
  for (int i = 0; i < n; ++i) {
    for (int u = i - pool / 2; u <= i + pool / 2; ++u) {
      if (u >= 0 && u < n) pooled[i] += sums[u] / pool;
    }
  }
  std::vector<uint32_t> order;
  for (uint32_t i = first; i < d.tokens - last; ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return pooled[a] > pooled[b]; });
  order.resize(keep - first - last);
  for (uint32_t i = 0; i < first; ++i) order.push_back(i);
  for (uint32_t i = d.tokens - last; i < d.tokens; ++i) order.push_back(i);
  std::sort(order.begin(), order.end());
  return order;
}

TEST(GemFilter, ByHand) {
  // Means over five: 2.2 2.2 2.2 2.8 2.8 .8 .8. The largest score itself is not kept.
  const Dots d{1, 7, {1, 0, 10, 0, 0, 4, 0}};
  EXPECT_EQ(Choose("gemfilter:keep=2", d), (std::vector<uint32_t>{3, 4}));
  EXPECT_EQ(Choose("gemfilter:keep=2,pool=1", d), (std::vector<uint32_t>{2, 5}));
  EXPECT_EQ(Choose("gemfilter:keep=4,first=1,last=1", d), (std::vector<uint32_t>{0, 3, 4, 6}));
  // Of equal scores the first ones.
  EXPECT_EQ(Choose("gemfilter:keep=3", Dots{2, 9, std::vector<float>(18, 1.5f)}),
            (std::vector<uint32_t>{2, 3, 4}));
  EXPECT_EQ(Choose("gemfilter:keep=3,pool=1", Dots{2, 9, std::vector<float>(18, 1.5f)}),
            (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_EQ(Choose("gemfilter:keep=3,first=2,last=1", d), (std::vector<uint32_t>{0, 1, 6}));
}

TEST(GemFilter, IsItsRule) {
  uint32_t seed = 1;
  for (const uint32_t heads : {1u, 6u}) {
    for (const uint32_t tokens : {40u, 300u, 5000u}) {
      for (const int pool : {1, 5, 9}) {
        for (const bool softmax : {false, true}) {
          Dots d = Random(heads, tokens, ++seed);
          if (softmax && pool == 9) d.softcap = 2;
          for (const uint32_t keep : {10u, 33u}) {
            for (const uint32_t edge : {0u, 3u}) {
              const std::string spec =
                  "gemfilter:keep=" + std::to_string(keep) + ",pool=" + std::to_string(pool) +
                  ",first=" + std::to_string(edge) + ",last=" + std::to_string(edge) +
                  ",score=" + (softmax ? "softmax" : "raw");
              EXPECT_EQ(Choose(spec, d), Reference(d, keep, pool, edge, edge, softmax))
                  << spec << " of " << tokens;
            }
          }
        }
      }
    }
  }
}

TEST(GemFilter, TakesAllOfShortPromptsAndNeverMoreThanAsked) {
  const Dots d = Random(2, 50, 5);
  std::vector<uint32_t> all(50);
  std::iota(all.begin(), all.end(), 0u);
  for (const char* spec : {"gemfilter", "gemfilter:keep=50", "gemfilter:keep=50,first=50"}) {
    EXPECT_EQ(Choose(spec, d), all) << spec;
  }
  EXPECT_EQ(Method("gemfilter")->Stay(5000), 1024u);
  EXPECT_EQ(Method("gemfilter:keep=7")->Stay(7), 7u);
}

TEST(GemFilter, ScaleChangesNothing) {
  Dots d = Random(4, 400, 9);
  const auto want = Choose("gemfilter:keep=40", d);
  for (float& v : d.values) v *= 0.125f;
  EXPECT_EQ(Choose("gemfilter:keep=40", d), want);
}

TEST(GemFilter, ScoresThatAreNoNumbersAreAnError) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const char* score : {"raw", "softmax"}) {
      Dots d = Random(2, 100, 3);
      d.values[150] = bad;
      const auto method = Method(std::string("gemfilter:keep=10,score=") + score);
      std::vector<uint32_t> chosen(10);
      std::vector<float> room(200);
      const Status status = method->Choose(d.scores(), room, chosen);
      ASSERT_FALSE(status.ok()) << score;
      EXPECT_EQ(status.error().code, Code::kBadFile);
    }
  }
}

TEST(GemFilter, ChoosesALayerThatSeesTheWholePrompt) {
  ModelConfig c;
  const auto layer = [&](const char* spec) { return Method(spec)->Layer(c); };
  for (const auto& [layers, want] : {std::pair{32u, 18u}, {40u, 23u}, {28u, 16u}, {1u, 0u}}) {
    c.layers = layers;
    c.window.assign(layers, 0);
    EXPECT_EQ(layer("gemfilter"), want) << layers;
    EXPECT_EQ(layer("gemfilter:layer=19"), 19u);
  }
  // Every sixth layer of 18, as Gemma 3 has them.
  c.layers = 18;
  c.window.assign(18, 512);
  for (const uint32_t l : {5u, 11u, 17u}) c.window[l] = 0;
  EXPECT_EQ(layer("gemfilter"), 11u);
  c.window.assign(18, 512);
  c.window[2] = 0;
  EXPECT_EQ(layer("gemfilter:layer=auto"), 2u);
}

TEST(GemFilter, RefusesWhatItCannotDo) {
  const std::pair<const char*, const char*> kCases[] = {
      {"gemfilter:keep=0", "keep=0 is outside"},
      {"gemfilter:layer=-1", "layer=-1 is outside"},
      {"gemfilter:layer=1.5", "layer=1.5 is no whole number"},
      {"gemfilter:layer=middle", "layer=middle is neither a number nor auto"},
      {"gemfilter:pool=4", "pool=4 has no middle"},
      {"gemfilter:keep=8,first=5,last=4", "first=5 and last=4 are more than keep=8"},
      {"gemfilter:score=sum", "score=sum is none of raw, softmax"},
      {"gemfliter", "'gemfliter' is no method"},
  };
  for (const auto& [spec, message] : kCases) {
    const auto method = ParseReduce(spec);
    ASSERT_FALSE(method.ok()) << spec;
    EXPECT_EQ(method.error().code, Code::kUsage);
    EXPECT_NE(method.error().message.find(message), std::string::npos) << method.error().message;
    EXPECT_NE(method.error().message.find("--reduce"), std::string::npos);
  }
}

}  // namespace
}  // namespace snug
