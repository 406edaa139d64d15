#include "format/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "format/quant_fixture.h"

namespace snug {
namespace {

TEST(Half, EveryValueComesBack) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = HalfToFloat(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(f))));
    } else {
      EXPECT_EQ(FloatToHalf(f), h);
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), FloatToHalf(1.0f));          // a tie: to even
  EXPECT_EQ(FloatToHalf(1.0f + 3 * 0x1p-11f), FloatToHalf(1.0f) + 2);  // a tie: to even
  EXPECT_EQ(FloatToHalf(1.0f + 0x1.8p-11f), FloatToHalf(1.0f) + 1);
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0);
  EXPECT_EQ(FloatToHalf(0x1.1p-25f), 1);
}

TEST(BFloat, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(FloatToBFloat(1.0f + 0x1p-8f), FloatToBFloat(1.0f));
  EXPECT_EQ(FloatToBFloat(1.0f + 3 * 0x1p-8f), FloatToBFloat(1.0f) + 2);
  EXPECT_TRUE(std::isnan(BFloatToFloat(FloatToBFloat(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(DType, NamesAndSizes) {
  EXPECT_EQ(RowBytes(DType::kQ4_K, 512), 288u);
  EXPECT_EQ(RowBytes(DType::kQ6_K, 256), 210u);
  EXPECT_EQ(ParseDType("q8_0"), DType::kQ8_0);
  EXPECT_EQ(ParseDType("Q9"), std::nullopt);
  EXPECT_EQ(FindDType(99), nullptr);
}

TEST(Dequantize, EqualsTheIndependentImplementationBitForBit) {
  const testing::QuantFixture fixture;
  for (const DType type :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K,
        DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
        DType::kTQ1_0, DType::kTQ2_0, DType::kMXFP4}) {
    const std::vector<uint8_t> blocks = fixture.Blocks(type);
    const std::vector<float> want = fixture.Values(type);
    ASSERT_EQ(RowBytes(type, want.size()), blocks.size()) << Info(type).name;
    std::vector<float> got(want.size());
    Dequantize(type, blocks.data(), got.size(), got.data());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(std::memcmp(&got[i], &want[i], sizeof(float)), 0)
          << Info(type).name << " weight " << i << ": " << got[i] << " for " << want[i];
    }
  }
}

}  // namespace
}  // namespace snug
