// Keep methods over a cache of one layer: what the kernel sees is the softmax over the rows that
// the method's rule leaves, worked out in double from the keys and values as they came.
#include "kv/keep/keep.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "kernel/targets.h"
#include "kv/cache.h"

namespace snug {
namespace {

constexpr uint32_t kHeads = 4, kKvHeads = 2, kDim = 32, kContext = 320;

KvLayout Layout(const std::string& spec, KvType type) {
  KvLayout l;
  l.key_type = l.value_type = type;
  l.layers = 1;
  l.kv_heads = kKvHeads;
  l.head_dim = kDim;
  l.window = {0};
  l.context = kContext;
  l.chunk = 64;
  auto keep = ParseKeep(spec);
  EXPECT_TRUE(keep.ok()) << spec;
  if (keep.ok()) l.keep = *keep;
  return l;
}

// A sequence of made-up queries, keys and values, some tokens of which draw attention.
class Sequence {
 public:
  Sequence(const std::string& spec, KvType type)
      : layout_(Layout(spec, type)), ledger_(64 * kMiB), pool_(2) {
    auto cache = KvCache::Create(layout_, ledger_);
    EXPECT_TRUE(cache.ok());
    cache_ = std::make_unique<KvCache>(std::move(*cache));
    EXPECT_EQ(ledger_.snapshot().total, KvCache::PoolBytes(layout_));
    std::mt19937 rng(11);
    std::normal_distribution<float> normal;
    q_.resize(kContext * kHeads * kDim);
    k_.resize(kContext * kKvHeads * kDim);
    v_.resize(k_.size());
    for (auto* rows : {&q_, &k_, &v_}) {
      for (float& x : *rows) x = normal(rng);
    }
    scratch_.resize(AttentionScratchBytes(kDim, kHeads / kKvHeads) + 64);
    partial_.resize(PartialFloats(kMaxSplitRows, kHeads, kDim, kContext));
    log_sums_.resize(64 * kHeads);
  }

  KvCache& cache() { return *cache_; }
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

  // What is stored for each row is what was stored for its token.
  void ExpectRowsAreTheirTokens() const {
    std::vector<float> got(kDim), want(kDim);
    for (uint32_t h = 0; h < kKvHeads; ++h) {
      const auto positions = cache_->positions(0, 0, h);
      for (uint32_t r = 0; r < positions.size(); ++r) {
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
  std::vector<float> Run(uint32_t first, uint32_t n) {
    const uint32_t rows = cache_->rows(0, 0);
    for (uint32_t t = 0; t < n; ++t) {
      for (uint32_t h = 0; h < kKvHeads; ++h) {
        uint8_t* page = cache_->page(0, 0, (rows + t) / kTileTokens, h);
        const size_t at = ((first + t) * kKvHeads + h) * kDim;
        StoreKey(layout_.key_type, &k_[at], kDim, (rows + t) % kTileTokens, page);
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
    a.q = q_.data() + first * kHeads * kDim;
    a.q_stride = a.out_stride = kHeads * kDim;
    a.tokens = n;
    a.first_pos = rows;
    a.tiles = cache_->tiles(0, 0);
    a.page_heads = 1;
    a.table_stride = cache_->table_stride();
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
  std::vector<float> q_, k_, v_, partial_, log_sums_, noise_sums_;
  std::vector<uint8_t> scratch_;
};

std::vector<uint32_t> UpTo(uint32_t n) {
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

TEST(Keep, H2oIsItsRuleOnEveryTarget) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    Sequence s("h2o:budget=80,recent=30", KvType::kF32);
    const auto prompt = s.Prompt(200, 64);
    std::vector<Rule> rules{{0, {}, {}}, {1, {}, {}}};
    for (uint32_t t = 0; t < 200; ++t) {
      for (Rule& r : rules) r.Attend(s, t, true, prompt.data() + t * kHeads * kDim);
    }
    for (uint32_t t = 200;; ++t) {
      for (Rule& r : rules) {
        r.Shrink(80, t - 30, [&](uint32_t p) { return r.sums[p]; });
        ASSERT_EQ(s.Kept(r.head), r.rows) << t;
      }
      s.ExpectRowsAreTheirTokens();
      if (t == 300) break;
      const auto out = s.Token();
      for (Rule& r : rules) r.Attend(s, t, true, out.data());
    }
    EXPECT_NE(s.Kept(0), s.Kept(1));
  }
  UseTarget(0);
}

TEST(Keep, TovaIsItsRule) {
  Sequence s("tova:budget=50", KvType::kF32);
  s.Prompt(130, 40);
  std::vector<Rule> rules{{0, UpTo(129), {}}, {1, UpTo(129), {}}};
  for (Rule& r : rules) r.Attend(s, 129, false, nullptr);
  for (uint32_t t = 130;; ++t) {
    // The sums of both heads are needed while either drops rows.
    const auto a = rules[0].sums, b = rules[1].sums;
    for (Rule& r : rules) {
      r.Shrink(50, t - 1, [&](uint32_t p) { return a.at(p) + b.at(p); });
      ASSERT_EQ(s.Kept(r.head), r.rows) << t;
    }
    if (t == 200) break;
    const auto out = s.Token();
    for (Rule& r : rules) r.Attend(s, t, false, out.data());
  }
}

TEST(Keep, SnapKvIsItsRule) {
  Sequence s("snapkv:budget=60,window=16,pool=5,answer=20", KvType::kF32);
  s.Prompt(200, 33);
  for (uint32_t head = 0; head < kKvHeads; ++head) {
    Rule r{head, UpTo(184), {}};
    for (uint32_t t = 184; t < 200; ++t) r.Attend(s, t, true, nullptr);
    const auto score = [&](uint32_t p) {
      double sum = 0;
      for (uint32_t i = p - std::min(p, 2u); i <= p + 2 && i < 184; ++i) sum += r.sums.at(i);
      return sum;
    };
    // Scores are means over neighbours: none may be forgotten before all are judged.
    std::map<uint32_t, double> scores;
    for (uint32_t p = 0; p < 184; ++p) scores[p] = score(p);
    r.Shrink(60, 184, [&](uint32_t p) { return scores.at(p); });
    EXPECT_EQ(s.Kept(head), r.rows);
  }
  auto prompt = s.Kept(0);
  for (uint32_t t = 200; t < 250; ++t) s.Token();
  // All that stayed of the prompt, and the last 20 of the answer.
  for (uint32_t t = 230; t < 250; ++t) prompt.push_back(t);
  EXPECT_EQ(s.Kept(0), prompt);
  s.ExpectRowsAreTheirTokens();
}

TEST(Keep, SinkWindowKeepsTheFirstAndTheLast) {
  Sequence s("sink-window:budget=40,sinks=3", KvType::kF16);
  s.Prompt(100, 64);
  for (uint32_t t = 100; t < 180; ++t) {
    std::vector<uint32_t> expected{0, 1, 2};
    for (uint32_t p = t - 37; p < t; ++p) expected.push_back(p);
    for (uint32_t h = 0; h < kKvHeads; ++h) ASSERT_EQ(s.Kept(h), expected);
    s.Token();
  }
  s.ExpectRowsAreTheirTokens();
}

TEST(Keep, RandomIsASampleThatTheSeedDecides) {
  const auto kept = [](const std::string& spec) {
    Sequence s(spec, KvType::kF16);
    s.Prompt(200, 64);
    for (int i = 0; i < 10; ++i) s.Token();
    return s.Kept(0);
  };
  const auto one = kept("random:budget=60,sinks=4,recent=20,seed=1");
  EXPECT_EQ(one.size(), 60u);
  EXPECT_EQ(one[3], 3u);
  EXPECT_EQ(one[40], 190u);
  EXPECT_EQ(kept("random:budget=60,sinks=4,recent=20,seed=1"), one);
  EXPECT_NE(kept("random:budget=60,sinks=4,recent=20,seed=2"), one);
}

// Without noise and at an even temperature of 1, Keyformer is H2O with its own share of recent
// tokens.
TEST(Keep, KeyformerWithoutNoiseIsH2o) {
  Sequence h2o("h2o:budget=80,recent=24", KvType::kF32);
  Sequence keyformer("keyformer:budget=80,recent=0.3,noise=0,first=1,last=1", KvType::kF32);
  h2o.Prompt(200, 64);
  keyformer.Prompt(200, 64);
  for (int i = 0; i < 80; ++i) {
    for (uint32_t h = 0; h < kKvHeads; ++h) ASSERT_EQ(keyformer.Kept(h), h2o.Kept(h)) << i;
    EXPECT_EQ(h2o.Token(), keyformer.Token());
  }
}

TEST(Keep, KeyformersNoiseIsTheSeeds) {
  const auto kept = [](const std::string& spec) {
    Sequence s(spec, KvType::kF32);
    s.Prompt(200, 64);
    for (int i = 0; i < 30; ++i) s.Token();
    return s.Kept(0);
  };
  const auto one = kept("keyformer:budget=80,seed=1");
  EXPECT_EQ(one.size(), 80u);
  EXPECT_EQ(kept("keyformer:budget=80,seed=1"), one);
  EXPECT_NE(kept("keyformer:budget=80,seed=2"), one);
  EXPECT_NE(kept("keyformer:budget=80,noise=0"), one);
}

constexpr const char* kSpecs[] = {
    "h2o:budget=70",         "keyformer:budget=70",        "random:budget=70",
    "sink-window:budget=70", "snapkv:budget=70,answer=10", "tova:budget=70"};

TEST(Keep, ChunksDoNotChangeWhatStaysNorItsBytes) {
  for (const char* spec : kSpecs) {
    for (const KvType type : {KvType::kF16, KvType::kQ8_0, KvType::kQ4_0}) {
      std::vector<std::vector<uint32_t>> kept;
      std::vector<float> last;
      uint64_t held = 0;
      for (const uint32_t chunk : {64u, 1u, 7u, 50u}) {
        Sequence s(spec, type);
        s.Prompt(210, chunk);
        std::vector<float> out;
        for (int i = 0; i < 20; ++i) out = s.Token();
        s.ExpectRowsAreTheirTokens();
        if (chunk == 64) {
          kept = {s.Kept(0), s.Kept(1)};
          held = s.cache().held_bytes();
          last = out;
        }
        EXPECT_EQ(s.Kept(0), kept[0]) << spec << " " << chunk;
        EXPECT_EQ(s.Kept(1), kept[1]) << spec << " " << chunk;
        EXPECT_EQ(s.cache().held_bytes(), held) << spec << " " << chunk;
        EXPECT_EQ(out, last) << spec << " " << chunk;
      }
    }
  }
}

// A prompt fills the context, its rows are dropped, and the next one finds the pages again, in a
// pool that has no more than one layer's beside those that stay.
TEST(Keep, PagesGoBackAtOnce) {
  for (const char* spec : kSpecs) {
    Sequence s(spec, KvType::kF16);
    for (int round = 0; round < 3; ++round) {
      s.Prompt(kContext - 12, 64);
      const uint64_t tiles = (s.cache().rows(0, 0) + kTileTokens - 1) / kTileTokens;
      EXPECT_EQ(s.cache().rows(0, 0), 70u) << spec;
      const uint64_t rows = kKvHeads * 70 * s.cache().layout().kept().row_bytes();
      EXPECT_EQ(s.cache().held_bytes(), kKvHeads * tiles * s.cache().layout().page_bytes() + rows);
      for (int i = 0; i < 12; ++i) s.Token();
      EXPECT_LE(s.cache().rows(0, 0), 80u) << spec;
      s.cache().Clear(0);
      EXPECT_EQ(s.cache().held_bytes(), 0u);
    }
  }
}

// What comes after an answer may be a prompt again.
TEST(Keep, PromptsFollowAnswers) {
  for (const char* spec : kSpecs) {
    Sequence s(spec, KvType::kF16);
    s.Prompt(150, 64);
    for (int i = 0; i < 20; ++i) s.Token();
    s.Prompt(100, 30);
    EXPECT_EQ(s.cache().rows(0, 0), 70u);
    EXPECT_EQ(s.cache().length(0), 270u);
    EXPECT_EQ(s.Kept(1).back(), 269u);
    for (int i = 0; i < 20; ++i) s.Token();
    s.ExpectRowsAreTheirTokens();
  }
}

TEST(Keep, SmallBudgetsStillKeepTheNewest) {
  for (const char* spec : {"h2o:budget=2,recent=0", "tova:budget=1.5", "snapkv:budget=3,answer=1",
                           "sink-window:budget=2", "random:budget=2"}) {
    Sequence s(spec, KvType::kF16);
    s.Prompt(20, 64);
    for (uint32_t t = 20; t < 40; ++t) {
      s.Token();
      EXPECT_EQ(s.Kept(0).back(), t) << spec;
    }
  }
}

}  // namespace
}  // namespace snug
