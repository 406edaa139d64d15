// Sequences some of whose rows a codec of tiles (kernel/tile_codec.h) holds, and what attention
// over them must be.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <span>
#include <vector>

#include "kernel/attention.h"
#include "kernel/targets.h"
#include "kernel/tile_codec.h"

namespace snug::testing {

// A dense tile of f16 keys (values) [tokens][head_dim].
inline std::vector<uint8_t> DenseTile(const std::vector<float>& rows, size_t dim, bool values) {
  std::vector<uint8_t> tile(KvTileBytes(KvType::kF16, dim));
  for (size_t t = 0; t < rows.size() / dim; ++t) {
    (values ? StoreValue : StoreKey)(KvType::kF16, rows.data() + t * dim, dim, t, tile.data());
  }
  return tile;
}

struct HeadShape {
  uint32_t heads, kv_heads, dim;
};
// Tokens, and those whose keys and values are coded.
struct Counts {
  uint32_t n, keys, values;
};

// Random queries, keys and values, a channel of the keys being large.
class CodedSequence {
 public:
  // `exact`: coded tokens, ascending, that are kept as they were stored, too.
  CodedSequence(const HeadShape& s, const TileCodec& codec, const Counts& c,
                const std::vector<uint32_t>& exact = {})
      : s_(s), n_(c.n), exact_tokens_(exact) {
    std::mt19937 rng(c.n);
    std::normal_distribution<float> normal;
    const size_t key = KvTileBytes(KvType::kF16, s.dim);
    const size_t coded_key = codec.key_tile_bytes(), coded_value = codec.value_tile_bytes();
    const uint32_t tiles = (c.n + kTileTokens - 1) / kTileTokens;
    std::vector<float> row(s.dim);
    for (uint32_t t = 0; t < tiles; ++t) {
      dense_.emplace_back(2 * s.kv_heads * key);
      coded_.emplace_back(codec.key_bytes(s.kv_heads) + s.kv_heads * coded_value);
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        uint8_t* k = dense_[t].data() + h * key;
        uint8_t* v = dense_[t].data() + (s.kv_heads + h) * key;
        for (size_t slot = 0; slot < kTileTokens; ++slot) {
          for (float& x : row) x = normal(rng) + (&x == &row[3] ? 9.0f : 0.0f);
          StoreKey(KvType::kF16, row.data(), s.dim, slot, k);
          for (float& x : row) x = normal(rng);
          StoreValue(KvType::kF16, row.data(), s.dim, slot, v);
        }
      }
      const auto slots = [&](uint32_t end) {
        return std::min<size_t>(end - std::min<size_t>(end, t * kTileTokens), kTileTokens);
      };
      uint8_t* to = coded_[t].data();
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        const uint8_t* k = dense_[t].data() + h * key;
        if (const size_t n = slots(c.keys); n > 0 && h % codec.key_heads() == 0) {
          codec.EncodeKeys(KvType::kF16, k, {h, t}, 0, n, to + h / codec.key_heads() * coded_key);
        }
        if (const size_t n = slots(c.values)) {
          codec.EncodeValues(KvType::kF16, k + s.kv_heads * key, 0, n,
                             to + codec.key_bytes(s.kv_heads) + h * coded_value);
        }
      }
    }
    for (auto& t : dense_) dense_bases_.push_back(t.data());
    for (auto& t : coded_) coded_bases_.push_back(t.data());
    for (const uint32_t token : exact) {
      const uint8_t* page = dense_[token / kTileTokens].data();
      const auto add = [&](size_t head, size_t at, std::vector<uint16_t>* to) {
        to->push_back(reinterpret_cast<const uint16_t*>(page + head * key)[at]);
      };
      for (size_t i = 0; i < size_t{s.kv_heads} * s.dim; ++i) {
        const size_t slot = token % kTileTokens;
        add(i / s.dim, KeyIndex(i % s.dim, slot, s.dim), &exact_keys_);
        add(s.kv_heads + i / s.dim, ValueIndex(i % s.dim, slot), &exact_values_);
      }
    }
    rows_ = {&codec,
             c.keys,
             c.values,
             coded_bases_.data(),
             {static_cast<uint32_t>(exact.size()), exact_tokens_.data(),
              reinterpret_cast<const uint8_t*>(exact_keys_.data()),
              reinterpret_cast<const uint8_t*>(exact_values_.data())}};
    queries_.resize(size_t{c.n} * s.heads * s.dim);
    for (float& q : queries_) q = normal(rng);
  }
  // The last `tokens` tokens' step.
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
    std::vector<float> partial(
        PartialFloats(a.tokens, a.heads, a.head_dim, a.first_pos + a.tokens) + 1);
    const AttentionPlan plan = PlanAttention(a, 1);
    for (uint32_t t = plan.tasks; t-- > 0;) AttendTask(a, plan, t, room, partial.data());
    for (uint32_t r = 0; plan.split && r < a.tokens; ++r) {
      for (uint32_t h = 0; h < a.heads; ++h) CombinePartials(a, plan, partial.data(), r, h);
    }
  }

 private:
  const HeadShape s_;
  const uint32_t n_;
  std::vector<std::vector<uint8_t>> dense_, coded_;
  std::vector<const uint8_t*> dense_bases_, coded_bases_;
  const std::vector<uint32_t> exact_tokens_;
  std::vector<uint16_t> exact_keys_, exact_values_;
  CodedRows rows_;
  std::vector<float> queries_;
};

// How near, and whether with float32 products.
struct Nearness {
  double tolerance = 1e-5;
  bool exact = false;
};

// On every target, in steps of one token and of many, as a prompt after a prompt has: the output is
// that of double precision over decoded rows.
inline void ExpectAttentionEqualsReference(const HeadShape& s, const TileCodec& codec,
                                           std::span<const Counts> counts,
                                           const Nearness& near = {},
                                           const std::vector<uint32_t>& exact = {}) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Counts& c : counts) {
      std::vector<uint32_t> held;
      std::copy_if(exact.begin(), exact.end(), std::back_inserter(held),
                   [&](uint32_t t) { return t < c.keys; });
      const CodedSequence rows(s, codec, c, held);
      const size_t width = size_t{s.heads} * s.dim;
      for (const uint32_t tokens : {1u, 40u}) {
        if (tokens > c.n - c.keys) continue;
        std::vector<float> out(tokens * width), expected(tokens * width);
        AttentionArgs args = rows.Args(tokens, out.data());
        args.exact = near.exact;
        CodedSequence::Run(args);
        AttentionReference(rows.Args(tokens, expected.data()));
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], expected[i], near.tolerance)
              << s.heads << " " << s.dim << " " << c.n << " " << tokens << " " << i;
        }
      }
    }
  }
  UseTarget(0);
}

inline void ExpectSameInStepsOfAnySize(const HeadShape& s, const TileCodec& codec,
                                       const Counts& counts,
                                       const std::vector<uint32_t>& exact = {}) {
  const CodedSequence rows(s, codec, counts, exact);
  const size_t width = size_t{s.heads} * s.dim;
  std::vector<float> all(40 * width), one(width);
  const AttentionArgs a = rows.Args(40, all.data());
  CodedSequence::Run(a);
  for (uint32_t t = 0; t < 40; ++t) {
    AttentionArgs b = a;
    b.q += t * width;
    b.first_pos += t;
    b.tokens = 1;
    b.out = one.data();
    CodedSequence::Run(b);
    ASSERT_EQ(one, std::vector<float>(all.begin() + t * width, all.begin() + (t + 1) * width)) << t;
  }
}

}  // namespace snug::testing
