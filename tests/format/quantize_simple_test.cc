// The one-pass encoders against an independent implementation's bytes.
#include "format/quantize_simple.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "format/quant_fixture.h"

namespace snug {
namespace {

constexpr DType kEncoded[] = {DType::kF16,   DType::kBF16, DType::kQ4_0, DType::kQ4_1,
                              DType::kQ5_0,  DType::kQ5_1, DType::kQ8_0, DType::kTQ1_0,
                              DType::kTQ2_0, DType::kMXFP4};

std::vector<uint8_t> Encode(DType type, const std::vector<float>& x) {
  EXPECT_TRUE(HasSimpleQuantizer(type)) << Info(type).name;
  std::vector<uint8_t> bytes(RowBytes(type, x.size()));
  QuantizeSimple(type, x.data(), x.size(), bytes.data());
  return bytes;
}

TEST(QuantizeSimple, EqualsTheIndependentEncoder) {
  const testing::QuantFixture fixture;
  const std::vector<float> x = fixture.Input();
  for (const DType type : kEncoded) {
    const std::vector<uint8_t> got = Encode(type, x), want = fixture.Encoded(type);
    ASSERT_EQ(got.size(), want.size()) << Info(type).name;
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i], want[i]) << Info(type).name << " block " << i / Info(type).bytes << " byte "
                                 << i % Info(type).bytes;
    }
  }
}

TEST(QuantizeSimple, ValuesThatATypeHoldsComeBack) {
  const std::vector<float> x = testing::QuantFixture().Input();
  for (const DType type : kEncoded) {
    const std::vector<uint8_t> once = Encode(type, x);
    std::vector<float> y(x.size());
    Dequantize(type, once.data(), y.size(), y.data());
    double error = 0, norm = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      error += std::pow(x[i] - y[i], 2);
      norm += std::pow(x[i], 2);
    }
    const bool ternary = type == DType::kTQ1_0 || type == DType::kTQ2_0;
    const double most = Info(type).block == 1 ? 0.01 : ternary ? 0.8 : 0.12;
    EXPECT_LT(std::sqrt(error / norm), most) << Info(type).name;
  }
}

// No independent encoder takes one pass: every weight has its nearest code instead.
TEST(QuantizeSimple, IQ4_NLTakesTheNearestCodes) {
  const std::vector<float> x = testing::QuantFixture().Input();
  std::vector<uint8_t> bytes = Encode(DType::kIQ4_NL, x);
  std::vector<float> y(x.size());
  Dequantize(DType::kIQ4_NL, bytes.data(), y.size(), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const uint8_t* block = bytes.data() + i / 32 * 18;
    const float d = HalfToFloat(static_cast<uint16_t>(block[0] | block[1] << 8));
    for (const int8_t code : kIq4Codes) {
      // The codes were chosen before the scale was rounded to 11 bits.
      ASSERT_LE(std::abs(x[i] - y[i]), std::abs(x[i] - d * code) + std::abs(d) * 0.13f) << i;
    }
  }
}

// What is not finite spoils its own blocks: those beside them are as without it.
TEST(QuantizeSimple, WhatIsNotFiniteStaysInItsBlocks) {
  std::vector<float> x(512, 1.0f);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[40] = std::numeric_limits<float>::infinity();
  x[70] = -std::numeric_limits<float>::infinity();
  x[100] = std::numeric_limits<float>::max();
  for (const DType type : kEncoded) {
    const std::vector<uint8_t> broken = Encode(type, x),
                               sound = Encode(type, std::vector(512, 1.0f));
    const auto half = static_cast<std::ptrdiff_t>(sound.size() / 2);
    EXPECT_TRUE(std::equal(sound.begin() + half, sound.end(), broken.begin() + half))
        << Info(type).name;
  }
}

}  // namespace
}  // namespace snug
