#include "format/allocate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace snug {
namespace {

using Items = std::vector<std::vector<SizeChoice>>;

struct Sum {
  uint64_t bytes = 0;
  double cost = 0;
};
Sum SumOf(const Items& items, const std::vector<size_t>& chosen) {
  Sum s;
  for (size_t i = 0; i < items.size(); ++i) {
    s.bytes += items[i][chosen[i]].bytes;
    s.cost += items[i][chosen[i]].cost;
  }
  return s;
}

// The least cost of all combinations that fit.
double Best(const Items& items, uint64_t bytes) {
  std::vector<size_t> at(items.size(), 0);
  double best = INFINITY;
  for (;;) {
    const Sum s = SumOf(items, at);
    if (s.bytes <= bytes) best = std::min(best, s.cost);
    size_t i = 0;
    while (i < at.size() && ++at[i] == items[i].size()) at[i++] = 0;
    if (i == at.size()) return best;
  }
}

TEST(ChooseSizes, IsNearTheBestOfAllCombinations) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    Items items(5);
    uint64_t least = 0, most = 0;
    double step = 0;  // the largest gain of one item
    for (auto& choices : items) {
      uint64_t bytes = 10 + random() % 10;
      double cost = 50 + static_cast<double>(random() % 50);
      const double first = cost;
      least += bytes;
      for (int k = 0; k < 4; ++k) {
        choices.push_back({bytes, cost});
        bytes += 1 + random() % 20;
        cost *= 0.2 + 0.6 * static_cast<double>(random() % 100) / 100;
      }
      step = std::max(step, first - choices.back().cost);
      most += choices.back().bytes;
    }
    const uint64_t budget = least + random() % (most - least + 1);
    const Sum got = SumOf(items, ChooseSizes(items, budget));
    EXPECT_LE(got.bytes, budget);
    EXPECT_LE(got.cost, Best(items, budget) + step);
    EXPECT_EQ(SumOf(items, ChooseSizes(items, most)).cost, Best(items, most));
  }
}

TEST(ChooseSizes, TakesTheSmallestWhereNothingFits) {
  const Items items = {{{20, 1}, {10, 5}}, {{8, 2}}};
  EXPECT_EQ(ChooseSizes(items, 0), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(ChooseSizes(items, 27), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(ChooseSizes(items, 28), (std::vector<size_t>{0, 0}));
}

TEST(ChooseSizes, NeverTakesMoreBytesForNoGain) {
  const Items items = {{{10, 1}, {20, 1}, {30, 2}, {40, 0.5}, {40, 0.7}}};
  EXPECT_EQ(ChooseSizes(items, 35), (std::vector<size_t>{0}));
  EXPECT_EQ(ChooseSizes(items, 40), (std::vector<size_t>{3}));
  EXPECT_EQ(ChooseSizes({}, 5), std::vector<size_t>());
}

}  // namespace
}  // namespace snug
