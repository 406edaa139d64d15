// Read methods over a cache of one layer: what the kernel sees is the softmax over the rows that
// the method's rule chooses, worked out in double; the rule itself against a slow sort.
#include "kv/read/read.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kv/cache.h"
#include "kv/read/channels.h"
#include "kv/row_reader.h"

namespace snug {
namespace {

constexpr uint32_t kHeads = 4, kKvHeads = 2, kDim = 32, kContext = 420;
constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8_0,
                             KvType::kQ4_0};

// Rankings of channels are in order.
std::shared_ptr<const RowMethod> Method(const std::string& spec) {
  auto method = ParseRead(spec);
  EXPECT_TRUE(method.ok()) << spec;
  if (!method.ok()) return nullptr;
  if (!(*method)->needs_channels()) return AsRows(*method);
  auto ranking = std::make_shared<ChannelRanking>();
  ranking->kv_heads = kKvHeads;
  ranking->head_dim = kDim;
  ranking->layers.resize(1);
  for (uint32_t i = 0; i < kKvHeads * kDim; ++i) {
    ranking->layers[0].push_back(static_cast<uint16_t>(i % kDim));
  }
  return AsRows((*method)->WithChannels(ranking));
}

// A sequence of made-up queries, keys and values.
class Sequence {
 public:
  Sequence(const std::string& spec, KvType type) : ledger_(64 * kMiB), pool_(2) {
    layout_.key_type = layout_.value_type = type;
    layout_.layers = 1;
    layout_.kv_heads = kKvHeads;
    layout_.head_dim = kDim;
    layout_.window = {0};
    layout_.context = kContext;
    layout_.chunk = 64;
    layout_.sequences = 2;
    layout_.read = Method(spec);
    auto cache = KvCache::Create(layout_, ledger_);
    EXPECT_TRUE(cache.ok());
    cache_ = std::make_unique<KvCache>(std::move(*cache));
    EXPECT_EQ(ledger_.snapshot().total, KvCache::PoolBytes(layout_));
    const RowReaderLayout reader{layout_.read, type, type, kHeads, kKvHeads, kDim, kContext, 2};
    auto made = RowReader::Create(reader, ledger_);
    EXPECT_TRUE(made.ok());
    reader_ = std::make_unique<RowReader>(std::move(*made));
    std::mt19937 rng(11);
    std::normal_distribution<float> normal;
    q_.resize(kContext * kHeads * kDim);
    k_.resize(kContext * kKvHeads * kDim);
    v_.resize(k_.size());
    for (auto* rows : {&q_, &k_, &v_}) {
      for (float& x : *rows) x = normal(rng);
    }
    scratch_.resize(2 * stride() + 64);
  }

  KvCache& cache() { return *cache_; }
  RowReader& reader() { return *reader_; }
  const RowMethod& method() const { return *layout_.read; }

  // Adds `n` tokens in steps of `chunk`; `shift` makes them others.
  void Add(uint32_t sequence, uint32_t n, uint32_t chunk, uint32_t shift = 0) {
    while (n > 0) {
      const uint32_t step = std::min(n, chunk), first = cache_->length(sequence);
      cache_->Extend(sequence, step);
      for (uint32_t t = first; t < first + step; ++t) {
        uint8_t* page = cache_->page(sequence, 0, t / kTileTokens);
        for (uint32_t h = 0; h < kKvHeads; ++h) {
          const size_t at = ((t + shift) % kContext * kKvHeads + h) * kDim;
          const auto store = layout_.KeyRows(0) ? StoreValue : StoreKey;
          store(layout_.key_type, &k_[at], kDim, t % kTileTokens,
                page + h * cache_->key_tile_bytes());
          StoreValue(layout_.value_type, &v_[at], kDim, t % kTileTokens,
                     page + kKvHeads * cache_->key_tile_bytes() + h * cache_->value_tile_bytes());
        }
      }
      for (uint32_t t = first; t < first + step;) {
        const uint32_t tile = t / kTileTokens, begin = t % kTileTokens;
        const uint32_t end = std::min<uint32_t>(kTileTokens, begin + first + step - t);
        cache_->IndexRows(sequence, 0, tile, begin, end);
        t += end - begin;
      }
      cache_->Commit(sequence, step);
      n -= step;
    }
  }

  // Attention of the newest token's query.
  std::vector<float> Attend(uint32_t sequence) {
    std::vector<float> out(kHeads * kDim);
    AttentionArgs a = Args(sequence);
    a.out = out.data();
    uint8_t* scratch =
        scratch_.data() + (64 - reinterpret_cast<uintptr_t>(scratch_.data()) % 64) % 64;
    EXPECT_TRUE(reader_->Attend(a, 0, pool_, scratch, stride()).ok());
    return out;
  }

  std::vector<float> Key(uint32_t sequence, uint32_t head, uint32_t t) const {
    std::vector<float> key(kDim);
    const uint8_t* page = cache_->tiles(sequence, 0)[t / kTileTokens];
    const auto load = layout_.KeyRows(0) ? LoadValue : LoadKey;
    load(layout_.key_type, page + head * cache_->key_tile_bytes(), kDim, t % kTileTokens,
         key.data());
    return key;
  }
  const float* Query(uint32_t t, uint32_t head) const { return &q_[(t * kHeads + head) * kDim]; }
  // The unit's guessed score under a query head.
  float Guess(uint32_t sequence, uint32_t head, uint32_t unit) const {
    const uint32_t units = static_cast<uint32_t>(kTileTokens) / method().budget().unit;
    const uint32_t group = kHeads / kKvHeads, kv = head / group;
    std::vector<uint8_t> prepared(method().QueryBytes(group, kDim));
    method().Prepare({Query(cache_->length(sequence) - 1, kv * group), group, kDim, 0, kv},
                     prepared.data());
    std::vector<float> scores(group * kTileTokens);
    const uint8_t* page = cache_->tiles(sequence, 0)[unit / units];
    const size_t at = kKvHeads * (cache_->key_tile_bytes() + cache_->value_tile_bytes()) +
                      kv * method().IndexBytes(kDim);
    method().Score(page + at, prepared.data(), group, kDim, scores.data(), kTileTokens);
    return scores[head % group * kTileTokens + unit % units];
  }

  // Softmax in double over what the reader chose.
  void ExpectSoftmaxOverChosen(uint32_t sequence, const std::vector<float>& got) const {
    const uint32_t newest = cache_->length(sequence) - 1;
    std::vector<float> value(kDim);
    for (uint32_t h = 0; h < kHeads; ++h) {
      const uint32_t kv = h / (kHeads / kKvHeads);
      const auto rows = reader_->chosen(kv);
      std::vector<double> w, out(kDim);
      double max = -1e300, sum = 0;
      for (const uint32_t r : rows) {
        const auto key = Key(sequence, kv, r);
        double dot = 0;
        for (uint32_t d = 0; d < kDim; ++d) dot += double{Query(newest, h)[d]} * key[d];
        w.push_back(dot / std::sqrt(kDim));
        max = std::max(max, w.back());
      }
      for (double& x : w) sum += x = std::exp(x - max);
      for (size_t i = 0; i < rows.size(); ++i) {
        const uint8_t* page = cache_->tiles(sequence, 0)[rows[i] / kTileTokens];
        LoadValue(layout_.value_type,
                  page + kKvHeads * cache_->key_tile_bytes() + kv * cache_->value_tile_bytes(),
                  kDim, rows[i] % kTileTokens, value.data());
        for (uint32_t d = 0; d < kDim; ++d) out[d] += w[i] / sum * value[d];
      }
      for (uint32_t d = 0; d < kDim; ++d) ASSERT_NEAR(got[h * kDim + d], out[d], 2e-5);
    }
  }

 private:
  size_t stride() const { return (AttentionScratchBytes(kDim, kHeads / kKvHeads) + 63) / 64 * 64; }
  AttentionArgs Args(uint32_t sequence) const {
    AttentionArgs a;
    a.key_type = a.value_type = layout_.key_type;
    a.heads = kHeads;
    a.kv_heads = kKvHeads;
    a.head_dim = kDim;
    a.scale = 1 / std::sqrt(static_cast<float>(kDim));
    a.exact = true;
    a.tokens = 1;
    a.first_pos = cache_->length(sequence) - 1;
    a.q = Query(a.first_pos, 0);
    a.q_stride = a.out_stride = kHeads * kDim;
    a.tiles = cache_->tiles(sequence, 0);
    a.table_stride = cache_->table_stride();
    a.key_rows = layout_.KeyRows(0);
    return a;
  }

  KvLayout layout_;
  Ledger ledger_;
  ThreadPool pool_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<RowReader> reader_;
  std::vector<float> q_, k_, v_;
  std::vector<uint8_t> scratch_;
};

TEST(Read, BudgetsAreWholeUnits) {
  ReadBudget b{1.0 / 16, 64, 0, 0, 1, 1};
  EXPECT_EQ(b.Units(64), 64u);
  EXPECT_EQ(b.Units(65), 64u);
  EXPECT_EQ(b.Units(3200), 200u);
  b.unit = 16;
  EXPECT_EQ(b.Units(64), 4u);
  EXPECT_EQ(b.Units(70), 4u);  // of 5
  EXPECT_EQ(b.Units(3210), 13u);
  b = {100, 1, 0, 300, 20, 16};  // more is always read than the budget has
  EXPECT_EQ(b.Units(10000), 19u + 2 + 1);
  b = {1, 1, 0, 0, 1, 16};
  EXPECT_EQ(b.Units(1000), 63u);
}

TEST(Read, TheLargestScoresAreThoseOfASort) {
  std::mt19937 rng(2);
  for (const uint32_t n : {1u, 2u, 50u, 3000u}) {
    for (int kind = 0; kind < 4; ++kind) {
      std::vector<float> scores(n);
      for (float& s : scores) {
        const float x = std::normal_distribution<float>()(rng);
        s = kind == 0 ? x : kind == 1 ? std::round(x) : kind == 2 ? -1e30f * std::fabs(x) / 5 : 3;
      }
      if (kind == 0) scores[n / 2] = -1e30f;
      std::vector<uint32_t> order(n);
      for (uint32_t i = 0; i < n; ++i) order[i] = i;
      std::stable_sort(order.begin(), order.end(),
                       [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
      for (const uint32_t count : {0u, 1u, n / 16, n / 2, n}) {
        std::vector<uint32_t> want(order.begin(), order.begin() + count), got(count);
        std::sort(want.begin(), want.end());
        std::vector<float> room(n);
        ChooseLargest(scores, count, room.data(), got.data());
        EXPECT_EQ(got, want) << n << " " << kind << " " << count;
      }
    }
  }
}

// Where single rows are read, keys lie by rows.
TEST(Read, SingleRowsAreFoundWhereKeysLieByRows) {
  for (const KvType type : kTypes) {
    Sequence s("double-sparsity:tokens=96,dense-layers=0,channels=1,label-bits=16", type);
    ASSERT_TRUE(s.cache().layout().KeyRows(0));
    s.Add(0, 333, 7);
    const auto got = s.Attend(0);
    s.ExpectSoftmaxOverChosen(0, got);
    for (uint32_t h = 0; h < kKvHeads; ++h) {
      EXPECT_EQ(s.reader().chosen(h).size(), 96u);
      // The guess is q.k itself, rounded to f16.
      const auto key = s.Key(0, h, 200);
      double dot = 0;
      for (uint32_t d = 0; d < kDim; ++d) dot += double{s.Query(332, 2 * h)[d]} * key[d];
      EXPECT_NEAR(s.Guess(0, 2 * h, 200), dot, 0.02);
    }
  }
}

TEST(Read, QuestBoundsEveryScoreOfThePage) {
  for (const KvType type : kTypes) {
    for (const char* spec : {"quest:least=32", "quest:page=64", "quest:page=4"}) {
      Sequence s(spec, type);
      s.Add(0, 333, 7);
      const uint32_t page = s.method().budget().unit;
      for (uint32_t h = 0; h < kHeads; ++h) {
        for (uint32_t t = 0; t < 333; ++t) {
          const auto key = s.Key(0, h / (kHeads / kKvHeads), t);
          double dot = 0;
          for (uint32_t d = 0; d < kDim; ++d) dot += double{s.Query(332, h)[d]} * key[d];
          EXPECT_GE(s.Guess(0, h, t / page) + 1e-4, dot);
        }
      }
    }
  }
}

TEST(Read, QuestReadsThePagesWithTheLargestBounds) {
  for (const KvType type : kTypes) {
    Sequence s("quest:tokens=96,sinks=3,recent=20", type);
    s.Add(0, 90, 64);
    while (s.cache().length(0) < 400) {
      s.Add(0, 31, 31);
      const uint32_t rows = s.cache().length(0), pages = (rows + 15) / 16;
      const auto out = s.Attend(0);
      s.ExpectSoftmaxOverChosen(0, out);
      for (uint32_t kv = 0; kv < kKvHeads; ++kv) {
        // How far each page's bound lies below the best of its head's, by the better head.
        std::vector<float> score(pages, -INFINITY);
        const uint32_t last = (rows - 20) / 16;
        for (uint32_t h = 2 * kv; h < 2 * kv + 2; ++h) {
          float best = -INFINITY;
          for (uint32_t p = 1; p < last; ++p) best = std::max(best, s.Guess(0, h, p));
          for (uint32_t p = 1; p < last; ++p) {
            score[p] = std::max(score[p], s.Guess(0, h, p) - best);
          }
        }
        for (uint32_t p = 0; p < pages; ++p) {
          if (p == 0 || p >= last) score[p] = INFINITY;
        }
        std::vector<uint32_t> order(pages);
        for (uint32_t p = 0; p < pages; ++p) order[p] = p;
        std::stable_sort(order.begin(), order.end(),
                         [&](uint32_t a, uint32_t b) { return score[a] > score[b]; });
        order.resize(6);
        std::sort(order.begin(), order.end());
        std::vector<uint32_t> want;
        for (const uint32_t p : order) {
          for (uint32_t r = 16 * p; r < std::min(rows, 16 * p + 16); ++r) want.push_back(r);
        }
        const auto got = s.reader().chosen(kv);
        EXPECT_EQ(std::vector<uint32_t>(got.begin(), got.end()), want) << rows;
      }
    }
  }
}

// What is chosen depends on the rows alone: not on the steps they came in, nor on what was there
// before a rollback or in a shared page.
TEST(Read, StepsRollbacksAndSharedPrefixesLeaveNoTrace) {
  for (const char* spec : {"quest:tokens=64", "quest:tokens=70,page=8"}) {
    Sequence plain(spec, KvType::kQ8_0);
    plain.Add(0, 300, 300);
    const auto want = plain.Attend(0);
    for (const uint32_t chunk : {1u, 7u, 64u}) {
      Sequence s(spec, KvType::kQ8_0);
      s.Add(0, 300, chunk);
      EXPECT_EQ(s.Attend(0), want) << chunk;
      // Other tokens come and go.
      EXPECT_EQ(s.cache().Truncate(0, 201), 201u);
      s.Add(0, 60, chunk, 33);
      EXPECT_EQ(s.cache().Truncate(0, 201), 201u);
      EXPECT_EQ(s.cache().Share(0, 1, 201), 201u);
      s.Add(1, 99, chunk);
      EXPECT_EQ(s.Attend(1), want) << chunk;
      s.Add(0, 99, chunk);
      EXPECT_EQ(s.Attend(0), want) << chunk;
    }
  }
}

TEST(Read, WrongSpecsAreRefused) {
  const auto refused = [](const std::string& spec, const std::string& why) {
    const auto method = ParseRead(spec);
    ASSERT_FALSE(method.ok()) << spec;
    EXPECT_EQ(method.error().code, Code::kUsage);
    EXPECT_NE((method.error().message + method.error().next).find(why), std::string::npos)
        << method.error().message << " " << method.error().next;
  };
  refused("quests", "quest");
  refused("quest:page=12", "page=12");
  refused("quest:tokens=0", "tokens=0");
  refused("quest:recent=0", "recent=0");
  refused("quest:token=4", "did you mean tokens");
}

}  // namespace
}  // namespace snug
