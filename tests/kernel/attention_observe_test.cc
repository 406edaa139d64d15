// The attention that tokens get, and tables of pages by head.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernel/attention.h"
#include "kernel/targets.h"

namespace snug {
namespace {

struct Shape {
  KvType type;
  uint32_t heads, kv_heads, head_dim, page_heads;
  float softcap = 0;
  bool sinks = false;
};
constexpr uint32_t kTokens = 300;
constexpr size_t kStride = 320;

// A cache of random tokens in pages of page_heads heads each, with tables apart.
class Cache {
 public:
  explicit Cache(const Shape& s) : s_(s) {
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    const size_t key = KvTileBytes(s.type, s.head_dim);
    const uint32_t groups = s.kv_heads / s.page_heads;
    for (uint32_t i = 0; i < groups * kTiles; ++i) {
      pages_.emplace_back(s.page_heads * 2 * key + 64);
      auto* p = pages_.back().data();
      tables_.push_back(p + (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64);
    }
    std::vector<float> row(s.head_dim);
    for (uint32_t t = 0; t < kTokens; ++t) {
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        auto* page = const_cast<uint8_t*>(tables_[h / s.page_heads * kTiles + t / kTileTokens]);
        const uint32_t at = h % s.page_heads;
        for (float& v : row) v = normal(rng);
        StoreKey(s.type, row.data(), s.head_dim, t % kTileTokens, page + at * key);
        for (float& v : row) v = normal(rng);
        StoreValue(s.type, row.data(), s.head_dim, t % kTileTokens,
                   page + (s.page_heads + at) * key);
      }
    }
    queries_.resize(size_t{kTokens} * width());
    for (float& v : queries_) v = normal(rng);
    sinks_.resize(s.heads);
    for (float& v : sinks_) v = 3 * normal(rng);
  }

  size_t width() const { return size_t{s_.heads} * s_.head_dim; }
  bool by_query_head = false;
  std::vector<uint32_t> probes;  // not empty: the queries that count
  uint32_t first_tile = 0;

  // Attention of all tokens in chunks; sums over the queries from `from` on.
  void Run(uint32_t chunk, bool exact, uint32_t from, std::vector<float>* out,
           std::vector<float>* sums) const {
    out->assign(queries_.size(), 0);
    sums->assign((by_query_head ? s_.heads : s_.kv_heads) * kStride, 0);
    std::vector<uint8_t> bytes(AttentionScratchBytes(s_.head_dim, s_.heads / s_.kv_heads) + 64);
    uint8_t* scratch = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
    std::vector<float> partial(PartialFloats(kMaxSplitRows, s_.heads, s_.head_dim, kTokens));
    std::vector<float> log_sums(size_t{kTokens} * s_.heads);
    for (uint32_t first = 0; first < kTokens; first += chunk) {
      AttentionArgs a;
      a.key_type = a.value_type = s_.type;
      a.heads = s_.heads;
      a.kv_heads = s_.kv_heads;
      a.head_dim = s_.head_dim;
      a.scale = 1 / std::sqrt(static_cast<float>(s_.head_dim));
      a.softcap = s_.softcap;
      a.exact = exact;
      if (s_.sinks) a.sinks = sinks_.data();
      a.q = queries_.data() + first * width();
      a.q_stride = a.out_stride = width();
      a.tokens = std::min(chunk, kTokens - first);
      a.first_pos = first;
      a.tiles = tables_.data();
      a.page_heads = s_.page_heads;
      a.table_stride = kTiles;
      a.out = out->data() + first * width();
      a.log_sums = log_sums.data();
      const AttentionPlan plan = PlanAttention(a, 2);
      for (uint32_t t = plan.tasks; t-- > 0;) AttendTask(a, plan, t, scratch, partial.data());
      for (uint32_t r = 0; plan.split && r < a.tokens; ++r) {
        for (uint32_t h = 0; h < a.heads; ++h) CombinePartials(a, plan, partial.data(), r, h);
      }
      if (first + a.tokens <= from) continue;
      ColumnSums to{from - std::min(from, first), sums->data(), kStride, {}, by_query_head};
      if (!probes.empty()) {
        const auto begin = std::lower_bound(probes.begin(), probes.end(), first);
        const auto end = std::lower_bound(begin, probes.end(), first + a.tokens);
        if (begin == end) continue;
        to.probe = &*begin;
        to.probes = static_cast<uint32_t>(end - begin);
        to.probe_base = first;
      }
      to.first_tile = first_tile;
      for (uint32_t t = ObserveTasks(a); t-- > 0;) ObserveTask(a, to, t, scratch);
    }
  }

  // The same sums in double.
  std::vector<double> Sums(uint32_t from) const {
    std::vector<double> sums((by_query_head ? s_.heads : s_.kv_heads) * kStride);
    const size_t key_bytes = KvTileBytes(s_.type, s_.head_dim);
    const uint32_t group = s_.heads / s_.kv_heads;
    std::vector<float> row(s_.head_dim);
    for (uint32_t t = from; t < kTokens; ++t) {
      if (!probes.empty() && !std::binary_search(probes.begin(), probes.end(), t)) continue;
      for (uint32_t h = 0; h < s_.heads; ++h) {
        const uint32_t kv = h / group;
        std::vector<double> w;
        double max = -1e300;
        for (uint32_t p = 0; p <= t; ++p) {
          const uint8_t* page = tables_[kv / s_.page_heads * kTiles + p / kTileTokens];
          LoadKey(s_.type, page + kv % s_.page_heads * key_bytes, s_.head_dim, p % kTileTokens,
                  row.data());
          double dot = 0;
          for (uint32_t d = 0; d < s_.head_dim; ++d)
            dot += double{queries_[t * width() + h * s_.head_dim + d]} * row[d];
          dot /= std::sqrt(static_cast<double>(s_.head_dim));
          w.push_back(s_.softcap > 0 ? s_.softcap * std::tanh(dot / s_.softcap) : dot);
          max = std::max(max, w.back());
        }
        double sum = s_.sinks ? std::exp(sinks_[h] - max) : 0;
        for (double& x : w) sum += x = std::exp(x - max);
        for (uint32_t p = 0; p <= t; ++p) {
          if (by_query_head) {
            sums[h * kStride + p] += w[p] / sum;
          } else {
            sums[kv * kStride + p] += w[p] / sum / group;
          }
        }
      }
    }
    return sums;
  }

 private:
  static constexpr uint32_t kTiles = (kTokens + kTileTokens - 1) / kTileTokens;
  Shape s_;
  std::vector<std::vector<uint8_t>> pages_;
  std::vector<const uint8_t*> tables_;
  std::vector<float> queries_, sinks_;
};

const Shape kShapes[] = {{KvType::kF16, 12, 2, 128, 1},       {KvType::kF32, 4, 4, 16, 1},
                         {KvType::kBF16, 5, 1, 80, 1},        {KvType::kQ8_0, 8, 4, 64, 2},
                         {KvType::kQ4_0, 6, 3, 32, 1},        {KvType::kF16, 14, 2, 64, 2, 30},
                         {KvType::kF16, 4, 2, 64, 1, 0, true}};

TEST(Observe, SumsAreThoseOfTheSoftmaxOnEveryTarget) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      const Cache cache(s);
      for (const uint32_t from : {0u, 250u, kTokens - 1}) {
        std::vector<float> out, sums;
        cache.Run(128, true, from, &out, &sums);
        const auto reference = cache.Sums(from);
        double total = 0;
        for (size_t i = 0; i < sums.size(); ++i) {
          ASSERT_NEAR(sums[i], reference[i], 1e-4 * (1 + reference[i])) << s.head_dim << " " << i;
          total += sums[i];
        }
        // Each query gives one in all.
        if (!s.sinks) {
          EXPECT_NEAR(total, s.kv_heads * (kTokens - from), 1e-2);
        }
      }
    }
  }
  UseTarget(0);
}

TEST(Observe, SumsOfQueryHeadsAreThoseOfTheSoftmaxOnEveryTarget) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      Cache cache(s);
      cache.by_query_head = true;
      std::vector<float> out, sums, parts;
      cache.Run(128, true, 250, &out, &sums);
      const auto reference = cache.Sums(250);
      for (size_t i = 0; i < sums.size(); ++i) {
        ASSERT_NEAR(sums[i], reference[i], 1e-4 * (1 + reference[i])) << s.head_dim << " " << i;
      }
      cache.Run(7, true, 250, &out, &parts);
      EXPECT_EQ(parts, sums) << s.head_dim;
    }
  }
  UseTarget(0);
}

TEST(Observe, ProbesAloneCountOnEveryTarget) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      Cache cache(s);
      cache.probes = {0, 5, 6, 63, 64, 130, 201, 202, 203, 290, 299};
      std::vector<float> out, sums, parts;
      cache.Run(128, true, 0, &out, &sums);
      const auto reference = cache.Sums(0);
      for (size_t i = 0; i < sums.size(); ++i) {
        ASSERT_NEAR(sums[i], reference[i], 1e-4 * (1 + reference[i])) << s.head_dim << " " << i;
      }
      for (const uint32_t chunk : {1u, 7u, kTokens}) {
        cache.Run(chunk, true, 0, &out, &parts);
        EXPECT_EQ(parts, sums) << s.head_dim << " " << chunk;
      }
      // Tiles before the first are left out, and the sums begin with it.
      cache.first_tile = 2;
      cache.Run(7, true, 0, &out, &parts);
      for (uint32_t h = 0; h < s.kv_heads; ++h) {
        for (size_t i = 128; i < kTokens; ++i) {
          ASSERT_EQ(parts[h * kStride + i - 128], sums[h * kStride + i]) << s.head_dim << " " << i;
        }
      }
    }
  }
  UseTarget(0);
}

TEST(Observe, ChunksDoNotChangeABit) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      const Cache cache(s);
      std::vector<float> out, sums, whole_out, whole;
      for (const bool exact : {false, true}) {
        cache.Run(kTokens, exact, 100, &whole_out, &whole);
        for (const uint32_t chunk : {1u, 7u, 64u}) {
          cache.Run(chunk, exact, 100, &out, &sums);
          EXPECT_EQ(sums, whole) << s.head_dim << " chunk " << chunk;
          EXPECT_EQ(out, whole_out) << s.head_dim << " chunk " << chunk;
        }
      }
    }
  }
  UseTarget(0);
}

TEST(Observe, PagesByHeadDoNotChangeABit) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (Shape s : kShapes) {
      std::vector<float> out, sums, whole_out, whole;
      Cache(s).Run(kTokens, false, 0, &out, &sums);
      s.page_heads = s.kv_heads;
      Cache(s).Run(kTokens, false, 0, &whole_out, &whole);
      EXPECT_EQ(out, whole_out) << s.head_dim;
      EXPECT_EQ(sums, whole) << s.head_dim;
    }
  }
  UseTarget(0);
}

// One query over keys that give scores 0, log 2 and log 3: with noise and temperature 1 its weights
// are, on average over many seeds, a softmax whose largest entry is a given one as often as the
// plain softmax says (the Gumbel-max trick).
TEST(Observe, NoiseIsGumbels) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    constexpr uint32_t kDim = 16;
    std::vector<float> page(2 * KvTileBytes(KvType::kF32, kDim) / sizeof(float) + 16);
    auto* base = reinterpret_cast<uint8_t*>(page.data());
    base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
    std::vector<float> q(kDim), k(kDim), out(kDim), sums(64), log_sums(1), noise_sums(1);
    q[0] = 1;
    for (uint32_t t = 0; t < 3; ++t) {
      k[0] = std::log(1.0f + static_cast<float>(t));
      StoreKey(KvType::kF32, k.data(), kDim, t, base);
    }
    std::vector<uint32_t> positions(64);
    for (uint32_t t = 0; t < 64; ++t) positions[t] = t;
    const uint8_t* tiles[] = {base};
    AttentionArgs a;
    a.key_type = a.value_type = KvType::kF32;
    a.heads = a.kv_heads = 1;
    a.head_dim = kDim;
    a.q = q.data();
    a.q_stride = a.out_stride = kDim;
    a.tokens = 1;
    a.first_pos = 2;
    a.tiles = tiles;
    a.out = out.data();
    a.log_sums = log_sums.data();
    std::vector<uint8_t> bytes(AttentionScratchBytes(kDim, 1) + 64);
    uint8_t* scratch = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
    std::vector<float> partial(PartialFloats(1, 1, kDim, 64));
    const AttentionPlan plan = PlanAttention(a, 1);
    for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, scratch, partial.data());
    CombinePartials(a, plan, partial.data(), 0, 0);
    constexpr int kDraws = 20000;
    std::vector<int> largest(3);
    const auto observe = [&](float temperature, bool gumbel, uint64_t seed) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      ColumnSums to{0, sums.data(), 64, {}};
      to.noise = {temperature, gumbel, seed, positions.data(), 2, noise_sums.data()};
      for (uint32_t t = 0; t < NoiseTasks(a); ++t) NoiseTask(a, to, t, scratch);
      for (uint32_t t = 0; t < ObserveTasks(a); ++t) ObserveTask(a, to, t, scratch);
      EXPECT_NEAR(sums[0] + sums[1] + sums[2], 1, 1e-5);
    };
    for (int i = 0; i < kDraws; ++i) {
      observe(1, true, static_cast<uint64_t>(i));
      ++largest[static_cast<size_t>(std::max_element(sums.begin(), sums.begin() + 3) -
                                    sums.begin())];
    }
    for (int t = 0; t < 3; ++t) {
      const double p = (t + 1) / 6.0;
      EXPECT_NEAR(largest[static_cast<size_t>(t)], kDraws * p, 4 * std::sqrt(kDraws * p * (1 - p)));
    }
    // Without noise: exp(score / temperature), 1 to root 2 to root 3 at 2.
    observe(2, false, 0);
    EXPECT_NEAR(sums[1] / sums[0], std::sqrt(2.0f), 1e-5);
    EXPECT_NEAR(sums[2] / sums[0], std::sqrt(3.0f), 1e-5);
  }
  UseTarget(0);
}

TEST(KvCodec, CopiesAreWhatWasStored) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  constexpr size_t kDim = 96;
  for (const KvType type :
       {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8_0, KvType::kQ4_0, KvType::kF8E4M3}) {
    std::vector<uint8_t> from(KvTileBytes(type, kDim)), to(from.size()), expected;
    std::vector<float> row(kDim);
    for (size_t slot = 0; slot < kTileTokens; ++slot) {
      for (float& v : row) v = normal(rng);
      StoreKey(type, row.data(), kDim, slot, to.data());
    }
    for (const auto& [a, b] : {std::pair{0, 63}, std::pair{17, 17}, std::pair{62, 5}}) {
      for (float& v : row) v = normal(rng);
      StoreKey(type, row.data(), kDim, a, from.data());
      expected = to;
      StoreKey(type, row.data(), kDim, b, expected.data());
      CopyKey(type, from.data(), a, kDim, to.data(), b);
      EXPECT_EQ(to, expected) << KvTypeName(type);
      StoreValue(type, row.data(), kDim, a, from.data());
      StoreValue(type, row.data(), kDim, b, expected.data());
      CopyValue(type, from.data(), a, kDim, to.data(), b);
      EXPECT_EQ(to, expected) << KvTypeName(type);
    }
  }
}

}  // namespace
}  // namespace snug
