// Methods that choose blocks of keys for blocks of a prompt's queries: what they choose against the
// rule worked out slowly in double, whatever the chunks and threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "kv/block_reader.h"
#include "kv/cache.h"
#include "kv/read/blocks.h"

namespace snug {
namespace {

constexpr uint32_t kHeads = 4, kKvHeads = 2, kDim = 32, kTokens = 700, kWidth = kHeads * kDim;

std::shared_ptr<const BlockMethod> Method(const std::string& spec) {
  auto method = ParseRead(spec);
  EXPECT_TRUE(method.ok()) << spec;
  return method.ok() ? AsBlocks(*method) : nullptr;
}

TEST(Blocks, Budgets) {
  const BlockBudget b{0.125, 128, 32};
  EXPECT_EQ(b.Blocks(16384), 64u);
  EXPECT_EQ(b.Blocks(2048), 8u);
  EXPECT_EQ(b.Blocks(2100), 8u);
  EXPECT_EQ(b.Blocks(300), 2u);  // of 9: the first and the newest
  // 8 blocks are 256 tokens: two blocks of queries; and the last, with what it has.
  for (uint32_t row = 0; row < 17; ++row) {
    EXPECT_EQ(b.Dense(2100, row), row < 2 || row == 16) << row;
  }
  EXPECT_EQ(b.Newest(2100, 3), 15u);
  EXPECT_EQ(b.Newest(2100, 16), 65u);
  EXPECT_TRUE(b.Chooses(2100));
  EXPECT_FALSE(b.Chooses(256));
  EXPECT_FALSE((BlockBudget{1, 128, 32}.Chooses(4096)));
}

TEST(Blocks, ParametersThatDoNotFitAreRefused) {
  for (const char* spec : {"dhsa:keys=24", "dhsa:keys=32,queries=48", "block-sparse:keys=33",
                           "dhsa:density=0", "dhsa:density=1.5", "dhsa:mode=vsb"}) {
    EXPECT_FALSE(ParseRead(spec).ok()) << spec;
  }
  EXPECT_EQ(Method("dhsa")->budget().queries, 128u);
  EXPECT_EQ(Method("dhsa")->budget().keys, 32u);
  EXPECT_EQ(Method("block-sparse")->budget().density, 0.125);
}

// Of 256 tokens in blocks of 16 (queries of 32), a quarter: 4 blocks, 32 columns and 32 distances.
TEST(Dhsa, LinesByHand) {
  const auto method = Method("dhsa:queries=32,keys=16,density=1/4");
  constexpr uint32_t n = 256;
  std::vector<float> columns(n), distances(n), room(n), scores(n);
  std::vector<uint32_t> numbers(n), chosen(n);
  // Tokens 80 and 81 (block 5) have 3 and 1, token 40 (block 2) has 2; keys 100 back get 3.5.
  columns[80] = 3;
  columns[81] = 1;
  columns[40] = 2;
  distances[100] = 3.5;
  std::vector<uint8_t> digest(method->DigestBytes(n));
  method->Digest({n, columns.data(), distances.data()}, room.data(), numbers.data(), digest.data());
  PromptHead head{n, kDim};
  head.digest = digest.data();
  // Queries 192 .. 223 see keys 92 .. 123 100 back: blocks 5, 6 and 7.
  method->Score(head, 6, 0, 16, scores.data());
  for (uint32_t b = 0; b < 16; ++b) {
    const float want = (b == 5 ? 4.0f : b == 2 ? 2.0f : 0.0f) + (b >= 5 && b <= 7 ? 3.5f : 0.0f);
    EXPECT_EQ(scores[b], want) << b;
  }
  // The first, the newest (13), block 5, and of 6 and 7 the first.
  const uint32_t count = method->Choose(head, 6, scores.data(), room.data(), chosen.data());
  chosen.resize(count);
  EXPECT_EQ(chosen, (std::vector<uint32_t>{0, 5, 6, 13}));
}

// A prompt of made-up queries, keys and values in a cache of one layer.
class Prompt {
 public:
  Prompt(const std::string& spec, KvType type, uint32_t chunk, int threads)
      : ledger_(64 * kMiB), pool_(threads), chunk_(chunk) {
    layout_.key_type = layout_.value_type = type;
    layout_.layers = 1;
    layout_.kv_heads = kKvHeads;
    layout_.head_dim = kDim;
    layout_.window = {0};
    layout_.context = kTokens;
    layout_.chunk = kTokens;
    auto cache = KvCache::Create(layout_, ledger_);
    EXPECT_TRUE(cache.ok());
    cache_ = std::make_unique<KvCache>(std::move(*cache));
    method_ = Method(spec);
    const BlockReaderLayout reader{method_, type, type, kHeads, kKvHeads, kDim, kTokens, threads};
    const uint64_t before = ledger_.snapshot().total;
    auto made = BlockReader::Create(reader, ledger_);
    EXPECT_TRUE(made.ok());
    EXPECT_EQ(ledger_.snapshot().total - before, Buffer::Reserved(reader.bytes(), Pages::kNormal));
    reader_ = std::make_unique<BlockReader>(std::move(*made));
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    q_.resize(kTokens * kWidth);
    k_.resize(kTokens * kKvHeads * kDim);
    v_.resize(k_.size());
    for (auto* rows : {&q_, &k_, &v_}) {
      for (float& x : *rows) x = normal(rng);
    }
    // Some tokens that all ask for, and queries like the keys 50 before them.
    for (uint32_t t = 0; t < kTokens; ++t) {
      for (uint32_t i = 0; i < kWidth; ++i) {
        float& q = q_[t * kWidth + i];
        const uint32_t key = i / kDim / 2 * kDim + i % kDim;
        q = 0.6f * q + 0.3f;
        if (t >= 50) q += 0.4f * k_[(t - 50) * kKvHeads * kDim + key];
      }
      for (uint32_t i = 0; i < kKvHeads * kDim; ++i) {
        if (t % 97 == 11) k_[t * kKvHeads * kDim + i] += 0.5f;
      }
    }
    scratch_stride_ = AttentionScratchBytes(kDim, kHeads / kKvHeads);
    scratch_.resize(scratch_stride_ * threads + 64);
  }

  // Outputs of all rows that choose, zeros for the others.
  std::vector<float> Run() {
    cache_->Extend(0, kTokens);
    for (uint32_t t = 0; t < kTokens; ++t) {
      uint8_t* page = cache_->page(0, 0, t / kTileTokens);
      for (uint32_t h = 0; h < kKvHeads; ++h) {
        const size_t at = (size_t{t} * kKvHeads + h) * kDim;
        StoreKey(layout_.key_type, &k_[at], kDim, t % kTileTokens,
                 page + h * cache_->key_tile_bytes());
        StoreValue(layout_.value_type, &v_[at], kDim, t % kTileTokens,
                   page + kKvHeads * cache_->key_tile_bytes() + h * cache_->value_tile_bytes());
      }
    }
    reader_->Begin(kTokens);
    for (uint32_t at = 0; at < kTokens; at += chunk_) {
      const uint32_t n = std::min(chunk_, kTokens - at);
      const bool wanted = reader_->WantsQueries(at, n);
      reader_->Note(wanted ? &q_[at * kWidth] : nullptr, &k_[at * kKvHeads * kDim], at, n, pool_);
    }
    cache_->Commit(0, kTokens);
    std::vector<float> out(q_.size());
    for (uint32_t at = 0, n; at < kTokens; at += n) {
      n = 1;
      if (reader_->Dense(at)) continue;
      while (n < chunk_ && at + n < kTokens && !reader_->Dense(at + n)) ++n;
      AttentionArgs a;
      a.key_type = a.value_type = layout_.key_type;
      a.heads = kHeads;
      a.kv_heads = kKvHeads;
      a.head_dim = kDim;
      a.scale = 0.5f;
      a.exact = true;
      a.q = &q_[at * kWidth];
      a.out = &out[at * kWidth];
      a.q_stride = a.out_stride = kWidth;
      a.tokens = n;
      a.first_pos = at;
      a.tiles = cache_->tiles(0, 0);
      a.table_stride = cache_->table_stride();
      uint8_t* scratch = scratch_.data();
      scratch += (64 - reinterpret_cast<uintptr_t>(scratch) % 64) % 64;
      EXPECT_GT(reader_->Attend(a, pool_, scratch, scratch_stride_), 0u);
    }
    return out;
  }
  double Score(uint32_t head, uint32_t query, uint32_t key) const {
    std::vector<float> row(kDim);
    const uint8_t* page = cache_->tiles(0, 0)[key / kTileTokens];
    LoadKey(layout_.key_type, page + head / 2 * cache_->key_tile_bytes(), kDim, key % kTileTokens,
            row.data());
    double dot = 0;
    for (uint32_t d = 0; d < kDim; ++d) {
      dot += double{q_[query * kWidth + head * kDim + d]} * row[d];
    }
    return dot;
  }
  double Value(uint32_t head, uint32_t key, uint32_t d) const {
    std::vector<float> row(kDim);
    const uint8_t* page = cache_->tiles(0, 0)[key / kTileTokens];
    LoadValue(layout_.value_type,
              page + kKvHeads * cache_->key_tile_bytes() + head / 2 * cache_->value_tile_bytes(),
              kDim, key % kTileTokens, row.data());
    return row[d];
  }
  const BlockBudget& budget() const { return method_->budget(); }
  const BlockReader& reader() const { return *reader_; }
  const std::vector<float>& q() const { return q_; }
  const std::vector<float>& k() const { return k_; }

 private:
  KvLayout layout_;
  Ledger ledger_;
  ThreadPool pool_;
  uint32_t chunk_;
  std::shared_ptr<const BlockMethod> method_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<BlockReader> reader_;
  std::vector<float> q_, k_, v_;
  std::vector<uint8_t> scratch_;
  size_t scratch_stride_ = 0;
};

// The `count` best of [first, last) in double, and whether the choice is clear.
std::set<uint32_t> Best(const std::vector<double>& scores, uint32_t first, uint32_t last,
                        uint32_t count, bool* clear) {
  std::vector<uint32_t> order(last - first);
  std::iota(order.begin(), order.end(), first);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  if (count > 0 && count < order.size()) {
    const double gap = scores[order[count - 1]] - scores[order[count]];
    if (gap < 1e-5 * (1 + std::fabs(scores[order[count]]))) *clear = false;
  }
  return {order.begin(), order.begin() + count};
}

// What the rules say a block of queries is worth each block of keys.
std::vector<double> MeanScores(const Prompt& p, uint32_t head, uint32_t row) {
  const BlockBudget& b = p.budget();
  const uint32_t blocks = b.KeyBlocks(kTokens);
  std::vector<double> scores(blocks);
  for (uint32_t d = 0; d < kDim; ++d) {
    double q = 0;
    for (uint32_t i = 0; i < b.queries; ++i) {
      q += p.q()[(row * b.queries + i) * kWidth + head * kDim + d];
    }
    for (uint32_t block = 0; block < blocks; ++block) {
      double k = 0;
      const uint32_t end = std::min(kTokens, (block + 1) * b.keys);
      for (uint32_t t = block * b.keys; t < end; ++t) {
        k += p.k()[(t * kKvHeads + head / 2) * kDim + d];
      }
      scores[block] += q / b.queries * k / (end - block * b.keys);
    }
  }
  return scores;
}
// Of all rows: [blocks of queries][blocks of keys].
std::vector<std::vector<double>> LineScores(const Prompt& p, uint32_t head, bool* clear) {
  const BlockBudget& b = p.budget();
  std::vector<double> columns(kTokens), distances(kTokens);
  for (uint32_t query = kTokens - b.queries; query < kTokens; ++query) {
    std::vector<double> w(query + 1);
    double sum = 0;
    for (uint32_t t = 0; t <= query; ++t) sum += w[t] = std::exp(0.5 * p.Score(head, query, t));
    for (uint32_t t = 0; t <= query; ++t) {
      columns[t] += w[t] / sum;
      distances[query - t] += w[t] / sum;
    }
  }
  const uint32_t count = b.Blocks(kTokens) * b.keys / 2;
  const auto vertical = Best(columns, 0, kTokens, count, clear);
  const auto slash = Best(distances, 0, kTokens, count, clear);
  std::vector<std::vector<double>> scores(b.QueryBlocks(kTokens),
                                          std::vector<double>(b.KeyBlocks(kTokens)));
  for (uint32_t row = 0; row < scores.size(); ++row) {
    for (const uint32_t t : vertical) scores[row][t / b.keys] += columns[t];
    for (const uint32_t d : slash) {
      std::set<uint32_t> crossed;
      for (uint32_t q = row * b.queries; q < (row + 1) * b.queries; ++q) {
        if (q >= d && q - d < kTokens) crossed.insert((q - d) / b.keys);
      }
      for (const uint32_t block : crossed) scores[row][block] += distances[d];
    }
  }
  return scores;
}

constexpr const char* kSpecs[] = {
    "dhsa:queries=64,keys=16,density=1/4", "dhsa:mode=topk,queries=64,keys=16,density=1/4",
    "block-sparse:queries=64,keys=16,density=1/4", "dhsa:density=1/8"};

TEST(Blocks, ChoicesAreThoseOfTheRuleInDouble) {
  for (const char* spec : kSpecs) {
    Prompt p(spec, KvType::kF32, 128, 2);
    const auto out = p.Run();
    const BlockBudget& b = p.budget();
    const uint32_t blocks = b.Blocks(kTokens);
    const bool top = std::string(spec).find("topk") != std::string::npos;
    uint32_t checked = 0, seen = 0;
    for (uint32_t head = 0; head < kHeads; ++head) {
      bool lines_clear = true;
      std::vector<std::vector<double>> lines;
      if (std::string(spec).find("dhsa") == 0 && !top) lines = LineScores(p, head, &lines_clear);
      for (uint32_t row = 0; row < b.QueryBlocks(kTokens); ++row) {
        if (b.Dense(kTokens, row)) continue;
        const auto scores = lines.empty() ? MeanScores(p, head, row) : lines[row];
        const uint32_t newest = b.Newest(kTokens, row);
        bool clear = lines_clear;
        std::set<uint32_t> want = top ? Best(scores, 1, b.KeyBlocks(kTokens), blocks - 1, &clear)
                                      : Best(scores, 1, newest, blocks - 2, &clear);
        want.insert(0);
        if (!top) want.insert(newest);
        want.erase(want.upper_bound(newest), want.end());
        ++seen;
        if (!clear) continue;
        ++checked;
        const auto chosen = p.reader().Chosen(head, row);
        EXPECT_EQ(std::set<uint32_t>(chosen.begin(), chosen.end()), want)
            << spec << " " << head << " " << row;
        // What was attended to, in double.
        for (const uint32_t query : {row * b.queries, row * b.queries + b.queries - 1}) {
          double sum = 0, value = 0;
          for (uint32_t t = 0; t <= query; ++t) {
            if (want.count(t / b.keys) == 0) continue;
            const double w = std::exp(0.5 * p.Score(head, query, t));
            sum += w;
            value += w * p.Value(head, t, 3);
          }
          EXPECT_NEAR(out[query * kWidth + head * kDim + 3], value / sum, 2e-5) << spec;
        }
      }
    }
    EXPECT_GT(seen, 0u) << spec;
    EXPECT_GT(checked * 2, seen) << spec;
  }
}

TEST(Blocks, ChunksAndThreadsChangeNoBit) {
  for (const char* spec : kSpecs) {
    for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
      const auto reference = Prompt(spec, type, 128, 1).Run();
      for (const uint32_t chunk : {7u, 64u, kTokens}) {
        EXPECT_EQ(Prompt(spec, type, chunk, 3).Run(), reference) << spec << " " << chunk;
      }
    }
  }
}

}  // namespace
}  // namespace snug
