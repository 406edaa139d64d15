#include "kernel/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernel/targets.h"

namespace snug {
namespace {

struct Shape {
  KvType keys, values;
  uint32_t heads, kv_heads, head_dim, window;
  float softcap;
  bool sinks = false;
  bool bias = false;
};

// A cache of `tokens` random tokens in pages, and queries for all of them.
class Cache {
 public:
  Cache(const Shape& s, uint32_t tokens) : s_(s), tokens_(tokens) {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    const size_t key = KvTileBytes(s.keys, s.head_dim), value = KvTileBytes(s.values, s.head_dim);
    const uint32_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
    for (uint32_t t = 0; t < tiles; ++t) {
      pages_.emplace_back(s.kv_heads * (key + value) + 64);
      auto* p = pages_.back().data();
      bases_.push_back(p + (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64);
    }
    std::vector<float> row(s.head_dim);
    for (uint32_t p = 0; p < tokens; ++p) {
      auto* page = const_cast<uint8_t*>(bases_[p / kTileTokens]);
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        for (float& v : row) v = normal(rng);
        StoreKey(s.keys, row.data(), s.head_dim, p % kTileTokens, page + h * key);
        for (float& v : row) v = normal(rng);
        StoreValue(s.values, row.data(), s.head_dim, p % kTileTokens,
                   page + s.kv_heads * key + h * value);
      }
    }
    queries_.resize(size_t{tokens} * width());
    for (float& v : queries_) v = normal(rng);
    // Of tokens that nothing sees there may be anything.
    bias_.assign(size_t{s.kv_heads} * tiles * kTileTokens, NAN);
    for (uint32_t h = 0; h < s.kv_heads; ++h) {
      for (uint32_t p = 0; p < tokens; ++p) bias_[h * bias_stride() + p] = 2 * normal(rng);
    }
    sinks_.resize(s.heads);
    for (float& v : sinks_) v = 3 * normal(rng);
  }

  size_t width() const { return size_t{s_.heads} * s_.head_dim; }
  size_t bias_stride() const { return bias_.size() / s_.kv_heads; }

  AttentionArgs Args(uint32_t first, uint32_t n, float* out, bool exact) const {
    AttentionArgs a;
    a.key_type = s_.keys;
    a.value_type = s_.values;
    a.heads = s_.heads;
    a.kv_heads = s_.kv_heads;
    a.head_dim = s_.head_dim;
    a.window = s_.window;
    a.scale = 1 / std::sqrt(static_cast<float>(s_.head_dim));
    a.softcap = s_.softcap;
    a.exact = exact;
    a.q = queries_.data() + first * width();
    a.q_stride = a.out_stride = width();
    a.tokens = n;
    a.first_pos = first;
    a.tiles = bases_.data();
    a.out = out;
    if (s_.sinks) a.sinks = sinks_.data();
    if (s_.bias) a.bias = bias_.data();
    a.bias_stride = bias_stride();
    return a;
  }

  // Attention of all tokens in chunks, each task run, in reverse order.
  std::vector<float> Run(uint32_t chunk, bool exact, bool causal = true) const {
    std::vector<float> out(queries_.size());
    std::vector<uint8_t> scratch(AttentionScratchBytes(s_.head_dim, s_.heads / s_.kv_heads) + 64);
    uint8_t* aligned =
        scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    std::vector<float> partial(PartialFloats(kMaxSplitRows, s_.heads, s_.head_dim, tokens_));
    for (uint32_t first = 0; first < tokens_; first += chunk) {
      AttentionArgs a =
          Args(first, std::min(chunk, tokens_ - first), out.data() + first * width(), exact);
      a.causal = causal;
      const AttentionPlan plan = PlanAttention(a, 2);
      for (uint32_t t = plan.tasks; t-- > 0;) AttendTask(a, plan, t, aligned, partial.data());
      for (uint32_t r = 0; plan.split && r < a.tokens; ++r) {
        for (uint32_t h = 0; h < a.heads; ++h) CombinePartials(a, plan, partial.data(), r, h);
      }
    }
    return out;
  }

  std::vector<float> Reference(bool causal = true) const {
    std::vector<float> out(queries_.size());
    AttentionArgs a = Args(0, tokens_, out.data(), true);
    a.causal = causal;
    AttentionReference(a);
    return out;
  }

 private:
  Shape s_;
  uint32_t tokens_;
  std::vector<std::vector<uint8_t>> pages_;
  std::vector<const uint8_t*> bases_;
  std::vector<float> queries_, sinks_, bias_;
};

float Worst(const std::vector<float>& a, const std::vector<float>& b) {
  float worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

const Shape kShapes[] = {{KvType::kF16, KvType::kF16, 12, 2, 128, 0, 0},
                         {KvType::kF16, KvType::kF16, 4, 1, 256, 100, 0},
                         {KvType::kBF16, KvType::kBF16, 4, 2, 16, 0, 0},
                         {KvType::kQ8_0, KvType::kQ8_0, 6, 3, 64, 0, 0},
                         {KvType::kQ8_0, KvType::kQ4_0, 8, 1, 64, 65, 0},
                         {KvType::kQ4_0, KvType::kQ4_0, 2, 2, 32, 0, 0},
                         {KvType::kF16, KvType::kQ8_0, 14, 2, 96, 0, 30},
                         {KvType::kF32, KvType::kF32, 4, 2, 80, 64, 0},
                         {KvType::kBF16, KvType::kF16, 5, 1, 80, 0, 0},
                         {KvType::kF16, KvType::kF16, 9, 1, 40, 1, 0},
                         {KvType::kF16, KvType::kF16, 8, 2, 64, 0, 0, true},
                         {KvType::kQ8_0, KvType::kF16, 4, 4, 32, 128, 50, true},
                         {KvType::kF16, KvType::kF16, 8, 2, 64, 0, 0, false, true},
                         {KvType::kQ8_0, KvType::kQ4_0, 6, 3, 32, 0, 30, true, true},
                         {KvType::kF8E4M3, KvType::kF8E4M3, 12, 2, 128, 0, 0},
                         {KvType::kF8E4M3, KvType::kF16, 5, 1, 80, 100, 0},
                         {KvType::kQ8_0, KvType::kF8E4M3, 4, 2, 96, 0, 30, true, true}};

TEST(Attention, EqualsTheReferenceOnEveryTarget) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      for (const uint32_t tokens : {1u, 63u, 65u, 300u}) {
        const Cache cache(s, tokens);
        const auto reference = cache.Reference();
        // bf16 products: queries and probabilities carry 8 bits, and encoded values are rounded
        // once more.
        EXPECT_LE(Worst(cache.Run(tokens, false), reference), 0.03f) << s.head_dim << " " << tokens;
        EXPECT_LE(Worst(cache.Run(tokens, true), reference), 2e-5f) << s.head_dim << " " << tokens;
      }
    }
  }
  UseTarget(0);
}

TEST(Attention, OfEncodersSeesAllTokens) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      if (s.window != 0) continue;
      for (const uint32_t tokens : {1u, 2u, 17u, 64u, 65u, 300u}) {
        const Cache cache(s, tokens);
        const auto reference = cache.Reference(false);
        EXPECT_LE(Worst(cache.Run(tokens, false, false), reference), 0.03f) << tokens;
        EXPECT_LE(Worst(cache.Run(tokens, true, false), reference), 2e-5f) << tokens;
        if (tokens > 1) {
          EXPECT_GT(Worst(cache.Reference(), reference), 0.1f);
        }
      }
    }
  }
  UseTarget(0);
}

TEST(Attention, ChunksDoNotChangeABit) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      const Cache cache(s, 290);
      for (const bool exact : {false, true}) {
        const auto whole = cache.Run(290, exact);
        for (const uint32_t chunk : {1u, 7u, 16u, 64u, 257u}) {
          const auto parts = cache.Run(chunk, exact);
          EXPECT_EQ(std::memcmp(parts.data(), whole.data(), whole.size() * sizeof(float)), 0)
              << s.head_dim << " window " << s.window << " chunk " << chunk;
        }
      }
    }
  }
  UseTarget(0);
}

TEST(KvCodec, StoresWithinTheTypesPrecisionAndFinite) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  for (const auto& [type, tolerance] : {std::pair{KvType::kF32, 0.0f},
                                        {KvType::kF16, 1e-3f},
                                        {KvType::kBF16, 8e-3f},
                                        {KvType::kQ8_0, 1.0f / 127},
                                        {KvType::kQ4_0, 1.0f / 7},
                                        {KvType::kF8E4M3, 1.0f / 16}}) {
    constexpr size_t kDim = 96;
    std::vector<uint8_t> tile(KvTileBytes(type, kDim));
    std::vector<std::vector<float>> rows(kTileTokens, std::vector<float>(kDim));
    for (size_t s = 0; s < kTileTokens; ++s) {
      for (float& v : rows[s]) v = normal(rng);
      StoreValue(type, rows[s].data(), kDim, s, tile.data());
    }
    std::vector<float> back(kDim);
    for (size_t s = 0; s < kTileTokens; ++s) {
      LoadValue(type, tile.data(), kDim, s, back.data());
      for (size_t d = 0; d < kDim; ++d)
        EXPECT_NEAR(back[d], rows[s][d], 4.5f * tolerance) << KvTypeName(type);
    }
    const std::vector<float> wild(kDim, INFINITY);
    StoreKey(type, wild.data(), kDim, 5, tile.data());
    LoadKey(type, tile.data(), kDim, 5, back.data());
    for (const float v : back) EXPECT_TRUE(std::isfinite(v));
  }
  EXPECT_FALSE(KvTypeSupports(KvType::kQ8_0, 80));
  EXPECT_TRUE(KvTypeSupports(KvType::kF16, 80));
}

}  // namespace
}  // namespace snug
