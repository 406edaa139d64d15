#include "model/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace snug {
namespace {

using Score = RouterConfig::Score;

// Scores of all experts, the order of scores plus corrections, then the weights.
void Check(const RouterConfig& c, const std::vector<float>& logits,
           const std::vector<float>& correction) {
  std::vector<double> score(logits.begin(), logits.end());
  double sum = 0;
  for (double z : score) sum += std::exp(z);
  for (double& z : score)
    z = c.score == Score::kSigmoid ? 1 / (1 + std::exp(-z)) : std::exp(z) / sum;
  std::vector<uint32_t> order(c.experts);
  std::iota(order.begin(), order.end(), 0);
  auto key = [&](uint32_t e) { return score[e] + (correction.empty() ? 0 : correction[e]); };
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return key(a) > key(b); });
  double chosen = 0;
  for (uint32_t r = 0; r < c.used; ++r) chosen += score[order[r]];
  std::vector<uint32_t> experts(c.used);
  std::vector<float> weights(c.used);
  Route(c, logits.data(), correction.empty() ? nullptr : correction.data(), experts.data(),
        weights.data());
  for (uint32_t r = 0; r < c.used; ++r) {
    EXPECT_EQ(experts[r], order[r]);
    EXPECT_NEAR(weights[r], c.scale * score[order[r]] / (c.normalize ? chosen : 1), 1e-5);
  }
}

TEST(Router, EveryVariantEqualsSortingAllScores) {
  std::mt19937 rng(5);
  std::normal_distribution<float> normal(0, 2);
  for (uint32_t experts : {1u, 2u, 7u, 64u, 128u}) {
    for (uint32_t used : {1u, 2u, 5u, experts}) {
      if (used > experts) continue;
      for (const Score score : {Score::kSoftmax, Score::kSigmoid}) {
        for (const bool normalize : {false, true}) {
          for (const bool corrected : {false, true}) {
            std::vector<float> logits(experts), correction(corrected ? experts : 0);
            for (float& v : logits) v = normal(rng);
            for (float& v : correction) v = 0.1f * normal(rng);
            Check({experts, used, score, normalize, 2.5f}, logits, correction);
          }
        }
      }
    }
  }
}

TEST(Router, EqualScoresGoToTheFirst) {
  const std::vector<float> logits(6, 1.0f);
  uint32_t experts[3];
  float weights[3];
  Route({6, 3, Score::kSoftmax, true, 1}, logits.data(), nullptr, experts, weights);
  for (uint32_t r = 0; r < 3; ++r) {
    EXPECT_EQ(experts[r], r);
    EXPECT_NEAR(weights[r], 1.0f / 3, 1e-6);
  }
}

// Damaged weights may give anything; what is chosen are still experts, each once.
TEST(Router, NotANumberStaysWithinTheExperts) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    for (size_t at = 0; at <= 4; ++at) {
      std::vector<float> logits = {0.5f, -1, 2, 0};
      at == 4 ? logits.assign(4, bad) : void(logits[at] = bad);
      uint32_t experts[3];
      float weights[3];
      Route({4, 3, Score::kSoftmax, true, 1}, logits.data(), nullptr, experts, weights);
      std::sort(experts, experts + 3);
      EXPECT_LT(experts[2], 4u);
      EXPECT_EQ(std::unique(experts, experts + 3), experts + 3);
    }
  }
}

}  // namespace
}  // namespace snug
