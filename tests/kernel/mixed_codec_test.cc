#include "kernel/mixed_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "coded_sequence.h"

namespace snug {
namespace {

using testing::HeadShape;
using Floats = std::vector<float>;
using Order = std::vector<uint32_t>;

Order Shuffled(uint32_t rows, uint32_t seed) {
  Order order(rows);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

// Random f16 rows, a channel of keys and one of values being large, of which a codec has the first
// ones in segments of given lengths, each head's in an order of its own.
class Segments {
 public:
  Segments(const HeadShape& s, const MixedFormat& format, const std::vector<uint32_t>& lengths,
           uint32_t exact)
      : s_(s), codec_(format) {
    n_ = std::accumulate(lengths.begin(), lengths.end(), exact);
    std::mt19937 rng(n_);
    std::normal_distribution<float> normal;
    const size_t tile = KvTileBytes(KvType::kF16, s.dim);
    Floats row(s.dim);
    for (uint32_t t = 0; t < n_; ++t) {
      if (t % kTileTokens == 0) pages_.emplace_back(2 * s.kv_heads * tile);
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        for (float& x : row) x = normal(rng) + (&x == &row[3] ? 9.0f : 0.0f);
        StoreKey(KvType::kF16, row.data(), s.dim, t % kTileTokens, pages_.back().data() + h * tile);
        for (float& x : row) x = normal(rng) * (&x == &row[5] ? 30.0f : 1.0f);
        StoreValue(KvType::kF16, row.data(), s.dim, t % kTileTokens,
                   pages_.back().data() + (s.kv_heads + h) * tile);
      }
    }
    for (auto& p : pages_) bases_.push_back(p.data());
    uint32_t first = 0;
    for (const uint32_t rows : lengths) {
      orders_.emplace_back();
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        orders_.back().push_back(Shuffled(rows, first + h));
      }
      data_.emplace_back(s.kv_heads * codec_.HeadBytes(rows));
      segments_.push_back({first, rows, data_.back().data()});
      first += rows;
    }
    coded_ = first;
    EncodeAll();
    queries_.resize(size_t{n_} * s.heads * s.dim);
    for (float& q : queries_) q = normal(rng);
  }

  void EncodeAll() {
    for (size_t i = 0; i < segments_.size(); ++i) {
      for (uint32_t h = 0; h < s_.kv_heads; ++h) Encode(i, h);
    }
  }
  void Encode(size_t segment, uint32_t head) {
    const size_t tile = KvTileBytes(KvType::kF16, s_.dim);
    const CodedSegment& s = segments_[segment];
    const StoredRows rows{
        KvType::kF16, KvType::kF16, bases_.data(), head * tile, (s_.kv_heads + head) * tile,
        s.first,      s.rows};
    codec_.Encode(rows, orders_[segment][head],
                  data_[segment].data() + head * codec_.HeadBytes(s.rows));
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
    a.tiles = bases_.data();
    a.out = out;
    a.coded = {&codec_,
               coded_,
               coded_,
               nullptr,
               {},
               segments_.data(),
               static_cast<uint32_t>(segments_.size())};
    return a;
  }
  // The key (value) of a token as it was stored.
  Floats Stored(uint32_t head, uint32_t token, bool value) const {
    const size_t tile = KvTileBytes(KvType::kF16, s_.dim);
    Floats row(s_.dim);
    const uint8_t* page = bases_[token / kTileTokens];
    value ? LoadValue(KvType::kF16, page + (s_.kv_heads + head) * tile, s_.dim, token % kTileTokens,
                      row.data())
          : LoadKey(KvType::kF16, page + head * tile, s_.dim, token % kTileTokens, row.data());
    return row;
  }

  const HeadShape s_;
  const MixedCodec codec_;
  uint32_t n_ = 0, coded_ = 0;
  std::vector<std::vector<uint8_t>> pages_, data_;
  std::vector<const uint8_t*> bases_;
  std::vector<std::vector<Order>> orders_;  // [segments][heads]
  std::vector<CodedSegment> segments_;
  Floats queries_;
};

TEST(MixedCodec, ValuesAsByHand) {
  // Channels reach 16, 4, 1 and 1/4, so that f = 4, 2, 1, 1/2.
  const float rows[2][4] = {{8, -2, 1, 0.25f}, {16, 4, 1, 0.25f}};
  std::vector<uint8_t> page(2 * KvTileBytes(KvType::kF16, 4));
  const size_t values = KvTileBytes(KvType::kF16, 4);
  for (size_t t = 0; t < 2; ++t) {
    StoreKey(KvType::kF16, rows[t], 4, t, page.data());
    StoreValue(KvType::kF16, rows[t], 4, t, page.data() + values);
  }
  const MixedCodec codec({4, 2, 4, 1.0});
  const uint8_t* pages[] = {page.data()};
  std::vector<uint8_t> data(codec.HeadBytes(2));
  codec.Encode({KvType::kF16, KvType::kF16, pages, 0, values, 0, 2}, Order{0, 1}, data.data());
  const MixedClass c = codec.ClassesOf(2).of[0];
  // u = 2, -1, 1, 1/2: from -1 in steps of 1, the last one halfway between two and even.
  EXPECT_EQ(data[c.values], 0xA3);
  const CodedSegment segment{0, 2, data.data()};
  AttentionArgs a;
  a.kv_heads = 1;
  a.head_dim = 4;
  a.coded = {&codec, 2, 2, nullptr, {}, &segment, 1};
  float v[4], k[4];
  codec.LoadRow(a, 0, 0, true, v);
  EXPECT_EQ(Floats(v, v + 4), (Floats{8, -2, 1, 0.5f}));
  codec.LoadRow(a, 0, 1, false, k);
  EXPECT_NEAR(k[0], 16, 0.01);  // the most of two rows, as far as f16 has a third of 8
}

const MixedFormat kFormats[] = {{64, 2, 4, 0.4}, {64, 2, 4, 0}, {64, 2, 4, 1}, {64, 4, 8, 0.7}};

// |k - k'| <= s / 2 where s is what the class ranges over in the channel, and |v - v'| <= f s / 2
// where s is what the row ranges over, up to the rounding of f16.
TEST(MixedCodec, ErrorsAreWithinHalfAStep) {
  for (const MixedFormat& f : kFormats) {
    const Segments rows({2, 2, 64}, f, {150, 70}, 10);
    const AttentionArgs a = rows.Args(1, nullptr);
    for (size_t i = 0; i < rows.segments_.size(); ++i) {
      const CodedSegment& s = rows.segments_[i];
      const uint32_t low = f.LowRows(s.rows);
      for (uint32_t h = 0; h < 2; ++h) {
        const auto stored = [&](uint32_t r, bool value) {
          return rows.Stored(h, s.first + rows.orders_[i][h][r], value);
        };
        Floats most(64);
        for (uint32_t r = 0; r < s.rows; ++r) {
          const Floats v = stored(r, true);
          for (size_t c = 0; c < 64; ++c) most[c] = std::max(most[c], std::abs(v[c]));
        }
        for (uint32_t r = 0; r < s.rows; ++r) {
          const bool in_low = r < low;
          const auto top = static_cast<float>((1 << (in_low ? f.low_bits : f.high_bits)) - 1);
          Floats k(64), v(64);
          rows.codec_.LoadRow(a, h, s.first + r, false, k.data());
          rows.codec_.LoadRow(a, h, s.first + r, true, v.data());
          Floats min(64, 1e9f), max(64, -1e9f);
          for (uint32_t o = in_low ? 0 : low; o < (in_low ? low : s.rows); ++o) {
            const Floats other = stored(o, false);
            for (size_t c = 0; c < 64; ++c) {
              min[c] = std::min(min[c], other[c]);
              max[c] = std::max(max[c], other[c]);
            }
          }
          const Floats k0 = stored(r, false), v0 = stored(r, true);
          float u_min = 1e9f, u_max = -1e9f;
          for (size_t c = 0; c < 64; ++c) {
            const float u = v0[c] / std::sqrt(most[c]);
            u_min = std::min(u_min, u);
            u_max = std::max(u_max, u);
          }
          for (size_t c = 0; c < 64; ++c) {
            const float ks = (max[c] - min[c]) / top,
                        vs = std::sqrt(most[c]) * (u_max - u_min) / top;
            ASSERT_LE(std::abs(k[c] - k0[c]), ks / 2 + 0.002f * (std::abs(max[c]) + ks)) << c;
            ASSERT_LE(std::abs(v[c] - v0[c]), vs / 2 + 0.004f * (most[c] + vs)) << c;
          }
        }
      }
    }
  }
}

TEST(MixedCodec, TakesTheBytesOfItsModel) {
  const MixedCodec codec({128, 2, 4, 0.4});
  // 3.2 bits an element of 2 x 128; parameters of keys of two classes, factors; each row's two.
  const size_t codes = 1000 * 2 * 128 * 32 / 10 / 8, keys = 2 * 2 * 2 * 128, factors = 2 * 128;
  const size_t rows = 1000 * 2 * 2;
  EXPECT_GE(codec.HeadBytes(1000), codes + keys + factors + rows);
  EXPECT_LE(codec.HeadBytes(1000), codes + keys + factors + rows + 2 * 16 * 4 + 63);
  // Longer segments take no more than short ones.
  EXPECT_LE(codec.HeadBytes(1000), 10 * codec.HeadBytes(100));
}

struct Case {
  HeadShape heads;
  MixedFormat format;
};
const Case kCases[] = {
    {{6, 1, 64}, {64, 2, 4, 0.4}},      {{4, 4, 128}, {128, 2, 4, 0.4}},
    {{7, 1, 48}, {48, 2, 8, 0.3}},      {{4, 2, 32}, {32, 4, 16, 0.75}},
    {{2, 2, 256}, {256, 2, 4, 0}},      {{2, 1, 16}, {16, 2, 4, 1}},
    {{6, 2, 64}, {64, 2, 4, 0.4, 0.1}},
};
struct Lengths {
  std::vector<uint32_t> segments;
  uint32_t exact;
};
const Lengths kLengths[] = {{{100}, 41},    {{500, 100, 100}, 60}, {{1}, 40},
                            {{64, 64}, 64}, {{37, 5, 300}, 99},    {{513}, 1}};

TEST(MixedCodec, AttentionEqualsTheReferenceOverDecodedRows) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Case& c : kCases) {
      for (const Lengths& l : kLengths) {
        const Segments rows(c.heads, c.format, l.segments, l.exact);
        const size_t width = size_t{c.heads.heads} * c.heads.dim;
        for (const uint32_t tokens : {1u, 40u}) {
          if (tokens > l.exact) continue;
          Floats out(tokens * width), expected(tokens * width);
          testing::CodedSequence::Run(rows.Args(tokens, out.data()));
          AttentionReference(rows.Args(tokens, expected.data()));
          for (size_t i = 0; i < out.size(); ++i) {
            ASSERT_NEAR(out[i], expected[i], 2e-5 * (1 + std::abs(expected[i])))
                << c.heads.dim << " " << rows.n_ << " " << tokens << " " << i;
          }
        }
      }
    }
  }
  UseTarget(0);
}

TEST(MixedCodec, ATokenIsTheSameInStepsOfAnySize) {
  for (const Case& c : kCases) {
    const Segments rows(c.heads, c.format, {300, 40}, 50);
    const size_t width = size_t{c.heads.heads} * c.heads.dim;
    Floats all(40 * width), one(width);
    const AttentionArgs a = rows.Args(40, all.data());
    testing::CodedSequence::Run(a);
    for (uint32_t t = 0; t < 40; ++t) {
      AttentionArgs b = a;
      b.q += t * width;
      b.first_pos += t;
      b.tokens = 1;
      b.out = one.data();
      testing::CodedSequence::Run(b);
      ASSERT_EQ(one, Floats(all.begin() + t * width, all.begin() + (t + 1) * width)) << t;
    }
  }
}

// 16 bits are the rows as they were.
TEST(MixedCodec, WithoutCodesItIsDense) {
  const Segments rows({6, 2, 64}, {64, 2, 16, 0}, {300, 100}, 30);
  Floats out(6 * 64), dense(6 * 64);
  AttentionArgs a = rows.Args(1, out.data());
  testing::CodedSequence::Run(a);
  a.coded = {};
  a.out = dense.data();
  AttentionReference(a);
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], dense[i], 1e-4) << i;
  for (uint32_t r = 0; r < 300; ++r) {
    Floats k(64), v(64);
    a = rows.Args(1, nullptr);
    rows.codec_.LoadRow(a, 1, r, false, k.data());
    rows.codec_.LoadRow(a, 1, r, true, v.data());
    ASSERT_EQ(k, rows.Stored(1, rows.orders_[0][1][r], false));
    ASSERT_EQ(v, rows.Stored(1, rows.orders_[0][1][r], true));
  }
}

TEST(MixedCodec, TheOrderWithinAClassDoesNotMatter) {
  const MixedFormat f{64, 2, 4, 0.4};
  Segments rows({6, 2, 64}, f, {300}, 30);
  Floats before(6 * 64), after(6 * 64);
  testing::CodedSequence::Run(rows.Args(1, before.data()));
  for (Order& order : rows.orders_[0]) {
    const auto middle = order.begin() + f.LowRows(300);
    std::reverse(order.begin(), middle);
    std::rotate(middle, middle + 7, order.end());
  }
  rows.EncodeAll();
  testing::CodedSequence::Run(rows.Args(1, after.data()));
  EXPECT_NE(before, after);
  for (size_t i = 0; i < after.size(); ++i) ASSERT_NEAR(before[i], after[i], 1e-4) << i;
}

}  // namespace
}  // namespace snug
