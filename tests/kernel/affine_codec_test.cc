#include "kernel/affine_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "coded_sequence.h"
#include "format/dtype.h"

namespace snug {
namespace {

using testing::DenseTile;
using Floats = std::vector<float>;

TEST(AffineCodec, PacksAsByHand) {
  // Channel 0 of tokens 0 .. 3 is -1, 2, 0.4, -1, channels 1 and 4 are 0, 3, 6, 9.
  const size_t dim = 16;
  Floats keys(16 * dim);
  const float first[] = {-1, 2, 0.4f, -1}, second[] = {0, 3, 6, 9};
  for (size_t t = 0; t < 16; ++t) {
    keys[t * dim] = t < 4 ? first[t] : -1;
    keys[t * dim + 1] = keys[t * dim + 4] = t < 4 ? second[t] : 0;
  }
  const AffineCodec codec({dim, 16, 2, 2});
  std::vector<uint8_t> tile(codec.key_tile_bytes(), 0xff);
  codec.EncodeKeys(KvType::kF16, DenseTile(keys, dim, false).data(), {}, 0, 16, tile.data());
  // A token's four bytes have channels 0, 4, 8, 12; 1, 5, 9, 13; and so on.
  const uint8_t packed[4][2] = {{0, 0}, {3 | 1 << 2, 1}, {1 | 2 << 2, 2}, {0 | 3 << 2, 3}};
  const float expected[4][2] = {{-1, 0}, {2, 3}, {0, 6}, {-1, 9}};
  const float scores[] = {-2, 1, -6, -11};
  for (size_t t = 0; t < 4; ++t) {
    EXPECT_EQ(tile[4 * t], packed[t][0]);
    EXPECT_EQ(tile[4 * t + 1], packed[t][1]);
    float k[dim];
    codec.LoadKey(tile.data(), {}, t, k);
    EXPECT_EQ(k[0], expected[t][0]);
    EXPECT_EQ(k[1], expected[t][1]);
    EXPECT_EQ(k[4], expected[t][1]);
    EXPECT_EQ(2 * k[0] - k[1], scores[t]);
  }
}

TEST(AffineCodec, ErrorsAreWithinHalfAStep) {
  std::mt19937 rng(3);
  for (const size_t bits : {2, 4}) {
    for (const float offset : {0.0f, 300.0f, -60000.0f}) {
      for (const float spread : {1e-6f, 0.01f, 1.0f, 40.0f}) {
        std::normal_distribution<float> normal(offset, spread);
        float x[32];
        uint8_t codes[32];
        uint16_t scale, zero;
        for (float& v : x) v = HalfToFloat(FloatToHalf(normal(rng)));
        QuantizeAffine(x, 32, bits, codes, &scale, &zero);
        const float s = HalfToFloat(scale), z = HalfToFloat(zero);
        const float top = static_cast<float>((1 << bits) - 1);
        const float rounding = top * std::max(s / 2048, std::exp2(-25.0f));
        for (size_t i = 0; i < 32; ++i) {
          EXPECT_LE(codes[i], top);
          EXPECT_LE(std::abs(z + s * codes[i] - x[i]), s / 2 + rounding + std::abs(x[i]) * 1e-6f)
              << bits << " " << offset << " " << spread;
        }
      }
    }
  }
}

TEST(AffineCodec, ConstantGroupsAreExact) {
  for (const float value : {0.0f, -2.5f, 65504.0f}) {
    const Floats x(32, value);
    uint8_t codes[32];
    uint16_t scale, zero;
    QuantizeAffine(x.data(), 32, 2, codes, &scale, &zero);
    EXPECT_EQ(scale, 0);
    EXPECT_EQ(HalfToFloat(zero), value);
    for (const uint8_t c : codes) EXPECT_EQ(c, 0);
  }
}

TEST(AffineCodec, KeysByChannelAndValuesByToken) {
  // A channel (a token) of great magnitude costs the others nothing.
  const size_t dim = 32;
  Floats keys(kTileTokens * dim), values(kTileTokens * dim);
  for (size_t t = 0; t < kTileTokens; ++t) {
    for (size_t c = 0; c < dim; ++c) {
      keys[t * dim + c] = c == 5 ? 1000 : static_cast<float>(t % 4);
      values[t * dim + c] = t == 5 ? 1000 : static_cast<float>(c % 4);
    }
  }
  const AffineCodec codec({dim, 32, 2, 2});
  std::vector<uint8_t> k(codec.key_tile_bytes()), v(codec.value_tile_bytes());
  codec.EncodeKeys(KvType::kF16, DenseTile(keys, dim, false).data(), {}, 0, kTileTokens, k.data());
  codec.EncodeValues(KvType::kF16, DenseTile(values, dim, true).data(), 0, kTileTokens, v.data());
  Floats row(dim);
  for (size_t t = 0; t < kTileTokens; ++t) {
    codec.LoadKey(k.data(), {}, t, row.data());
    EXPECT_EQ(row, Floats(keys.begin() + t * dim, keys.begin() + (t + 1) * dim));
    codec.LoadValue(v.data(), t, row.data());
    EXPECT_EQ(row, Floats(values.begin() + t * dim, values.begin() + (t + 1) * dim));
  }
}

// Bytes of the layout of 32 tokens and channels: of 128 channels at 2 bits, 1536 of keys and 48 of
// each token's values.
TEST(AffineCodec, TakesTheBytesOfItsModel) {
  const AffineCodec two({128, 32, 2, 2}), four({128, 32, 4, 4});
  EXPECT_EQ(two.key_tile_bytes(), 2 * 1536u);
  EXPECT_EQ(two.value_tile_bytes(), 64 * 48u);
  EXPECT_EQ(four.key_tile_bytes(), 64 * 128 * 5 / 8u);
}

struct Shape {
  testing::HeadShape heads;
  AffineFormat format;
};

constexpr Shape kShapes[] = {
    {{6, 1, 64}, {64, 32, 2, 2}},    // six query heads, one pass
    {{4, 4, 128}, {128, 32, 2, 2}},  // a query head each
    {{7, 1, 48}, {48, 16, 4, 4}},    // two passes
    {{4, 2, 64}, {64, 64, 4, 2}},   {{2, 2, 256}, {256, 16, 2, 4}},
};
constexpr testing::Counts kCounts[] = {
    {130, 64, 1}, {300, 256, 200}, {577, 512, 512}, {65, 64, 0}, {400, 384, 271}};

TEST(AffineCodec, AttentionEqualsTheReferenceOverDecodedRows) {
  for (const Shape& s : kShapes) {
    testing::ExpectAttentionEqualsReference(s.heads, AffineCodec(s.format), kCounts,
                                            {.exact = true});
  }
}

// Integer products round queries and weights to 15 bits.
TEST(AffineCodec, IntegerProductsAreNearTheReference) {
  for (const Shape& s : kShapes) {
    testing::ExpectAttentionEqualsReference(s.heads, AffineCodec(s.format), kCounts,
                                            {.tolerance = 3e-4});
  }
}

TEST(AffineCodec, ATokenIsTheSameInStepsOfAnySize) {
  for (const Shape& s : kShapes) {
    testing::ExpectSameInStepsOfAnySize(s.heads, AffineCodec(s.format), {300, 256, 200});
  }
}

}  // namespace
}  // namespace snug
