// MiniCache against its rule: blends by hand and by the error law, which rows stay apart, and a
// cache of pairs of layers whose rows and attention are those of the rule in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <random>
#include <set>

#include "format/dtype.h"
#include "kernel/kv_layout.h"
#include "kernel/targets.h"
#include "kernel/tile_codec.h"
#include "kv/cache.h"
#include "kv/share/share.h"
#include "kv/tiles.h"

namespace snug {
namespace {

using Row = std::vector<double>;

std::shared_ptr<const ShareMethod> Method(const std::string& spec) {
  auto method = ParseShare(spec);
  EXPECT_TRUE(method.ok()) << spec;
  return method.ok() ? *method : nullptr;
}

double Dot(const Row& a, const Row& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
double Length(const Row& a) { return std::sqrt(Dot(a, a)); }
RowDots Dots(const Row& x, const Row& y) { return {Dot(x, x), Dot(y, y), Dot(x, y)}; }
Row Mix(const Row& x, double a, const Row& y, double b) {
  Row out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = a * x[i] + b * y[i];
  return out;
}
double Off(const Row& a, const Row& b) { return Length(Mix(a, 1, b, -1)); }

// Both layers' rows as they are restored.
struct Restored {
  Row shared, x, y;
};
Restored Merged(const ShareMethod& method, const Row& x, const Row& y) {
  const RowBlend blend = method.Blend(Dots(x, y));
  Restored r;
  r.shared = Mix(x, blend.of_lower, y, blend.of_upper);
  const double length = Length(r.shared);
  r.x = Mix(r.shared, length == 0 ? 0 : Length(x) / length, x, 0);
  r.y = Mix(r.shared, length == 0 ? 0 : Length(y) / length, x, 0);
  return r;
}

TEST(MiniCache, BlendsByHand) {
  const Row x = {2, 0}, y = {0, 3};
  const Restored half = Merged(*Method("minicache:t=0.5"), x, y);
  EXPECT_NEAR(half.shared[0], std::sqrt(0.5), 1e-12);
  EXPECT_NEAR(half.shared[1], std::sqrt(0.5), 1e-12);
  EXPECT_NEAR(half.x[0], 1.4142, 1e-4);
  EXPECT_NEAR(half.y[1], 2.1213, 1e-4);
  EXPECT_NEAR(Method("minicache")->Distance(Dots(x, y)), 0.5, 1e-12);
  const Restored most = Merged(*Method("minicache"), x, y);
  EXPECT_NEAR(most.shared[0], 0.5878, 1e-4);
  EXPECT_NEAR(most.shared[1], 0.8090, 1e-4);
  EXPECT_NEAR(Off(most.x, x) / 2, 0.9080, 1e-4);
  EXPECT_NEAR(Off(most.y, y) / 3, 0.6180, 1e-4);
}

Row Random(std::mt19937& rng, size_t n) {
  std::normal_distribution<double> normal;
  Row row(n);
  for (double& v : row) v = normal(rng);
  return row;
}

TEST(MiniCache, ErrorsAreThoseOfTheLaw) {
  std::mt19937 rng(5);
  for (const char* t : {"0", "0.3", "0.5", "0.6", "1"}) {
    const auto method = Method(std::string("minicache:t=") + t);
    const double weight = std::stod(t);
    for (int i = 0; i < 200; ++i) {
      const Row x = Random(rng, 24);
      // Angles of all sizes.
      const Row y = Mix(x, i % 3 == 0 ? 1 : -0.5, Random(rng, 24), std::exp2(-i / 16.0) * 4);
      const double angle = std::numbers::pi * method->Distance(Dots(x, y));
      const Restored r = Merged(*method, x, y);
      EXPECT_NEAR(Length(r.shared), 1, 1e-9);
      EXPECT_NEAR(Length(r.x), Length(x), 1e-9 * Length(x));
      EXPECT_NEAR(Length(r.y), Length(y), 1e-9 * Length(y));
      EXPECT_NEAR(Off(r.x, x) / Length(x), 2 * std::sin(weight * angle / 2), 1e-5) << i;
      EXPECT_NEAR(Off(r.y, y) / Length(y), 2 * std::sin((1 - weight) * angle / 2), 1e-5) << i;
    }
  }
}

TEST(MiniCache, WhatHasOneDirectionIsExact) {
  std::mt19937 rng(6);
  const auto method = Method("minicache");
  for (const double scale : {1.0, 1e-3, 7.0, 1e4}) {
    const Row x = Random(rng, 32), y = Mix(x, scale, x, 0);
    const Restored r = Merged(*method, x, y);
    EXPECT_LT(Off(r.x, x), 1e-6 * Length(x));
    EXPECT_LT(Off(r.y, y), 1e-6 * Length(y));
    EXPECT_LT(method->Distance(Dots(x, y)), 1e-6);
  }
  // A row without direction takes the other's, and costs it nothing.
  const Row x = Random(rng, 32), zero(32);
  for (const Restored& r : {Merged(*method, x, zero), Merged(*method, zero, x)}) {
    EXPECT_NEAR(Length(r.shared), 1, 1e-12);
    EXPECT_NEAR(Length(r.x) + Length(r.y), Length(x), 1e-9);
  }
  EXPECT_EQ(Length(Merged(*method, zero, zero).shared), 0);
  EXPECT_EQ(method->Distance(Dots(x, zero)), 0);
  // Opposite rows have no direction between them: that of the layer that t favours.
  const Row back = Mix(x, -2, x, 0);
  EXPECT_NEAR(method->Distance(Dots(x, back)), 1, 1e-6);
  EXPECT_LT(Off(Merged(*method, x, back).y, back), 1e-6);
  EXPECT_LT(Off(Merged(*Method("minicache:t=0.4"), x, back).x, x), 1e-6);
}

TEST(MiniCache, MergingCommutesWithRotation) {
  std::mt19937 rng(7);
  const auto method = Method("minicache");
  const auto rotated = [](Row row, double token) {
    for (size_t i = 0; i + 1 < row.size(); i += 2) {
      const double angle = token / (1 + static_cast<double>(i));
      const double a = row[i], b = row[i + 1];
      row[i] = a * std::cos(angle) - b * std::sin(angle);
      row[i + 1] = a * std::sin(angle) + b * std::cos(angle);
    }
    return row;
  };
  for (double token = 0; token < 300; token += 37) {
    const Row x = Random(rng, 32), y = Random(rng, 32);
    const Restored before = Merged(*method, x, y);
    const Restored after = Merged(*method, rotated(x, token), rotated(y, token));
    EXPECT_LT(Off(rotated(before.x, token), after.x), 1e-5);
    EXPECT_LT(Off(rotated(before.y, token), after.y), 1e-5);
  }
}

std::vector<uint32_t> Chosen(const ShareMethod& method, std::vector<float> d, uint32_t rows,
                             ApartSoFar* so_far) {
  std::vector<float> room(d.size());
  std::vector<uint32_t> chosen(d.size());
  chosen.resize(method.Choose(d, rows, room.data(), chosen.data(), so_far));
  return chosen;
}

TEST(MiniCache, WhatStaysApartByHand) {
  using Rows = std::vector<uint32_t>;
  const auto half = Method("minicache:gamma=0.5");
  ApartSoFar so_far;
  EXPECT_EQ(Chosen(*half, {.1f, .9f, .3f, .8f, .2f}, 5, &so_far), Rows({1, 2, 3}));
  EXPECT_EQ(so_far.count, 3u);
  EXPECT_FLOAT_EQ(so_far.least, .3f);
  // Of the next four two may, if they are farther than the nearest of those so far.
  EXPECT_EQ(Chosen(*half, {.2f, .5f, .1f, .3f}, 9, &so_far), Rows({1}));
  EXPECT_EQ(so_far.count, 4u);
  EXPECT_EQ(Chosen(*half, {.4f, .9f, .6f, .7f}, 13, &so_far), Rows({1, 2, 3}));
  // Within a quarter of the range [.1, .9] of the farthest; at most `most`.
  const std::vector<float> d = {.1f, .9f, .3f, .8f, .72f, .2f, .69f, .65f};
  so_far = {};
  EXPECT_EQ(Chosen(*Method("minicache:retain=range,gamma=0.25,most=1"), d, 8, &so_far),
            Rows({1, 3, 4}));
  so_far = {};
  EXPECT_EQ(Chosen(*Method("minicache:retain=range,gamma=0.25,most=1/4"), d, 8, &so_far),
            Rows({1, 3}));
  for (const uint32_t n : {1u, 20u, 40u, 1280u, 1281u, 32768u}) {
    EXPECT_EQ(Method("minicache")->MostApart(n), (n + 19) / 20) << n;
    EXPECT_EQ(Method("minicache:gamma=0")->MostApart(n), 0u);
    EXPECT_EQ(Method("minicache:gamma=1")->MostApart(n), n);
  }
}

TEST(MiniCache, PairsBeginWhereTheyAreToldTo) {
  using Layers = std::vector<uint32_t>;
  EXPECT_EQ(*Method("minicache")->Pairs(8), Layers({4, 6}));
  EXPECT_EQ(*Method("minicache")->Pairs(7), Layers({3, 5}));
  EXPECT_EQ(*Method("minicache:start=3/4")->Pairs(8), Layers({6}));
  EXPECT_EQ(*Method("minicache:start=0")->Pairs(5), Layers({0, 2}));
  EXPECT_EQ(*Method("minicache:start=1")->Pairs(8), Layers());
  EXPECT_EQ(*Method("minicache:start=5")->Pairs(8), Layers({5}));
  const auto beyond = Method("minicache:start=9")->Pairs(8);
  ASSERT_FALSE(beyond.ok());
  EXPECT_NE(beyond.error().message.find("layer 9 of 8"), std::string::npos);
  for (const char* spec : {"t=1.1", "t=-0.1", "gamma=2", "gamma=-1", "unit=row", "start=-1"}) {
    const auto bad = ParseShare(std::string("minicache:") + spec);
    ASSERT_FALSE(bad.ok()) << spec;
    EXPECT_EQ(bad.error().code, Code::kUsage);
  }
}

// --- a cache

constexpr uint32_t kLayers = 3, kHeads = 4, kKvHeads = 2, kDim = 32, kContext = 320;

// Three layers, the upper two of which are a pair.
class Sequence {
 public:
  Sequence(const std::string& spec, KvType type) : ledger_(64 * kMiB), pool_(2) {
    layout_.key_type = layout_.value_type = type;
    layout_.layers = kLayers;
    layout_.kv_heads = kKvHeads;
    layout_.query_heads = kHeads / kKvHeads;
    layout_.head_dim = kDim;
    layout_.window = {0, 0, 0};
    layout_.context = kContext;
    layout_.chunk = 64;
    layout_.share = Method(spec);
    layout_.pairs = *layout_.share->Pairs(kLayers);
    auto cache = KvCache::Create(layout_, ledger_);
    EXPECT_TRUE(cache.ok());
    cache_ = std::make_unique<KvCache>(std::move(*cache));
    EXPECT_EQ(ledger_.snapshot().total, KvCache::PoolBytes(layout_));
    std::mt19937 rng(11);
    std::normal_distribution<float> normal;
    for (auto& layer : rows_) {
      for (auto& side : layer) {
        side.resize(kContext * kKvHeads * kDim);
        for (float& v : side) v = normal(rng);
      }
    }
    // From alike to unlike; some without a direction, some opposite.
    for (uint32_t t = 0; t < kContext; ++t) {
      for (size_t side = 0; side < 2; ++side) {
        for (uint32_t i = t * kKvHeads * kDim; i < (t + 1) * kKvHeads * kDim; ++i) {
          const float x = rows_[1][side][i];
          float& y = rows_[2][side][i];
          y = 2 * x + y * static_cast<float>((t * 37 + side * 11) % 50) / 10;
          if (t % 90 == 17 && side == 0) y = -3 * x;
          if (t == 30 || t == 31) y = 0;
          if (t == 31 || t == 32) rows_[1][side][i] = 0;
        }
      }
    }
    queries_.resize(kHeads * kDim);
    for (float& q : queries_) q = normal(rng);
  }

  KvCache& cache() { return *cache_; }
  const KvLayout& layout() const { return layout_; }

  void Prompt(uint32_t n) {
    const uint32_t length = cache_->length(0);
    cache_->BeginPrompt(0, n);
    for (uint32_t l = 0; l < kLayers; ++l) {
      cache_->BeginLayer(0, l);
      cache_->ExtendLayer(0, l, n);
      for (uint32_t t = length; t < length + n; ++t) Put(l, t);
      cache_->CommitLayer(0, l, n);
      cache_->EndLayer(0, l, pool_);
    }
    cache_->EndPrompt(0);
  }
  void Token() {
    const uint32_t t = cache_->length(0);
    cache_->Extend(0, 1);
    for (uint32_t l = 0; l < kLayers; ++l) Put(l, t);
    cache_->Commit(0, 1);
    cache_->ShareRows(0, pool_);
  }

  // A token's row of a head as it was stored.
  std::vector<float> Stored(uint32_t layer, size_t side, uint32_t token, uint32_t head) const {
    std::vector<uint8_t> tile(KvTileBytes(layout_.key_type, kDim));
    std::vector<float> row(kDim);
    const float* from = &rows_[layer][side][(token * kKvHeads + head) * kDim];
    if (side == 0) {
      StoreKey(layout_.key_type, from, kDim, 0, tile.data());
      LoadKey(layout_.key_type, tile.data(), kDim, 0, row.data());
    } else {
      StoreValue(layout_.value_type, from, kDim, 0, tile.data());
      LoadValue(layout_.value_type, tile.data(), kDim, 0, row.data());
    }
    return row;
  }
  // As attention sees it now.
  std::vector<float> Seen(uint32_t layer, size_t side, uint32_t token, uint32_t head) const {
    std::vector<float> row(kDim);
    const SharedRows s = cache_->shared(0, layer);
    const auto load = [&](const uint8_t* page) {
      const size_t tile = KvTileBytes(layout_.key_type, kDim);
      const uint8_t* at = page + (side * kKvHeads + head) * tile;
      (side == 0 ? LoadKey : LoadValue)(layout_.key_type, at, kDim, token % kTile, row.data());
    };
    if (token >= s.rows) {
      load(cache_->tiles(0, layer)[token / kTile]);
      return row;
    }
    const OwnRows& own = (side == 0 ? s.keys : s.values)[head];
    for (uint32_t i = 0; i < own.count; ++i) {
      if (own.rows[i] != token) continue;
      for (uint32_t d = 0; d < kDim; ++d) {
        row[d] = StoredValue(layout_.key_type, own.data + i * own.stride, d);
      }
      return row;
    }
    load(s.tiles[token / kTile]);
    const float scale = (side == 0 ? s.key_scales : s.value_scales)[head * s.scale_stride + token];
    for (float& v : row) v *= scale;
    return row;
  }

  std::set<uint32_t> Apart(size_t side, uint32_t head) const {
    const SharedRows s = cache_->shared(0, 1);
    if (s.rows == 0) return {};
    const OwnRows& own = (side == 0 ? s.keys : s.values)[head];
    return {own.rows, own.rows + own.count};
  }

  // Attention of one query of the newest token.
  std::vector<float> Attend(uint32_t layer) {
    std::vector<float> out(kHeads * kDim);
    AttentionArgs a;
    a.key_type = a.value_type = layout_.key_type;
    a.heads = kHeads;
    a.kv_heads = kKvHeads;
    a.head_dim = kDim;
    a.scale = 1 / std::sqrt(static_cast<float>(kDim));
    a.q = queries_.data();
    a.q_stride = a.out_stride = kHeads * kDim;
    a.tokens = 1;
    a.first_pos = cache_->length(0) - 1;
    a.tiles = cache_->tiles(0, layer);
    a.shared = cache_->shared(0, layer);
    a.out = out.data();
    std::vector<uint8_t> scratch(AttentionScratchBytes(kDim, kHeads / kKvHeads) + 64);
    uint8_t* room = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    std::vector<float> partial(PartialFloats(1, kHeads, kDim, kContext));
    const AttentionPlan plan = PlanAttention(a, 1);
    for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, room, partial.data());
    for (uint32_t h = 0; h < kHeads; ++h) CombinePartials(a, plan, partial.data(), 0, h);
    return out;
  }
  // The same in double over rows(side, token, head).
  template <class F>
  Row Softmax(const F& rows) const {
    Row out;
    for (uint32_t h = 0; h < kHeads; ++h) {
      const uint32_t kv = h / (kHeads / kKvHeads), n = cache_->length(0);
      Row weights, sum(kDim);
      double total = 0;
      for (uint32_t t = 0; t < n; ++t) {
        double dot = 0;
        const auto key = rows(0, t, kv);
        for (uint32_t d = 0; d < kDim; ++d) dot += double{queries_[h * kDim + d]} * key[d];
        weights.push_back(std::exp(dot / std::sqrt(double{kDim})));
        total += weights.back();
      }
      for (uint32_t t = 0; t < n; ++t) {
        const auto value = rows(1, t, kv);
        for (uint32_t d = 0; d < kDim; ++d) sum[d] += weights[t] / total * value[d];
      }
      out.insert(out.end(), sum.begin(), sum.end());
    }
    return out;
  }

 private:
  void Put(uint32_t layer, uint32_t token) {
    const size_t tile = KvTileBytes(layout_.key_type, kDim);
    for (uint32_t h = 0; h < kKvHeads; ++h) {
      uint8_t* page = cache_->page(0, layer, token / kTile);
      const size_t at = (token * kKvHeads + h) * kDim;
      StoreKey(layout_.key_type, &rows_[layer][0][at], kDim, token % kTile, page + h * tile);
      StoreValue(layout_.value_type, &rows_[layer][1][at], kDim, token % kTile,
                 page + (kKvHeads + h) * tile);
    }
  }

  KvLayout layout_;
  Ledger ledger_;
  ThreadPool pool_;
  std::unique_ptr<KvCache> cache_;
  std::vector<float> rows_[kLayers][2];
  std::vector<float> queries_;
};

double Rounding(KvType type) {
  return type == KvType::kF32 ? 1e-6 : type == KvType::kF16 ? 1e-3 : 8e-3;
}

// The two rows of a unit that a row of a head is part of, as one.
Row Unit(const Sequence& s, uint32_t layer, size_t side, uint32_t token, uint32_t head,
         bool by_head) {
  Row row;
  for (uint32_t h = by_head ? head : 0; h < (by_head ? head + 1 : kKvHeads); ++h) {
    for (const float v : s.Stored(layer, side, token, h)) row.push_back(v);
  }
  return row;
}

// Every row is what the rule makes of those that were stored.
void ExpectRowsOfTheRule(Sequence& s) {
  const ShareMethod& method = *s.layout().share;
  const uint32_t shared = s.cache().shared(0, 1).rows;
  ASSERT_EQ(shared, method.Shared(s.cache().length(0)));
  for (size_t side = 0; side < 2; ++side) {
    for (uint32_t h = 0; h < kKvHeads; ++h) {
      const auto apart = s.Apart(side, h);
      for (uint32_t t = 0; t < s.cache().length(0); ++t) {
        for (const uint32_t l : {1u, 2u}) {
          const auto seen = s.Seen(l, side, t, h), stored = s.Stored(l, side, t, h);
          if (t >= shared || apart.count(t) != 0) {
            ASSERT_EQ(seen, stored) << t;  // bit by bit
            continue;
          }
          const Row x = Unit(s, 1, side, t, h, method.by_head());
          const Row y = Unit(s, 2, side, t, h, method.by_head());
          const Restored r = Merged(method, x, y);
          const Row& unit = l == 1 ? r.x : r.y;
          const double length = Length(unit);
          for (uint32_t d = 0; d < kDim; ++d) {
            const double want = unit[(method.by_head() ? 0 : h * kDim) + d];
            ASSERT_NEAR(seen[d], want, Rounding(s.layout().key_type) * length + 1e-9) << t;
          }
        }
      }
    }
  }
}

// Lengths are those of the stored rows, whatever the direction was rounded to.
void ExpectLengths(Sequence& s) {
  const ShareMethod& method = *s.layout().share;
  for (uint32_t t = 0; t < s.cache().shared(0, 1).rows; ++t) {
    for (const uint32_t l : {1u, 2u}) {
      for (size_t side = 0; side < 2; ++side) {
        double seen = 0, stored = 0;
        for (uint32_t h = 0; h < kKvHeads; ++h) {
          for (const float v : s.Seen(l, side, t, h)) seen += double{v} * v;
          for (const float v : s.Stored(l, side, t, h)) stored += double{v} * v;
          if (!method.by_head()) continue;
          ASSERT_NEAR(std::sqrt(seen), std::sqrt(stored), 1e-6 * std::sqrt(stored)) << t;
        }
        ASSERT_NEAR(std::sqrt(seen), std::sqrt(stored), 1e-6 * std::sqrt(stored)) << t;
      }
    }
  }
}

void ExpectAttention(Sequence& s) {
  for (const uint32_t l : {0u, 1u, 2u}) {
    const auto out = s.Attend(l);
    const Row want = s.Softmax([&](size_t side, uint32_t t, uint32_t h) {
      return l == 0 ? s.Stored(l, side, t, h) : s.Seen(l, side, t, h);
    });
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], want[i], 2e-5) << l << " " << i;
  }
}

constexpr const char* kSpecs[] = {"minicache",
                                  "minicache:unit=head",
                                  "minicache:values=keys,t=0.3",
                                  "minicache:retain=range,gamma=0.3,residual=40",
                                  "minicache:gamma=0",
                                  "minicache:gamma=1"};

TEST(MiniCache, RowsAndAttentionAreThoseOfTheRule) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const char* spec : kSpecs) {
      for (const KvType type : {KvType::kF16, KvType::kBF16, KvType::kF32}) {
        SCOPED_TRACE(std::string(spec) + " " + std::string(KvTypeName(type)));
        Sequence s(std::string(spec) + (std::strchr(spec, ':') ? "," : ":") + "start=1/3", type);
        ASSERT_EQ(s.layout().pairs, std::vector<uint32_t>{1});
        s.Prompt(150);
        ExpectRowsOfTheRule(s);
        ExpectLengths(s);
        ExpectAttention(s);
        while (s.cache().length(0) < 200) {
          s.Token();
          if (s.cache().length(0) % 16 == 0) ExpectAttention(s);
        }
        ExpectRowsOfTheRule(s);
        s.Prompt(100);  // after what is merged
        ExpectRowsOfTheRule(s);
        ExpectAttention(s);
        s.cache().Clear(0);
        EXPECT_EQ(s.cache().held_bytes(), 0u);
      }
    }
  }
  UseTarget(0);
}

// Tokens apart: the share of those that a prompt merged, the farthest of them; opposite ones among
// them.
TEST(MiniCache, TheFarthestStayApart) {
  for (const char* spec : {"minicache:start=1/3", "minicache:start=1/3,unit=head"}) {
    Sequence s(spec, KvType::kF16);
    s.Prompt(300);
    const ShareMethod& method = *s.layout().share;
    for (size_t side = 0; side < 2; ++side) {
      for (uint32_t h = 0; h < kKvHeads; ++h) {
        const auto apart = s.Apart(side, h);
        EXPECT_EQ(apart.size(), 13u);  // of 256
        double nearest_apart = 1, farthest_merged = 0;
        for (uint32_t t = 0; t < 256; ++t) {
          const double d = method.Distance(Dots(Unit(s, 1, side, t, h, method.by_head()),
                                                Unit(s, 2, side, t, h, method.by_head())));
          double& extreme = apart.count(t) != 0 ? nearest_apart : farthest_merged;
          extreme = apart.count(t) != 0 ? std::min(extreme, d) : std::max(extreme, d);
        }
        EXPECT_GE(nearest_apart, farthest_merged - 1e-6);
        if (side == 0) {
          for (const uint32_t opposite : {17u, 107u, 197u}) EXPECT_EQ(apart.count(opposite), 1u);
        }
      }
    }
  }
}

// The bytes of the paper's count, with lengths in four bytes for two and tokens' numbers: the page
// of shared rows for both layers' pages, four lengths, two rows of those apart.
TEST(MiniCache, BytesAreThoseOfTheFormula) {
  Sequence s("minicache:start=1/3", KvType::kF16);
  constexpr uint64_t kRow = kKvHeads * kDim * 2, kPage = 2 * kRow * kTile;
  EXPECT_EQ(s.layout().page_bytes(), kPage);
  s.Prompt(256);
  const uint64_t apart = 13;
  const uint64_t want = 2 * 4 * kPage + 256 * 4 * sizeof(float) + 2 * apart * (2 * kRow + 4);
  EXPECT_EQ(s.cache().held_bytes(), want);
  s.Token();  // the newest is exact: a page more of each layer
  EXPECT_EQ(s.cache().held_bytes(), want + 3 * kPage);
  // The upper layer's pages serve again.
  EXPECT_EQ(s.cache().tiles(0, 2)[0], nullptr);
  EXPECT_NE(s.cache().tiles(0, 1)[0], nullptr);
  // Prompts: what stays, and at most two layers' dense rows.
  EXPECT_LE(s.layout().total_pages(), 2u * 5 + 1 + 2 * 5);
  EXPECT_EQ(s.layout().total_pages(), 2u * 5 + 1 + 4);
}

TEST(MiniCache, WithoutPairsTheCacheIsDense) {
  Sequence s("minicache:start=1", KvType::kF16);
  s.Prompt(200);
  EXPECT_EQ(s.layout().shared().bytes(), 0u);
  EXPECT_EQ(s.cache().shared(0, 2).rows, 0u);
  EXPECT_EQ(s.cache().held_bytes(), 3 * 4 * s.layout().page_bytes());
  // All apart: dense but for the order of sums.
  Sequence all("minicache:start=1/3,gamma=1", KvType::kF16);
  all.Prompt(200);
  for (const uint32_t l : {0u, 1u, 2u}) {
    const auto dense = s.Attend(l), apart = all.Attend(l);
    for (size_t i = 0; i < dense.size(); ++i) EXPECT_NEAR(apart[i], dense[i], 2e-5);
  }
}

}  // namespace
}  // namespace snug
