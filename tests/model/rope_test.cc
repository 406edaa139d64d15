#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace snug {
namespace {

std::vector<float> Angles(const RopeConfig& c, uint32_t pos, const float* divisors = nullptr) {
  const RopeTable table(c, divisors);
  std::vector<float> cs(c.dim);
  table.Fill(pos, cs.data());
  return cs;
}

TEST(Rope, PlainFrequenciesFollowThePaper) {
  RopeConfig c;
  c.dim = 64;
  const auto cs = Angles(c, 17);
  for (int i = 0; i < 32; ++i) {
    const double angle = 17 * std::pow(10000.0, -2.0 * i / 64);
    EXPECT_NEAR(cs[i], std::cos(angle), 2e-6);
    EXPECT_NEAR(cs[32 + i], std::sin(angle), 2e-6);
  }
}

TEST(Rope, LinearScalingStretchesPositions) {
  RopeConfig c;
  c.dim = 32;
  const auto plain = Angles(c, 5);
  c.scaling = RopeScaling::kLinear;
  c.factor = 4;
  const auto scaled = Angles(c, 20);
  for (int i = 0; i < 32; ++i) EXPECT_NEAR(plain[i], scaled[i], 1e-6);
}

TEST(Rope, DivisorsSlowEachFrequency) {
  RopeConfig c;
  c.dim = 8;
  const float divisors[] = {1, 2, 4, 8};
  const auto cs = Angles(c, 3, divisors);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(cs[i], std::cos(3 * std::pow(10000.0, -2.0 * i / 8) / divisors[i]), 1e-6);
  }
}

TEST(Rope, YarnKeepsFastAndInterpolatesSlowFrequencies) {
  RopeConfig c;
  c.dim = 64;
  c.scaling = RopeScaling::kYarn;
  c.factor = 4;
  c.original_context = 2048;
  const double magnitude = 0.1 * std::log(4.0) + 1;
  const auto cs = Angles(c, 9);
  EXPECT_NEAR(cs[0], magnitude * std::cos(9.0), 1e-5);        // turns hundreds of times: kept
  const double slow = 9 * std::pow(10000.0, -62.0 / 64) / 4;  // less than one turn: interpolated
  EXPECT_NEAR(cs[63], magnitude * std::sin(slow), 1e-5);
}

}  // namespace
}  // namespace snug
