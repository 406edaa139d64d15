// Attention over chosen rows, and the guesses that choose them.
#include "kernel/attention_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "format/dtype.h"
#include "kernel/read_scores.h"
#include "kernel/targets.h"

namespace snug {
namespace {

struct Shape {
  KvType type;
  uint32_t heads, kv_heads, head_dim;
  float softcap = 0;
  bool sinks = false;
};
constexpr Shape kShapes[] = {
    {KvType::kF32, 4, 2, 32},    {KvType::kF16, 6, 2, 64},
    {KvType::kBF16, 4, 1, 64},   {KvType::kQ8_0, 4, 2, 32, 20.0f},
    {KvType::kQ4_0, 2, 2, 64},   {KvType::kF16, 2, 2, 10},
    {KvType::kF16, 8, 1, 256},   {KvType::kF16, 4, 2, 32, 0, true},
    {KvType::kF8E4M3, 4, 2, 40},
};
constexpr uint32_t kTokens = 700;

// A cache of random tokens and one query that sees all of them.
class Rows {
 public:
  // key_rows: keys lie as values do.
  Rows(const Shape& s, bool exact, bool key_rows) : s_(s) {
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    const size_t tile = KvTileBytes(s.type, s.head_dim);
    const uint32_t tiles = (kTokens + kTileTokens - 1) / kTileTokens;
    pool_.resize(size_t{tiles} * s.kv_heads * 2 * tile + 64);
    uint8_t* at = Aligned(pool_);
    for (uint32_t t = 0; t < tiles; ++t, at += s.kv_heads * 2 * tile) tables_.push_back(at);
    std::vector<float> row(s.head_dim);
    for (uint32_t t = 0; t < kTokens; ++t) {
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        auto* page = const_cast<uint8_t*>(tables_[t / kTileTokens]);
        for (float& v : row) v = normal(rng);
        const auto store = key_rows ? StoreValue : StoreKey;
        store(s.type, row.data(), s.head_dim, t % kTileTokens, page + h * tile);
        for (float& v : row) v = normal(rng);
        StoreValue(s.type, row.data(), s.head_dim, t % kTileTokens, page + (s.kv_heads + h) * tile);
      }
    }
    q_.resize(s.heads * s.head_dim);
    for (float& v : q_) v = normal(rng);
    sinks_.assign(s.heads, 0.5f);
    a_.key_type = a_.value_type = s.type;
    a_.heads = s.heads;
    a_.kv_heads = s.kv_heads;
    a_.head_dim = s.head_dim;
    a_.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
    a_.softcap = s.softcap;
    a_.exact = exact;
    a_.key_rows = key_rows;
    if (s.sinks) a_.sinks = sinks_.data();
    a_.q = q_.data();
    a_.q_stride = a_.out_stride = q_.size();
    a_.tokens = 1;
    a_.first_pos = kTokens - 1;
    a_.tiles = tables_.data();
    scratch_.resize(AttentionScratchBytes(s.head_dim, s.heads / s.kv_heads) + 64);
    stage_.resize(StageBytes(s.type, s.type, s.head_dim) + 64, 0xff);  // what was there before
    partial_.resize(PartialFloats(1, s.heads, s.head_dim, kTokens));
  }

  std::vector<float> Dense() {
    std::vector<float> out(q_.size());
    a_.out = out.data();
    const AttentionPlan plan = PlanAttention(a_, 1);
    for (uint32_t t = 0; t < plan.tasks; ++t) {
      AttendTask(a_, plan, t, Aligned(scratch_), partial_.data());
    }
    for (uint32_t h = 0; h < s_.heads; ++h) CombinePartials(a_, plan, partial_.data(), 0, h);
    return out;
  }
  // `rows` [kv_heads, count]
  std::vector<float> Chosen(const std::vector<uint32_t>& rows) {
    std::vector<float> out(q_.size());
    a_.out = out.data();
    const auto count = static_cast<uint32_t>(rows.size() / s_.kv_heads);
    const ChosenRows chosen{rows.data(), count, count};
    for (uint32_t t = ChosenTasks(a_, count); t-- > 0;) {
      AttendChosen(a_, chosen, t, Aligned(stage_), Aligned(scratch_), partial_.data());
    }
    for (uint32_t h = 0; h < s_.heads; ++h) CombineChosen(a_, chosen, partial_.data(), h);
    return out;
  }
  // The same in double: dense attention with -infinity outside of what was chosen.
  std::vector<double> Masked(const std::vector<uint32_t>& rows) const {
    const size_t count = rows.size() / s_.kv_heads, tile = KvTileBytes(s_.type, s_.head_dim);
    std::vector<double> out(q_.size());
    std::vector<float> row(s_.head_dim);
    for (uint32_t h = 0; h < s_.heads; ++h) {
      const uint32_t kv = h / (s_.heads / s_.kv_heads);
      std::vector<double> w(kTokens, -INFINITY);
      for (size_t i = 0; i < count; ++i) {
        const uint32_t t = rows[kv * count + i];
        const auto load = a_.key_rows ? LoadValue : LoadKey;
        load(s_.type, tables_[t / kTileTokens] + kv * tile, s_.head_dim, t % kTileTokens,
             row.data());
        double dot = 0;
        for (uint32_t d = 0; d < s_.head_dim; ++d) dot += double{q_[h * s_.head_dim + d]} * row[d];
        dot *= a_.scale;
        w[t] = s_.softcap > 0 ? s_.softcap * std::tanh(dot / s_.softcap) : dot;
      }
      const double max = *std::max_element(w.begin(), w.end());
      double sum = s_.sinks ? std::exp(sinks_[h] - max) : 0;
      for (double& x : w) sum += x = std::exp(x - max);
      for (uint32_t t = 0; t < kTokens; ++t) {
        LoadValue(s_.type, tables_[t / kTileTokens] + (s_.kv_heads + kv) * tile, s_.head_dim,
                  t % kTileTokens, row.data());
        for (uint32_t d = 0; d < s_.head_dim; ++d) out[h * s_.head_dim + d] += w[t] / sum * row[d];
      }
    }
    return out;
  }

 private:
  static uint8_t* Aligned(std::vector<uint8_t>& bytes) {
    return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  }
  const Shape s_;
  AttentionArgs a_;
  std::vector<uint8_t> pool_, scratch_, stage_;
  std::vector<const uint8_t*> tables_;
  std::vector<float> q_, sinks_, partial_;
};

TEST(AttentionRows, AllRowsGiveTheDenseBits) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      for (const bool exact : {false, true}) {
        Rows rows(s, exact, false), key_rows(s, exact, true);
        std::vector<uint32_t> all(kTokens * s.kv_heads);
        for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint32_t>(i % kTokens);
        const auto dense = rows.Dense();
        EXPECT_EQ(rows.Chosen(all), dense) << KvTypeName(s.type) << " " << s.head_dim;
        EXPECT_EQ(key_rows.Chosen(all), dense) << KvTypeName(s.type) << " " << s.head_dim;
        EXPECT_EQ(key_rows.Dense(), dense) << KvTypeName(s.type) << " " << s.head_dim;
      }
    }
  }
  UseTarget(0);
}

TEST(AttentionRows, SomeRowsAreDenseAttentionWithoutTheOthers) {
  std::mt19937 rng(3);
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      Rows rows(s, true, false), key_rows(s, true, true);
      for (const uint32_t count : {1u, 15u, 64u, 100u, 256u, 300u}) {
        for (const bool runs : {false, true}) {
          std::vector<uint32_t> some;
          for (uint32_t h = 0; h < s.kv_heads; ++h) {
            // Rows anywhere, or whole runs of 16 and what is left.
            std::vector<uint32_t> order(runs ? kTokens / 16 : kTokens);
            std::iota(order.begin(), order.end(), 0u);
            std::shuffle(order.begin(), order.end(), rng);
            std::vector<uint32_t> own;
            for (uint32_t i = 0; i < count; ++i) {
              own.push_back(runs ? order[i / 16] * 16 + i % 16 : order[i]);
            }
            std::sort(own.begin(), own.end());
            some.insert(some.end(), own.begin(), own.end());
          }
          const auto got = rows.Chosen(some);
          EXPECT_EQ(key_rows.Chosen(some), got) << KvTypeName(s.type) << " " << count;
          const auto want = rows.Masked(some);
          for (size_t i = 0; i < got.size(); ++i) {
            ASSERT_NEAR(got[i], want[i], 2e-5) << KvTypeName(s.type) << " " << count;
          }
        }
      }
    }
  }
  UseTarget(0);
}

TEST(ReadScores, HalvesAsInDouble) {
  std::mt19937 rng(4);
  std::normal_distribution<float> normal;
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const size_t heads : {1u, 2u, 3u, 6u, 8u}) {
      for (const size_t width : {16u, 64u, 272u}) {
        constexpr size_t kRows = 5, kStride = 7;
        std::vector<uint16_t> rows(kRows * width);
        for (uint16_t& v : rows) v = FloatToHalf(normal(rng));
        std::vector<float> q(heads * width), scores(heads * kStride, -1);
        for (float& v : q) v = normal(rng);
        ScoreHalves(rows.data(), kRows, width, q.data(), heads, scores.data(), kStride);
        for (size_t h = 0; h < heads; ++h) {
          for (size_t r = 0; r < kRows; ++r) {
            double dot = 0;
            for (size_t i = 0; i < width; ++i) {
              dot += double{HalfToFloat(rows[r * width + i])} * q[h * width + i];
            }
            EXPECT_NEAR(scores[h * kStride + r], dot, 1e-4);
          }
          EXPECT_EQ(scores[h * kStride + kRows], -1);
        }
      }
    }
  }
  UseTarget(0);
}

TEST(ReadScores, HeadsCompareByWhatTheyLoseToTheirBest) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const size_t n : {1u, 3u, 8u, 37u}) {
      constexpr size_t kStride = 40;
      std::vector<float> scores(3 * kStride);
      for (size_t h = 0; h < 3; ++h) {
        for (size_t i = 0; i < n; ++i) {
          scores[h * kStride + i] =
              100.0f * static_cast<float>(h) + static_cast<float>(i * (7 + h) % 11);
        }
      }
      if (n > 5) scores[5] = NAN;
      std::vector<float> want(n, -INFINITY);
      for (size_t h = 0; h < 3; ++h) {
        float best = -INFINITY;
        for (size_t i = 0; i < n; ++i) best = std::fmax(best, scores[h * kStride + i]);
        for (size_t i = 0; i < n; ++i) want[i] = std::fmax(want[i], scores[h * kStride + i] - best);
      }
      CombineHeads(scores.data(), 3, kStride, n);
      for (size_t i = 0; i < n; ++i) EXPECT_EQ(scores[i], want[i]) << n << " " << i;
    }
  }
  UseTarget(0);
}

}  // namespace
}  // namespace snug
