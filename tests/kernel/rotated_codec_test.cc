#include "kernel/rotated_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bitset>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "coded_sequence.h"

namespace snug {
namespace {

using testing::HeadShape;
using Floats = std::vector<float>;

constexpr float kBase = 10000;

// Rotary tables for so many tiles, and an order of channels.
struct Basis {
  Basis(size_t width, size_t pairs, bool interleaved, uint32_t tiles)
      : slots(2 * pairs * kTileTokens), bases(2 * pairs * tiles), places(width) {
    const auto angle = [&](size_t i, size_t p) {
      return static_cast<double>(p) *
             std::pow(double{kBase}, -static_cast<double>(i) / static_cast<double>(pairs));
    };
    for (size_t i = 0; i < pairs; ++i) {
      for (size_t t = 0; t < kTileTokens; ++t) {
        slots[i * kTileTokens + t] = static_cast<float>(std::cos(angle(i, t)));
        slots[(pairs + i) * kTileTokens + t] = static_cast<float>(std::sin(angle(i, t)));
      }
      for (uint32_t t = 0; t < tiles; ++t) {
        bases[2 * t * pairs + i] = static_cast<float>(std::cos(angle(i, t * kTileTokens)));
        bases[(2 * t + 1) * pairs + i] = static_cast<float>(std::sin(angle(i, t * kTileTokens)));
      }
    }
    std::iota(places.begin(), places.end(), uint16_t{0});
    std::shuffle(places.begin(), places.end(), std::mt19937(5));
    basis = {{pairs, interleaved, slots.data(), bases.data()}, places.data()};
  }
  Floats slots, bases;
  std::vector<uint16_t> places;
  RotatedBasis basis;
};

TEST(RotatedCodec, TheTransformIsSylvestersAndItsOwnInverse) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    Floats four = {1, 2, 3, 4};
    Hadamard(4, four.data());
    // Over sqrt(4): 5, -1, -2, 0.
    EXPECT_EQ(four, (Floats{5, -1, -2, 0}));
    Hadamard(4, four.data());
    EXPECT_EQ(four, (Floats{1, 2, 3, 4}));
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    for (size_t n = 1; n <= 512; n *= 2) {
      Floats x(n), y;
      for (float& v : x) v = normal(rng);
      y = x;
      Hadamard(n, y.data());
      for (size_t i = 0; i < n; ++i) {
        double sum = 0;
        for (size_t j = 0; j < n; ++j) {
          sum += (std::bitset<16>(i & j).count() % 2 != 0 ? -1.0 : 1.0) * x[j];
        }
        ASSERT_NEAR(y[i], sum / std::sqrt(static_cast<double>(n)), 1e-5) << n << " " << i;
      }
      Hadamard(n, y.data());
      for (size_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i], 1e-5);
    }
  }
  UseTarget(0);
}

TEST(RotatedCodec, AnOutlierIsSpreadAndTheNormStays) {
  Floats x(256);
  x[37] = 8;
  Hadamard(x.size(), x.data());
  for (const float v : x) EXPECT_NEAR(std::abs(v), 0.5, 1e-6);
}

struct Group {
  std::vector<uint8_t> codes;
  Floats values;
};
Group Quantized(const Floats& x, float clip, bool centre, size_t bits = 2) {
  const RotatedFormat f{0, 0, 1, 0, 0, bits, clip, centre};
  Group g{std::vector<uint8_t>(x.size()), {}};
  uint16_t scale, offset;
  QuantizeClipped(f, x.data(), x.size(), g.codes.data(), &scale, &offset);
  for (const uint8_t c : g.codes) g.values.push_back(HalfToFloat(scale) * c + HalfToFloat(offset));
  return g;
}
void ExpectGroup(const Group& g, const std::vector<uint8_t>& codes, const Floats& values) {
  EXPECT_EQ(g.codes, codes);
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(g.values[i], values[i], 3e-3) << i;
}

TEST(RotatedCodec, QuantizesAsByHand) {
  const Floats x = {-1, 0, 1, 2}, offset = {4.1f, 4.6f, 5.5f, 6};
  ExpectGroup(Quantized(x, 1, false), {0, 1, 2, 3}, x);
  ExpectGroup(Quantized(x, .8f, false), {0, 1, 2, 3}, {-.8f, 0, .8f, 1.6f});
  ExpectGroup(Quantized(offset, 1, false), {0, 1, 3, 3}, {3.8f, 4.433f, 5.7f, 5.7f});
  // Toward zero, a group on one side of it loses its far end.
  ExpectGroup(Quantized(offset, .8f, false), {2, 3, 3, 3}, {4.053f, 4.56f, 4.56f, 4.56f});
  // Toward the middle: 4.29 .. 5.81, s = 0.50667, zero = -8.
  ExpectGroup(Quantized(offset, .8f, true), {0, 1, 3, 3}, {4.053f, 4.56f, 5.573f, 5.573f});
  // No range.
  ExpectGroup(Quantized({7, 7}, 1, false), {0, 0}, {7, 7});
  ExpectGroup(Quantized({0, 0}, .8f, false), {0, 0}, {0, 0});
}

TEST(RotatedCodec, WithoutClippingNothingIsOffByMoreThanHalfAStep) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  for (const size_t bits : {2, 4}) {
    for (int n = 0; n < 50; ++n) {
      Floats x(64);
      const float mean = 3 * normal(rng);
      for (float& v : x) v = mean + normal(rng);
      const Group g = Quantized(x, 1, n % 2 == 0, bits);
      const auto [min, max] = std::minmax_element(x.begin(), x.end());
      const double half = (*max - *min) / static_cast<double>((1 << bits) - 1) / 2;
      for (size_t i = 0; i < x.size(); ++i) {
        // Scale and offset are f16.
        EXPECT_NEAR(g.values[i], x[i], half * (1 + 1e-2) + 5e-3) << bits;
      }
    }
  }
}

TEST(RotatedCodec, TakesTheBytesOfItsModel) {
  // 2 bits an element, and 32 of each group of 128.
  const RotatedCodec codec({128, 2, 2, 128, 128, 2, .8f, false}, {});
  EXPECT_EQ(codec.key_bytes(2), 64 * 256 * 2 / 8u + 64 * 2 * 4u);
  EXPECT_EQ(2 * codec.value_tile_bytes(), codec.key_bytes(2));
}

struct Shape {
  HeadShape heads;
  size_t transform, key_group, value_group, bits, pairs;
  bool interleaved = false;
};
constexpr Shape kShapes[] = {
    {{6, 1, 64}, 1, 64, 64, 2, 32},        // six query heads, one pass
    {{4, 4, 32}, 4, 128, 32, 4, 16},       // a transform of four heads
    {{14, 2, 16}, 2, 16, 16, 4, 8, true},  // two passes, pairs of neighbours
    {{8, 4, 16}, 2, 32, 16, 2, 4},         // part of a head is rotated
    {{2, 2, 256}, 1, 128, 128, 2, 0},      // keys without positions
    {{3, 3, 128}, 1, 128, 64, 2, 64},
};
constexpr testing::Counts kCounts[] = {
    {130, 64, 64}, {300, 299, 299}, {577, 512, 512}, {65, 25, 25}, {400, 333, 333}};
constexpr uint32_t kTiles = 10;

struct Case {
  explicit Case(const Shape& s)
      : format{s.heads.dim,   s.heads.kv_heads, s.transform, s.key_group,
               s.value_group, s.bits,           1,           false},
        tables(format.width(), s.pairs, s.interleaved, kTiles),
        codec(format, tables.basis) {}
  const RotatedFormat format;
  const Basis tables;
  const RotatedCodec codec;
};

TEST(RotatedCodec, AttentionEqualsTheReferenceOverDecodedRows) {
  for (const Shape& s : kShapes) {
    const Case c(s);
    testing::ExpectAttentionEqualsReference(s.heads, c.codec, kCounts);
    testing::ExpectAttentionEqualsReference(s.heads, c.codec, kCounts, {}, {0, 3, 17, 63, 64, 130});
  }
}

TEST(RotatedCodec, ATokenIsTheSameInStepsOfAnySize) {
  for (const Shape& s : kShapes) {
    const Case c(s);
    testing::ExpectSameInStepsOfAnySize(s.heads, c.codec, {300, 250, 250}, {1, 70});
  }
}

// Decoded keys are the stored ones, but for what few bits lose: rotary embedding, transform and
// order are undone.
TEST(RotatedCodec, DecodedRowsAreNearTheStoredOnes) {
  std::mt19937 rng(8);
  std::normal_distribution<float> normal;
  for (const Shape& s : kShapes) {
    const Case c(s);
    const size_t key = KvTileBytes(KvType::kF16, s.heads.dim);
    std::vector<uint8_t> dense(s.heads.kv_heads * key);
    std::vector<uint8_t> tile(c.codec.key_tile_bytes()), values(c.codec.value_tile_bytes());
    std::vector<Floats> rows;
    for (uint32_t h = 0; h < s.heads.kv_heads; ++h) {
      rows.emplace_back(s.heads.dim);
      for (float& v : rows[h]) v = normal(rng);
      StoreKey(KvType::kF16, rows[h].data(), s.heads.dim, 9, dense.data() + h * key);
    }
    c.codec.EncodeKeys(KvType::kF16, dense.data(), {0, 7}, 9, 1, tile.data());
    double lost = 0, all = 0;
    Floats row(s.heads.dim);
    for (uint32_t h = 0; h < s.heads.kv_heads; ++h) {
      c.codec.LoadKey(tile.data(), {h, 7}, 9, row.data());
      for (size_t i = 0; i < row.size(); ++i) {
        lost += std::pow(row[i] - rows[h][i], 2);
        all += std::pow(rows[h][i], 2);
      }
    }
    EXPECT_LT(lost, (s.bits == 2 ? 0.4 : 0.02) * all) << s.heads.dim;
    // A value's neighbours are not touched.
    StoreValue(KvType::kF16, rows[0].data(), s.heads.dim, 9, dense.data());
    c.codec.EncodeValues(KvType::kF16, dense.data(), 9, 1, values.data());
    c.codec.LoadValue(values.data(), 9, row.data());
    lost = all = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      lost += std::pow(row[i] - rows[0][i], 2);
      all += std::pow(rows[0][i], 2);
    }
    EXPECT_LT(lost, (s.bits == 2 ? 0.4 : 0.02) * all) << s.heads.dim;
    c.codec.LoadValue(values.data(), 8, row.data());
    EXPECT_EQ(row, Floats(s.heads.dim, 0.0f));
  }
}

// What is coded of a key is its transform before rotary embedding.
TEST(RotatedCodec, KeysAreCodedAsBeforeTheirRotation) {
  const Shape s = kShapes[1];
  const Case c(s);
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  const uint32_t token = 3 * 64 + 21;
  Floats keys(c.format.width()), rotated, expected;
  for (float& v : keys) v = normal(rng);
  expected = rotated = keys;
  const size_t d = s.heads.dim;
  for (size_t h = 0; h < s.heads.kv_heads; ++h) {
    for (size_t i = 0; i < s.pairs; ++i) {
      const double angle = token * std::pow(double{kBase}, -static_cast<double>(i) / s.pairs);
      const double a = keys[h * d + i], b = keys[h * d + i + s.pairs];
      rotated[h * d + i] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
      rotated[h * d + i + s.pairs] = static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
    }
  }
  for (size_t i = 0; i < keys.size(); i += 4 * d) Hadamard(4 * d, expected.data() + i);
  TransformKeys(c.format, c.tables.basis.rotary, token, rotated.data());
  for (size_t i = 0; i < keys.size(); ++i) EXPECT_NEAR(rotated[i], expected[i], 2e-5) << i;
}

// With every row exact the output is the dense one.
TEST(RotatedCodec, ExactRowsGiveTheDenseOutput) {
  const HeadShape s = kShapes[1].heads;
  const Case c(kShapes[1]);
  std::vector<uint32_t> all(64);
  std::iota(all.begin(), all.end(), 0u);
  const testing::CodedSequence rows(s, c.codec, {70, 64, 64}, all);
  Floats out(size_t{s.heads} * s.dim), expected(out.size());
  AttentionArgs a = rows.Args(1, out.data());
  testing::CodedSequence::Run(a);
  a.coded = {};
  a.exact = true;  // float32 products, as the codec's
  a.out = expected.data();
  testing::CodedSequence::Run(a);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], expected[i], 1e-5);
}

}  // namespace
}  // namespace snug
