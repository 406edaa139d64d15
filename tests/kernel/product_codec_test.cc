#include "kernel/product_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "coded_sequence.h"
#include "format/dtype.h"
#include "kernel/targets.h"

namespace snug {
namespace {

using testing::DenseTile;
using testing::HeadShape;
using Floats = std::vector<float>;

constexpr float kFar = 1000;  // where centroids lie that nothing is near to

// Random books of f16 values, spread as the keys of a CodedSequence are.
struct Books {
  Books(size_t dim, size_t dims) : keys(dim * kCentroids), values(dim * kCentroids) {
    std::mt19937 rng(static_cast<uint32_t>(dim + dims));
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool large = i / (kCentroids * dims) == 3 / dims && i % dims == 3 % dims;
      keys[i] = HalfToFloat(FloatToHalf(normal(rng) + (large ? 9.0f : 0.0f)));
      values[i] = HalfToFloat(FloatToHalf(normal(rng)));
    }
  }
  ProductBooks get() const { return {keys.data(), values.data()}; }
  Floats keys, values;
};

// Two sub-spaces of two channels with two centroids each (the others far away), in heads of 16.
TEST(ProductCodec, ScoresAsByHand) {
  const size_t dim = 16;
  Floats book(dim * kCentroids, kFar), zeros(dim * kCentroids, 0.0f);
  const auto put = [&](size_t m, size_t j, float a, float b) {
    book[(m * kCentroids + j) * 2] = a;
    book[(m * kCentroids + j) * 2 + 1] = b;
  };
  put(0, 0, 0, 0);
  put(0, 1, 1, 2);
  put(1, 0, 1, 0);
  put(1, 1, 0, 3);
  for (size_t m = 2; m < dim / 2; ++m) put(m, 0, 0, 0);
  Floats keys(dim);
  const float key[] = {.9f, 2.2f, .2f, 2.5f};
  std::copy(std::begin(key), std::end(key), keys.begin());
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    const ProductCodec codec({dim, 2}, {book.data(), zeros.data()});
    std::vector<uint8_t> tile(codec.key_tile_bytes());
    codec.EncodeKeys(KvType::kF16, DenseTile(keys, dim, false).data(), {}, 0, kTileTokens,
                     tile.data());
    EXPECT_EQ(tile[0], 1);
    EXPECT_EQ(tile[kTileTokens], 1);
    // The other tokens are zeros: (0, 0), and (1, 0), which is nearer than (0, 3).
    EXPECT_EQ(tile[1], 0);
    EXPECT_EQ(tile[kTileTokens + 1], 0);
    Floats row(dim);
    codec.LoadKey(tile.data(), {}, 0, row.data());
    EXPECT_EQ(Floats(row.begin(), row.begin() + 4), (Floats{1, 2, 0, 3}));
    // Lut of q = (1, -1, 2, 1) is [(0, -1), (2, 3)].
    const float q[] = {1, -1, 2, 1};
    float score = 0;
    for (size_t c = 0; c < 4; ++c) score += q[c] * row[c];
    EXPECT_EQ(score / 2, 1);
  }
  UseTarget(0);
}

TEST(ProductCodec, FindsTheNearestAndOfEqualsTheFirst) {
  std::mt19937 rng(4);
  std::normal_distribution<float> normal;
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const size_t dims : {2, 4}) {
      const size_t n = 3 * kPointBlock, stride = n + 5;
      Floats centroids(kCentroids * dims), points(dims * stride), distances(n);
      for (float& c : centroids) c = normal(rng);
      for (float& x : points) x = normal(rng);
      // The last centroids are the first ones again.
      std::copy_n(centroids.begin(), 8 * dims, centroids.end() - static_cast<ptrdiff_t>(8 * dims));
      std::vector<uint8_t> codes(n);
      NearestCentroids(centroids.data(), dims, points.data(), stride, n, codes.data(),
                       distances.data());
      for (size_t i = 0; i < n; ++i) {
        double best = std::numeric_limits<double>::infinity(), mine = 0;
        for (size_t j = 0; j < kCentroids; ++j) {
          double sum = 0;
          for (size_t c = 0; c < dims; ++c) {
            sum += std::pow(double{points[c * stride + i]} - centroids[j * dims + c], 2);
          }
          best = std::min(best, sum);
          if (j == codes[i]) mine = sum;
        }
        ASSERT_NEAR(mine, best, 1e-6);
        ASSERT_NEAR(distances[i], best, 1e-6);
        EXPECT_LT(codes[i], kCentroids - 8);
      }
    }
  }
  UseTarget(0);
}

TEST(ProductCodec, EncodingIsIdempotent) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const size_t dims : {2, 4}) {
      const size_t dim = 32;
      const Books books(dim, dims);
      const ProductCodec codec({dim, dims}, books.get());
      std::vector<uint8_t> codes(codec.key_tile_bytes()), k(codes.size()), v(codes.size());
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 % 251);
      Floats keys(kTileTokens * dim), values(keys.size());
      for (size_t t = 0; t < kTileTokens; ++t) {
        codec.LoadKey(codes.data(), {}, t, keys.data() + t * dim);
        codec.LoadValue(codes.data(), t, values.data() + t * dim);
      }
      codec.EncodeKeys(KvType::kF16, DenseTile(keys, dim, false).data(), {}, 0, kTileTokens,
                       k.data());
      codec.EncodeValues(KvType::kF16, DenseTile(values, dim, true).data(), 0, kTileTokens,
                         v.data());
      EXPECT_EQ(k, codes);
      EXPECT_EQ(v, codes);
    }
  }
  UseTarget(0);
}

TEST(ProductCodec, TakesTheBytesOfItsModel) {
  // 4 bits and 2 bits an element.
  EXPECT_EQ(ProductCodec({128, 2}, {}).key_tile_bytes(), 64 * 128 * 4 / 8u);
  EXPECT_EQ(ProductCodec({128, 4}, {}).value_tile_bytes(), 64 * 128 * 2 / 8u);
}

struct Shape {
  HeadShape heads;
  size_t dims;
};
constexpr Shape kShapes[] = {
    {{6, 1, 64}, 2},   // six query heads, one pass
    {{4, 4, 128}, 2},  // a query head each
    {{7, 1, 48}, 4},   // two passes
    {{4, 2, 16}, 4},  {{2, 2, 256}, 2},
};
constexpr testing::Counts kCounts[] = {
    {130, 64, 64}, {300, 256, 256}, {577, 512, 512}, {65, 64, 64}, {400, 320, 320}};

// Which is that the sums are those of products of queries with decoded keys.
TEST(ProductCodec, AttentionEqualsTheReferenceOverDecodedRows) {
  for (const Shape& s : kShapes) {
    const Books books(s.heads.dim, s.dims);
    testing::ExpectAttentionEqualsReference(
        s.heads, ProductCodec({s.heads.dim, s.dims}, books.get()), kCounts);
  }
}

TEST(ProductCodec, ATokenIsTheSameInStepsOfAnySize) {
  for (const Shape& s : kShapes) {
    const Books books(s.heads.dim, s.dims);
    testing::ExpectSameInStepsOfAnySize(s.heads, ProductCodec({s.heads.dim, s.dims}, books.get()),
                                        {300, 256, 256});
  }
}

// Where every row is made of centroids, nothing is lost.
TEST(ProductCodec, RowsThatAreCentroidsGiveTheDenseOutput) {
  const HeadShape s{6, 2, 32};
  for (const size_t dims : {2, 4}) {
    const Books books(s.dim, dims);
    const ProductCodec codec({s.dim, dims}, books.get());
    const size_t key = KvTileBytes(KvType::kF16, s.dim), coded = codec.key_tile_bytes();
    std::vector<uint8_t> dense(2 * s.kv_heads * key), tiles(2 * s.kv_heads * coded);
    for (size_t i = 0; i < tiles.size(); ++i) tiles[i] = static_cast<uint8_t>(i * 73 % 256);
    Floats row(s.dim);
    for (uint32_t h = 0; h < s.kv_heads; ++h) {
      for (size_t t = 0; t < kTileTokens; ++t) {
        codec.LoadKey(tiles.data() + h * coded, {}, t, row.data());
        StoreKey(KvType::kF16, row.data(), s.dim, t, dense.data() + h * key);
        codec.LoadValue(tiles.data() + (s.kv_heads + h) * coded, t, row.data());
        StoreValue(KvType::kF16, row.data(), s.dim, t, dense.data() + (s.kv_heads + h) * key);
      }
    }
    const uint8_t *page = dense.data(), *codes = tiles.data();
    Floats q(s.heads * s.dim), out(q.size()), expected(q.size());
    for (size_t i = 0; i < q.size(); ++i) q[i] = std::sin(static_cast<float>(3 * i));
    AttentionArgs a;
    a.heads = s.heads;
    a.kv_heads = s.kv_heads;
    a.head_dim = s.dim;
    a.scale = 0.2f;
    a.exact = true;  // float32 products, as the codec's
    a.q = q.data();
    a.q_stride = a.out_stride = q.size();
    a.tokens = 1;
    a.first_pos = kTileTokens - 1;
    a.tiles = &page;
    a.out = expected.data();
    testing::CodedSequence::Run(a);
    a.coded = {&codec, kTileTokens, kTileTokens, &codes, {}};
    a.out = out.data();
    testing::CodedSequence::Run(a);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], expected[i], 1e-5) << dims;
  }
}

}  // namespace
}  // namespace snug
