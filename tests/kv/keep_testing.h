// A cache of one layer under a keep method, with made-up queries, keys and values: what the kernel
// sees is compared with a softmax in double over the rows that the method's rule leaves. Where
// positions roll, queries and keys are rotated for their positions in the text.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kv/cache.h"
#include "kv/keep/keep.h"

namespace snug::keep_testing {

inline constexpr uint32_t kHeads = 4, kKvHeads = 2, kDim = 32, kContext = 320;

inline KvLayout Layout(const std::string& spec, KvType type) {
  KvLayout l;
  l.key_type = l.value_type = type;
  l.layers = 1;
  l.kv_heads = kKvHeads;
  l.query_heads = kHeads / kKvHeads;
  l.head_dim = kDim;
  l.window = {0};
  l.context = kContext;
  l.chunk = 64;
  auto keep = ParseKeep(spec);
  EXPECT_TRUE(keep.ok()) << spec;
  if (keep.ok()) l.keep = *keep;
  return l;
}

// Rotates a head for a position, or by a number of them, in double.
inline std::vector<double> Rotated(const KeyRotation& r, const float* head, double position) {
  std::vector<double> x(head, head + kDim);
  for (uint32_t i = 0; i < r.dim / 2; ++i) {
    const uint32_t a = r.interleaved ? 2 * i : i, b = r.interleaved ? 2 * i + 1 : i + r.dim / 2;
    const double angle = r.frequencies[i] * position;
    const double from = x[a], to = x[b];
    x[a] = from * std::cos(angle) - to * std::sin(angle);
    x[b] = to * std::cos(angle) + from * std::sin(angle);
  }
  return x;
}

// A sequence of made-up queries, keys and values, some tokens of which draw attention.
class Sequence {
 public:
  // With `rolling`, of up to `tokens` tokens.
  Sequence(const std::string& spec, KvType type, std::optional<KeyRotation> rolling = {},
           uint32_t tokens = kContext)
      : layout_(Layout(spec, type)), ledger_(64 * kMiB), pool_(2) {
    layout_.rolling = std::move(rolling);
    auto cache = KvCache::Create(layout_, ledger_);
    EXPECT_TRUE(cache.ok());
    cache_ = std::make_unique<KvCache>(std::move(*cache));
    EXPECT_EQ(ledger_.snapshot().total, KvCache::PoolBytes(layout_));
    std::mt19937 rng(11);
    std::normal_distribution<float> normal;
    q_.resize(tokens * kHeads * kDim);
    k_.resize(tokens * kKvHeads * kDim);
    v_.resize(k_.size());
    for (auto* rows : {&q_, &k_, &v_}) {
      for (float& x : *rows) x = normal(rng);
    }
    if (layout_.rolling) {
      text_q_ = InTheText(q_, kHeads);
      text_k_ = InTheText(k_, kKvHeads);
    }
    scratch_.resize(AttentionScratchBytes(kDim, kHeads / kKvHeads) + 64);
    partial_.resize(PartialFloats(kMaxSplitRows, kHeads, kDim, kContext));
    log_sums_.resize(64 * kHeads);
  }

  KvCache& cache() { return *cache_; }
  // [kContext, kKvHeads, kDim], for tests that make up their own.
  std::vector<float>& keys() { return k_; }
  const float* query(uint32_t t, uint32_t head) const { return &q_[(t * kHeads + head) * kDim]; }
  const float* key(uint32_t t, uint32_t head) const { return &k_[(t * kKvHeads + head) * kDim]; }
  const float* value(uint32_t t, uint32_t head) const { return &v_[(t * kKvHeads + head) * kDim]; }
  uint64_t free_bytes() const { return KvCache::PoolBytes(layout_) - cache_->held_bytes(); }

  // Queries' attention over the rows, [tokens, heads, dim].
  std::vector<float> Prompt(uint32_t n, uint32_t chunk) {
    const uint32_t length = cache_->length(0);
    std::vector<float> out;
    cache_->BeginPrompt(0, n);
    cache_->BeginLayer(0, 0);
    for (uint32_t done = 0; done < n; done += chunk) {
      const uint32_t m = std::min(chunk, n - done);
      cache_->ExtendLayer(0, 0, m);
      const auto part = Run(length + done, m);
      out.insert(out.end(), part.begin(), part.end());
      cache_->CommitLayer(0, 0, m);
    }
    cache_->EndLayer(0, 0, pool_);
    cache_->EndPrompt(0);
    return out;
  }
  std::vector<float> Token() {
    cache_->Extend(0, 1);
    auto out = Run(cache_->length(0), 1);
    cache_->Commit(0, 1);
    cache_->DropRows(0, pool_);
    return out;
  }

  // Softmax in double of token `t`'s query over the given rows, as weights; `out` the weighted sum.
  std::vector<double> Softmax(uint32_t t, uint32_t head, const std::vector<uint32_t>& rows,
                              std::vector<double>* out) const {
    const uint32_t kv = head / (kHeads / kKvHeads);
    std::vector<double> w;
    double max = -1e300, sum = 0;
    for (const uint32_t p : rows) {
      double dot = 0;
      for (uint32_t d = 0; d < kDim; ++d) {
        dot += double{q_[(t * kHeads + head) * kDim + d]} * k_[(p * kKvHeads + kv) * kDim + d];
      }
      w.push_back(dot / std::sqrt(kDim));
      max = std::max(max, w.back());
    }
    for (double& x : w) sum += x = std::exp(x - max);
    out->assign(kDim, 0);
    for (size_t i = 0; i < rows.size(); ++i) {
      w[i] /= sum;
      for (uint32_t d = 0; d < kDim; ++d) {
        (*out)[d] += w[i] * v_[(rows[i] * kKvHeads + kv) * kDim + d];
      }
    }
    return w;
  }

  std::vector<uint32_t> Kept(uint32_t head) const {
    const auto span = cache_->positions(0, 0, head);
    std::vector<uint32_t> kept(span.begin(), span.end());
    std::sort(kept.begin(), kept.end());
    return kept;
  }

  // What is stored for each row that stands for one token is what was stored for it.
  void ExpectRowsAreTheirTokens() const {
    std::vector<float> got(kDim), want(kDim);
    for (uint32_t h = 0; h < kKvHeads; ++h) {
      const auto positions = cache_->positions(0, 0, h);
      for (uint32_t r = 0; r < positions.size(); ++r) {
        if (cache_->bias(0, 0).rows != nullptr && cache_->members(0, 0, h, r) != 1) continue;
        const uint8_t* page = cache_->tiles(0, 0)[h * cache_->table_stride() + r / kTileTokens];
        const size_t at = (positions[r] * kKvHeads + h) * kDim;
        std::vector<uint8_t> tile(KvTileBytes(layout_.key_type, kDim));
        StoreKey(layout_.key_type, &k_[at], kDim, 3, tile.data());
        LoadKey(layout_.key_type, tile.data(), kDim, 3, want.data());
        LoadKey(layout_.key_type, page, kDim, r % kTileTokens, got.data());
        ASSERT_EQ(got, want) << "key of head " << h << " row " << r;
        StoreValue(layout_.value_type, &v_[at], kDim, 3, tile.data());
        LoadValue(layout_.value_type, tile.data(), kDim, 3, want.data());
        LoadValue(layout_.value_type, page + cache_->key_tile_bytes(), kDim, r % kTileTokens,
                  got.data());
        ASSERT_EQ(got, want) << "value of head " << h << " row " << r;
      }
    }
  }

 private:
  // Rows of heads, each rotated for its position.
  std::vector<float> InTheText(const std::vector<float>& rows, uint32_t heads) const {
    std::vector<float> rotated;
    for (size_t h = 0; h < rows.size() / kDim; ++h) {
      const auto head = Rotated(*layout_.rolling, &rows[h * kDim], static_cast<double>(h / heads));
      rotated.insert(rotated.end(), head.begin(), head.end());
    }
    return rotated;
  }

  std::vector<float> Run(uint32_t first, uint32_t n) {
    const uint32_t rows = cache_->rows(0, 0);
    for (uint32_t t = 0; t < n; ++t) {
      for (uint32_t h = 0; h < kKvHeads; ++h) {
        uint8_t* page = cache_->page(0, 0, (rows + t) / kTileTokens, h);
        const size_t at = ((first + t) * kKvHeads + h) * kDim;
        StoreKey(layout_.key_type, &(layout_.rolling ? text_k_ : k_)[at], kDim,
                 (rows + t) % kTileTokens, page);
        StoreValue(layout_.value_type, &v_[at], kDim, (rows + t) % kTileTokens,
                   page + cache_->key_tile_bytes());
      }
    }
    std::vector<float> out(n * kHeads * kDim);
    AttentionArgs a;
    a.key_type = layout_.key_type;
    a.value_type = layout_.value_type;
    a.heads = kHeads;
    a.kv_heads = kKvHeads;
    a.head_dim = kDim;
    a.scale = 1 / std::sqrt(static_cast<float>(kDim));
    a.exact = true;
    a.q = (layout_.rolling ? text_q_ : q_).data() + first * kHeads * kDim;
    a.q_stride = a.out_stride = kHeads * kDim;
    a.tokens = n;
    a.first_pos = rows;
    a.tiles = cache_->tiles(0, 0);
    a.page_heads = 1;
    a.table_stride = cache_->table_stride();
    a.bias = cache_->bias(0, 0).rows;
    a.bias_stride = cache_->bias(0, 0).stride;
    a.out = out.data();
    a.log_sums = log_sums_.data();
    uint8_t* scratch =
        scratch_.data() + (64 - reinterpret_cast<uintptr_t>(scratch_.data()) % 64) % 64;
    const AttentionPlan plan = PlanAttention(a, 2);
    for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, scratch, partial_.data());
    for (uint32_t r = 0; plan.split && r < n; ++r) {
      for (uint32_t h = 0; h < kHeads; ++h) CombinePartials(a, plan, partial_.data(), r, h);
    }
    ColumnSums sums = cache_->Watch(0, 0, first, n);
    noise_sums_.resize(log_sums_.size());
    sums.noise.log_sums = noise_sums_.data();
    for (uint32_t t = NoiseTasks(a); sums.noise.temperature != 0 && t-- > 0;) {
      NoiseTask(a, sums, t, scratch);
    }
    if (sums.first_row < n) {
      for (uint32_t t = ObserveTasks(a); t-- > 0;) ObserveTask(a, sums, t, scratch);
    }
    return out;
  }

  KvLayout layout_;
  Ledger ledger_;
  ThreadPool pool_;
  std::unique_ptr<KvCache> cache_;
  std::vector<float> q_, k_, v_, text_q_, text_k_, partial_, log_sums_, noise_sums_;
  std::vector<uint8_t> scratch_;
};

inline std::vector<uint32_t> UpTo(uint32_t n) {
  std::vector<uint32_t> rows(n);
  for (uint32_t i = 0; i < n; ++i) rows[i] = i;
  return rows;
}

// Rows and sums of one KV head as a method's rule leaves them, in double.
struct Rule {
  uint32_t head;
  std::vector<uint32_t> rows;
  std::map<uint32_t, double> sums;

  // Token `t` attends to the rows, itself included; its weights are added up.
  void Attend(const Sequence& s, uint32_t t, bool add, const float* out) {
    rows.push_back(t);
    if (!add) sums.clear();
    const uint32_t group = kHeads / kKvHeads;
    for (uint32_t g = 0; g < group; ++g) {
      std::vector<double> sum;
      const auto w = s.Softmax(t, head * group + g, rows, &sum);
      for (size_t i = 0; i < rows.size(); ++i) sums[rows[i]] += w[i] / group;
      for (uint32_t d = 0; out != nullptr && d < kDim; ++d) {
        ASSERT_NEAR(out[(head * group + g) * kDim + d], sum[d], 2e-5) << "token " << t;
      }
    }
  }
  // Drops the rows of least score until `stay` are left, but none from position `safe` on.
  template <class Score>
  void Shrink(uint32_t stay, uint32_t safe, const Score& score) {
    while (rows.size() > stay) {
      size_t least = rows.size();
      for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i] >= safe) continue;
        if (least == rows.size() || score(rows[i]) <= score(rows[least])) least = i;
      }
      sums.erase(rows[least]);
      rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(least));
    }
  }
};

}  // namespace snug::keep_testing
