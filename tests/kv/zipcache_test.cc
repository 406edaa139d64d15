// Which rows zipcache codes in more bits, which queries are probes, and what is held of segments.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kv/codec/codec.h"
#include "kv/coded_segments.h"

namespace snug {
namespace {

std::vector<uint32_t> OrderOf(const char* spec, uint32_t head, const std::vector<float>& sums,
                              uint32_t heads, const std::vector<uint32_t>& probes) {
  const auto codec = ParseCodec(spec);
  EXPECT_TRUE(codec.ok()) << spec;
  const auto rows = static_cast<uint32_t>(probes.size());
  std::vector<float> room(rows);
  std::vector<uint32_t> order(rows);
  (*codec)->Order({heads, rows, sums.data(), rows, probes.data()}, head, room, order);
  return order;
}

// Causal attention [[1, 0, 0], [.6, .4, 0], [.2, .3, .5]] of three tokens that are all probes.
TEST(ZipCache, SaliencyIsNormalizedByTheProbesThatSeeAToken) {
  const std::vector<float> sums = {1.8f, 0.7f, 0.5f};
  using Order = std::vector<uint32_t>;
  EXPECT_EQ(OrderOf("zipcache:ratio=1/3", 0, sums, 1, {3, 2, 1}), (Order{1, 0, 2}));
  EXPECT_EQ(OrderOf("zipcache:ratio=2/3", 0, sums, 1, {3, 2, 1}), (Order{1, 2, 0}));
  // Plain sums would take the last one.
  EXPECT_EQ(OrderOf("zipcache:ratio=1/3", 0, sums, 1, {1, 1, 1}), (Order{2, 0, 1}));
  // One class of two has no rows.
  EXPECT_EQ(OrderOf("zipcache:ratio=0", 0, sums, 1, {3, 2, 1}), (Order{0, 1, 2}));
  EXPECT_EQ(OrderOf("zipcache:ratio=1", 0, sums, 1, {3, 2, 1}), (Order{0, 1, 2}));
  // The rows that are attended to most stay exact, behind the others.
  EXPECT_EQ(OrderOf("zipcache:ratio=1/3,exact=1/3", 0, sums, 1, {3, 2, 1}), (Order{1, 2, 0}));
  // Of equal ones the first.
  EXPECT_EQ(OrderOf("zipcache:ratio=1/3", 0, {1, 1, 1}, 1, {1, 1, 1}), (Order{0, 1, 2}));
}

TEST(ZipCache, HeadsChooseForThemselvesOrTogether) {
  const std::vector<float> sums = {1, 5, 9, /* head 1 */ 20, 7, 1};
  using Order = std::vector<uint32_t>;
  EXPECT_EQ(OrderOf("zipcache:ratio=1/3", 0, sums, 2, {1, 1, 1}), (Order{0, 1, 2}));
  EXPECT_EQ(OrderOf("zipcache:ratio=1/3", 1, sums, 2, {1, 1, 1}), (Order{2, 0, 1}));
  for (const uint32_t head : {0u, 1u}) {
    const auto order = OrderOf("zipcache:ratio=1/3,selection=shared", head, sums, 2, {1, 1, 1});
    EXPECT_EQ(order, (Order{2, 0, 1})) << head;  // 21, 12, 10
  }
}

TEST(Probes, LastTokensAndASampleOfThoseBefore) {
  for (const uint32_t tokens : {1u, 2u, 19u, 20u, 100u, 2048u, 30001u}) {
    std::vector<uint32_t> chosen, again, other;
    ChooseProbes({0.05, 0.05, 0, 100}, tokens, &chosen);
    const uint32_t share = tokens / 20, last = std::max(1u, share);
    ASSERT_EQ(chosen.size(), last + std::min(share, tokens - last)) << tokens;
    EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
    EXPECT_EQ(std::adjacent_find(chosen.begin(), chosen.end()), chosen.end());
    for (uint32_t i = 0; i < last; ++i) {
      EXPECT_EQ(chosen[chosen.size() - 1 - i], tokens - 1 - i);
    }
    ChooseProbes({0.05, 0.05, 0, 100}, tokens, &again);
    EXPECT_EQ(again, chosen);
    ChooseProbes({0.05, 0.05, 1, 100}, tokens, &other);
    EXPECT_EQ(other == chosen, share == 0) << tokens;
  }
  // The sample favours no part: its mean is near that of all.
  std::vector<uint32_t> chosen;
  ChooseProbes({0.05, 0.05, 0, 100}, 100000, &chosen);
  const double sum = std::accumulate(chosen.begin(), chosen.begin() + 5000, 0.0);
  EXPECT_NEAR(sum / 5000, 95000 / 2.0, 5 * 95000 / std::sqrt(12.0 * 5000));
  // All of them, or the last alone.
  ChooseProbes({1, 1, 0, 100}, 7, &chosen);
  EXPECT_EQ(chosen.size(), 7u);
  ChooseProbes({0, 0, 0, 100}, 7, &chosen);
  EXPECT_EQ(chosen, std::vector<uint32_t>{6});
}

}  // namespace
}  // namespace snug
