#include "kernel/affine_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "format/dtype.h"
#include "kernel/kv_layout.h"
#include "kernel/targets.h"

namespace snug {
namespace {

using Floats = std::vector<float>;

// A dense tile of keys (values) [64 tokens][head_dim].
std::vector<uint8_t> Dense(const Floats& rows, size_t dim, bool values) {
  std::vector<uint8_t> tile(KvTileBytes(KvType::kF16, dim));
  for (size_t t = 0; t < rows.size() / dim; ++t) {
    (values ? StoreValue : StoreKey)(KvType::kF16, rows.data() + t * dim, dim, t, tile.data());
  }
  return tile;
}

TEST(AffineCodec, PacksAsByHand) {
  // Channel 0 of tokens 0 .. 3 is -1, 2, 0.4, -1, channel 1 is 0, 3, 6, 9.
  const Floats keys = {-1, 0, 2, 3, 0.4f, 6, -1, 9};
  const AffineCodec codec({2, 4, 2, 2});
  std::vector<uint8_t> tile(codec.key_tile_bytes());
  codec.EncodeKeys(KvType::kF16, Dense(keys, 2, false).data(), 0, 4, tile.data());
  EXPECT_EQ(tile[0], 0x1C);
  EXPECT_EQ(tile[16], 0xE4);
  const float expected[4][2] = {{-1, 0}, {2, 3}, {0, 6}, {-1, 9}};
  const float scores[] = {-2, 1, -6, -11};
  for (size_t t = 0; t < 4; ++t) {
    float k[2];
    codec.LoadKey(tile.data(), t, k);
    EXPECT_EQ(k[0], expected[t][0]);
    EXPECT_EQ(k[1], expected[t][1]);
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
  codec.EncodeKeys(KvType::kF16, Dense(keys, dim, false).data(), 0, kTileTokens, k.data());
  codec.EncodeValues(KvType::kF16, Dense(values, dim, true).data(), 0, kTileTokens, v.data());
  Floats row(dim);
  for (size_t t = 0; t < kTileTokens; ++t) {
    codec.LoadKey(k.data(), t, row.data());
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
  uint32_t heads, kv_heads, dim;
  AffineFormat format;
};

// A sequence of `n` tokens whose first keys and values are coded.
class Coded {
 public:
  Coded(const Shape& s, uint32_t n, uint32_t keys, uint32_t values)
      : s_(s), codec_(s.format), n_(n) {
    std::mt19937 rng(n);
    std::normal_distribution<float> normal;
    const size_t key = KvTileBytes(KvType::kF16, s.dim);
    const size_t coded_key = codec_.key_tile_bytes(), coded_value = codec_.value_tile_bytes();
    const uint32_t tiles = (n + kTileTokens - 1) / kTileTokens;
    Floats row(s.dim);
    for (uint32_t t = 0; t < tiles; ++t) {
      dense_.emplace_back(2 * s.kv_heads * key);
      coded_.emplace_back(s.kv_heads * (coded_key + coded_value));
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        uint8_t* k = dense_[t].data() + h * key;
        uint8_t* v = dense_[t].data() + (s.kv_heads + h) * key;
        for (size_t slot = 0; slot < kTileTokens; ++slot) {
          for (float& x : row) x = normal(rng) + (&x == &row[3] ? 9.0f : 0.0f);
          StoreKey(KvType::kF16, row.data(), s.dim, slot, k);
          for (float& x : row) x = normal(rng);
          StoreValue(KvType::kF16, row.data(), s.dim, slot, v);
        }
        const auto slots = [&](uint32_t end) {
          return std::min<size_t>(end - std::min<size_t>(end, t * kTileTokens), kTileTokens);
        };
        codec_.EncodeKeys(KvType::kF16, k, 0, slots(keys), coded_[t].data() + h * coded_key);
        codec_.EncodeValues(KvType::kF16, v, 0, slots(values),
                            coded_[t].data() + s.kv_heads * coded_key + h * coded_value);
      }
    }
    for (auto& t : dense_) dense_bases_.push_back(t.data());
    for (auto& t : coded_) coded_bases_.push_back(t.data());
    rows_ = {&codec_, keys, values, coded_bases_.data()};
    queries_.resize(size_t{n} * s.heads * s.dim);
    for (float& q : queries_) q = normal(rng);
  }
  AttentionArgs Args(uint32_t tokens, float* out) const {
    AttentionArgs a;
    a.heads = s_.heads;
    a.kv_heads = s_.kv_heads;
    a.head_dim = s_.dim;
    a.scale = 1 / std::sqrt(static_cast<float>(s_.dim));
    a.q = queries_.data();
    a.q_stride = a.out_stride = size_t{s_.heads} * s_.dim;
    a.tokens = tokens;
    a.first_pos = n_ - tokens;
    a.tiles = dense_bases_.data();
    a.coded = rows_;
    a.out = out;
    return a;
  }
  static void Run(const AttentionArgs& a) {
    std::vector<uint8_t> scratch(AttentionScratchBytes(a.head_dim, a.heads / a.kv_heads) + 64);
    uint8_t* room = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    Floats partial(PartialFloats(a.tokens, a.heads, a.head_dim, a.first_pos + a.tokens) + 1);
    const AttentionPlan plan = PlanAttention(a, 1);
    for (uint32_t t = plan.tasks; t-- > 0;) AttendTask(a, plan, t, room, partial.data());
    for (uint32_t r = 0; plan.split && r < a.tokens; ++r) {
      for (uint32_t h = 0; h < a.heads; ++h) CombinePartials(a, plan, partial.data(), r, h);
    }
  }

 private:
  const Shape s_;
  const AffineCodec codec_;
  const uint32_t n_;
  std::vector<std::vector<uint8_t>> dense_, coded_;
  std::vector<const uint8_t*> dense_bases_, coded_bases_;
  CodedRows rows_;
  Floats queries_;
};

constexpr Shape kShapes[] = {
    {6, 1, 64, {64, 32, 2, 2}},    // six query heads, one pass
    {4, 4, 128, {128, 32, 2, 2}},  // a query head each
    {7, 1, 48, {48, 16, 4, 4}},    // two passes
    {4, 2, 64, {64, 64, 4, 2}},   {2, 2, 256, {256, 16, 2, 4}},
};

TEST(AffineCodec, AttentionEqualsTheReferenceOverDecodedRows) {
  struct Counts {
    uint32_t n, keys, values;
  };
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      for (const Counts c :
           {Counts{130, 64, 1}, {300, 256, 200}, {577, 512, 512}, {65, 64, 0}, {400, 384, 271}}) {
        const Coded rows(s, c.n, c.keys, c.values);
        const size_t width = size_t{s.heads} * s.dim;
        // Steps of one token, and of many, as a prompt after a prompt has.
        for (const uint32_t tokens : {1u, 40u}) {
          if (tokens > c.n - c.keys) continue;
          Floats out(tokens * width), expected(tokens * width);
          Coded::Run(rows.Args(tokens, out.data()));
          AttentionReference(rows.Args(tokens, expected.data()));
          for (size_t i = 0; i < out.size(); ++i) {
            ASSERT_NEAR(out[i], expected[i], 1e-5)
                << s.heads << " " << s.dim << " " << c.n << " " << tokens << " " << i;
          }
        }
      }
    }
  }
  UseTarget(0);
}

TEST(AffineCodec, ATokenIsTheSameInStepsOfAnySize) {
  for (const Shape& s : kShapes) {
    const Coded rows(s, 300, 256, 200);
    const size_t width = size_t{s.heads} * s.dim;
    Floats all(40 * width), one(width);
    const AttentionArgs a = rows.Args(40, all.data());
    Coded::Run(a);
    for (uint32_t t = 0; t < 40; ++t) {
      AttentionArgs b = a;
      b.q += t * width;
      b.first_pos += t;
      b.tokens = 1;
      b.out = one.data();
      Coded::Run(b);
      ASSERT_EQ(one, Floats(all.begin() + t * width, all.begin() + (t + 1) * width)) << t;
    }
  }
}

}  // namespace
}  // namespace snug
