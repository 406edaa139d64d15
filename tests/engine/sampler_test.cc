#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "engine/stop.h"

namespace snug {
namespace {

std::vector<float> Logits(size_t n) {
  std::vector<float> l(n);
  for (size_t i = 0; i < n; ++i) l[i] = 3 * std::sin(static_cast<float>(i * i));
  return l;
}

// The probabilities that the options leave, by sorting everything.
std::map<Token, double> Expected(const std::vector<float>& logits, const SamplingOptions& o) {
  std::vector<std::pair<double, Token>> items;
  for (size_t i = 0; i < logits.size(); ++i) items.push_back({-logits[i], static_cast<Token>(i)});
  std::sort(items.begin(), items.end());
  if (o.top_k > 0 && items.size() > static_cast<size_t>(o.top_k))
    items.resize(static_cast<size_t>(o.top_k));
  double total = 0, sum = 0;
  for (auto& [l, t] : items) total += std::exp(-l);
  size_t keep = 0;
  while (keep < items.size() && (keep == 0 || o.top_p >= 1 || sum < o.top_p * total))
    sum += std::exp(-items[keep++].first);
  items.resize(keep);
  while (items.size() > 1 && std::exp(-items.back().first) < o.min_p * std::exp(-items[0].first))
    items.pop_back();
  std::map<Token, double> p;
  total = 0;
  for (auto& [l, t] : items) total += p[t] = std::exp(-l / o.temperature);
  for (auto& [t, v] : p) v /= total;
  return p;
}

TEST(Sampler, DrawsFromTheDistributionOfItsFilters) {
  const auto logits = Logits(50);
  for (SamplingOptions o : {SamplingOptions{1.0f, 0, 1.0f, 0.0f},
                            {0.7f, 8, 1.0f, 0.0f},
                            {1.3f, 0, 0.6f, 0.0f},
                            {1.0f, 0, 1.0f, 0.2f},
                            {0.9f, 20, 0.8f, 0.05f}}) {
    o.seed = 11;
    const auto expected = Expected(logits, o);
    Sampler sampler(o, logits.size());
    std::map<Token, int> seen;
    constexpr int kDraws = 20000;
    for (int i = 0; i < kDraws; ++i) ++seen[sampler.Sample(logits)];
    double chi = 0;
    for (const auto& [t, n] : seen) ASSERT_TRUE(expected.count(t)) << t;
    for (const auto& [t, p] : expected) chi += std::pow(seen[t] - p * kDraws, 2) / (p * kDraws);
    // Far in the tail of chi-square for these degrees of freedom.
    EXPECT_LT(chi, static_cast<double>(expected.size()) +
                       6 * std::sqrt(2.0 * static_cast<double>(expected.size())) + 6);
  }
}

TEST(Sampler, GreedyTakesTheFirstOfEquals) {
  SamplingOptions o;
  o.temperature = 0;
  Sampler sampler(o, 5);
  EXPECT_EQ(sampler.Sample(std::vector<float>{1, 7, 7, -INFINITY, 2}), 1);
  EXPECT_EQ(sampler.NeedsTop(), 1u);
}

TEST(Sampler, ASeedIsRepeatableAndIgnoresRowsBelowTheTop) {
  const auto logits = Logits(300);
  SamplingOptions o;
  o.seed = 5;
  Sampler a(o, 300), b(o, 300);
  // b sees only the rows that it says it needs.
  auto masked = logits;
  auto sorted = logits;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  ASSERT_EQ(b.NeedsTop(), 40u);
  for (float& l : masked) l = l >= sorted[39] ? l : -INFINITY;
  for (int i = 0; i < 500; ++i) EXPECT_EQ(a.Sample(logits), b.Sample(masked));
}

TEST(Sampler, PenaltyAppliesToRecentTokensOnly) {
  SamplingOptions o;
  o.temperature = 0;
  o.repeat_penalty = 2;
  o.repeat_last = 2;
  Sampler sampler(o, 3);
  const std::vector<float> logits = {3, 2, -1};
  EXPECT_EQ(sampler.Sample(logits), 0);
  sampler.Accept(0);
  EXPECT_EQ(sampler.Sample(logits), 1);  // 1.5 against 2
  sampler.Accept(1);
  EXPECT_EQ(sampler.Sample(logits), 0);  // 1.5 against 1
  sampler.Accept(2);
  EXPECT_EQ(sampler.Sample(logits), 0);  // the first 0 is no longer recent
}

TEST(Sampler, OptionsOutsideTheirRangeAreNamed) {
  for (SamplingOptions o : {SamplingOptions{-1.0f},
                            {NAN},
                            {1, -1},
                            {1, 0, 0.0f},
                            {1, 0, 1.5f},
                            {1, 0, 1, -0.1f},
                            {1, 0, 1, 0, 0.0f},
                            {1, 0, 1, 0, 1, 999}}) {
    EXPECT_FALSE(o.Validate().ok());
  }
  EXPECT_TRUE(SamplingOptions{}.Validate().ok());
}

TEST(StopMatcher, FindsStringsAcrossPieces) {
  for (size_t i = 0; i < 12; ++i) {
    const std::string text = "one END two ";
    StopMatcher stop({"END", "two"});
    std::string out;
    bool hit = stop.Push(text.substr(0, i), &out);
    hit = hit || stop.Push(text.substr(i), &out);
    EXPECT_TRUE(hit);
    EXPECT_EQ(out, "one ");
  }
  StopMatcher none({"zzz"});
  std::string out;
  EXPECT_FALSE(none.Push("fizz", &out));
  EXPECT_EQ(out, "fi");
  none.Finish(&out);
  EXPECT_EQ(out, "fizz");
}

// A damaged model's logits: any bits.
TEST(Sampler, LogitsThatAreNoNumbersAreSurvived) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float temperature : {0.0f, 1.0f}) {
    for (const float penalty : {1.0f, 1.3f}) {
      SamplingOptions o;
      o.temperature = temperature;
      o.repeat_penalty = penalty;
      Sampler sampler(o, 1000);
      for (const float odd : {nan, -nan, infinity, -infinity}) {
        std::vector<float> logits(1000, odd);
        const Token all_odd = sampler.Sample(logits);
        EXPECT_GE(all_odd, 0);
        EXPECT_LT(all_odd, 1000);
        sampler.Accept(all_odd);
        for (size_t i = 0; i < logits.size(); i += 3) logits[i] = std::sin(static_cast<float>(i));
        const Token some_odd = sampler.Sample(logits);
        EXPECT_GE(some_odd, 0);
        EXPECT_LT(some_odd, 1000);
      }
    }
  }
}

}  // namespace
}  // namespace snug
