// Chelsea against its rule: rounds by hand, invariants of random rows, and a cache whose rows and
// attention are those of the rule in double.
#include "keep_testing.h"
#include "kernel/targets.h"

namespace snug {
namespace {

using keep_testing::kContext;
using keep_testing::kDim;
using keep_testing::kHeads;
using keep_testing::kKvHeads;
using keep_testing::Sequence;
using keep_testing::UpTo;

using Floats = std::vector<float>;

// A head's rows in memory.
struct Rows final : MergeRows {
  struct Row {
    Floats key, value;
    uint32_t tokens = 1;
  };
  std::vector<Row> rows;

  void Load(uint32_t row, float* key, float* value) const override {
    std::copy(rows[row].key.begin(), rows[row].key.end(), key);
    std::copy(rows[row].value.begin(), rows[row].value.end(), value);
  }
  void Store(uint32_t row, const float* key, const float* value) override {
    rows[row].key.assign(key, key + rows[row].key.size());
    rows[row].value.assign(value, value + rows[row].value.size());
  }
  void Move(uint32_t from, uint32_t to) override { rows[to] = rows[from]; }
  uint32_t members(uint32_t row) const override { return rows[row].tokens; }
  void set_members(uint32_t row, uint32_t tokens) override { rows[row].tokens = tokens; }

  void Shrink(const std::string& spec, uint32_t stay) {
    auto method = ParseKeep(spec);
    ASSERT_TRUE(method.ok()) << spec;
    const Merging* merging = (*method)->merging();
    const auto dim = static_cast<uint32_t>(rows[0].key.size());
    Floats room(merging->Floats(dim));
    merging->EndPrompt(*this, dim, static_cast<uint32_t>(rows.size()), stay, room);
    rows.resize(stay);
  }
};

void ExpectNear(const Floats& got, const Floats& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6);
}

Rows Four() {
  Rows r;
  for (const Floats& key : {Floats{1, 0}, Floats{1, .1f}, Floats{0, 1}, Floats{.5f, 1}}) {
    r.rows.push_back({key, {key[0] - key[1], 3}, 1});
  }
  return r;
}

constexpr const char* kPlain = "chelsea:budget=2,chunk=4,sinks=0,recent=0";

TEST(Chelsea, RoundsByHand) {
  Rows one = Four();
  one.Shrink(kPlain, 3);
  ExpectNear(one.rows[0].key, {1, .05f});
  ExpectNear(one.rows[0].value, {.95f, 3});
  ExpectNear(one.rows[1].key, {0, 1});
  ExpectNear(one.rows[2].key, {.5f, 1});
  EXPECT_EQ(one.rows[0].tokens, 2u);
  EXPECT_EQ(one.rows[1].tokens, 1u);
  EXPECT_EQ(one.rows[2].tokens, 1u);
  Rows two = Four();
  two.Shrink(kPlain, 2);
  ExpectNear(two.rows[0].key, {1, .05f});
  ExpectNear(two.rows[1].key, {.25f, 1});
  EXPECT_EQ(two.rows[1].tokens, 2u);
  // Means weigh by tokens.
  Rows again;
  again.rows = {{{1, 0}, {1, 1}, 3}, {{0, .4f}, {5, 1}, 1}};
  again.Shrink(kPlain, 1);
  ExpectNear(again.rows[0].key, {.75f, .1f});
  ExpectNear(again.rows[0].value, {2, 1});
  EXPECT_EQ(again.rows[0].tokens, 4u);
  // Keys without direction are near to nothing, and do no harm.
  Rows zero;
  zero.rows = {{{0, 0}, {1, 1}, 1}, {{0, 0}, {3, 1}, 1}, {{1, 1}, {3, 1}, 1}, {{1, 2}, {3, 1}, 1}};
  zero.Shrink(kPlain, 3);
  ExpectNear(zero.rows[2].key, {1, 1.5f});
  zero.Shrink(kPlain, 1);
  EXPECT_EQ(zero.rows[0].tokens, 4u);
}

Rows Random(uint32_t n, uint32_t dim, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  Rows r;
  for (uint32_t i = 0; i < n; ++i) {
    Rows::Row row{Floats(dim), Floats(dim), 1 + i % 3};
    for (float& x : row.key) x = normal(rng);
    for (float& x : row.value) x = normal(rng);
    r.rows.push_back(row);
  }
  return r;
}

TEST(Chelsea, TokensAndTheirSumsAreKept) {
  constexpr uint32_t kN = 203, kSize = 24;
  for (const uint32_t chunk : {2u, 3u, 16u, 25u, 256u}) {
    for (const uint32_t stay : {202u, 150u, 101u, 60u, 30u, 14u}) {
      Rows r = Random(kN, kSize, chunk + stay);
      const Rows before = r;
      const std::string spec = "chelsea:budget=14,sinks=3,recent=10,chunk=" + std::to_string(chunk);
      r.Shrink(spec, stay);
      for (uint32_t i = 0; i < 13; ++i) {
        const uint32_t at = i < 3 ? i : stay - 1 - (i - 3), was = i < 3 ? i : kN - 1 - (i - 3);
        EXPECT_EQ(r.rows[at].key, before.rows[was].key) << spec << " " << stay;
        EXPECT_EQ(r.rows[at].tokens, before.rows[was].tokens);
      }
      const auto total = [](const Rows& rows, size_t d, bool value) {
        double sum = 0;
        for (const Rows::Row& row : rows.rows)
          sum += double{(value ? row.value : row.key)[d]} * row.tokens;
        return sum;
      };
      uint32_t tokens = 0, were = 0;
      for (const Rows::Row& row : r.rows) tokens += row.tokens;
      for (const Rows::Row& row : before.rows) were += row.tokens;
      EXPECT_EQ(tokens, were);
      for (size_t d = 0; d < kSize; ++d) {
        EXPECT_NEAR(total(r, d, false), total(before, d, false), 1e-3) << spec << " " << stay;
        EXPECT_NEAR(total(r, d, true), total(before, d, true), 1e-3) << spec << " " << stay;
      }
    }
  }
}

// By Jensen's inequality a cluster's weight is no more than that of its tokens.
TEST(Chelsea, ClustersWeighNoMoreThanTheirTokens) {
  Rows r = Random(64, 8, 5);
  for (Rows::Row& row : r.rows) row.tokens = 1;
  Rows after = r;
  after.Shrink("chelsea:budget=2,chunk=64,sinks=0,recent=0", 1);
  const Rows queries = Random(50, 8, 6);
  for (const Rows::Row& q : queries.rows) {
    const auto weight = [&](const Rows::Row& row) {
      double dot = 0;
      for (size_t d = 0; d < 8; ++d) dot += double{q.key[d]} * row.key[d];
      return row.tokens * std::exp(dot);
    };
    double tokens = 0;
    for (const Rows::Row& row : r.rows) tokens += weight(row);
    EXPECT_LE(weight(after.rows[0]), tokens * (1 + 1e-5));
  }
}

// The rule in double: rows of one KV head, in order.
struct Rule {
  struct Row {
    std::vector<double> key, value;
    uint32_t tokens = 1, position = 0;
  };
  uint32_t head, chunk, sinks, recent;
  std::vector<Row> rows;

  void Append(const Sequence& s, uint32_t t) {
    rows.push_back({{s.key(t, head), s.key(t, head) + kDim},
                    {s.value(t, head), s.value(t, head) + kDim},
                    1,
                    t});
  }

  // The rows of a chunk after its `count` nearest pairs have become one row each.
  static std::vector<Row> Merged(std::vector<Row> in, size_t count) {
    struct Edge {
      double cosine;
      size_t from, to;
    };
    std::vector<Edge> edges;
    for (size_t a = 0; a < in.size(); a += 2) {
      Edge best{-2, a, 0};
      for (size_t b = 1; b < in.size(); b += 2) {
        double dot = 0, aa = 0, bb = 0;
        for (size_t d = 0; d < kDim; ++d) {
          dot += in[a].key[d] * in[b].key[d];
          aa += in[a].key[d] * in[a].key[d];
          bb += in[b].key[d] * in[b].key[d];
        }
        const double cosine = dot / std::sqrt(aa * bb);
        if (cosine > best.cosine) best = {cosine, a, b};
      }
      edges.push_back(best);
    }
    std::stable_sort(edges.begin(), edges.end(),
                     [](const Edge& a, const Edge& b) { return a.cosine > b.cosine; });
    std::vector<bool> gone(in.size());
    for (size_t i = 0; i < count; ++i) {
      const Row& a = in[edges[i].from];
      Row& b = in[edges[i].to];
      const double tokens = a.tokens + b.tokens;
      for (size_t d = 0; d < kDim; ++d) {
        b.key[d] = (b.key[d] * b.tokens + a.key[d] * a.tokens) / tokens;
        b.value[d] = (b.value[d] * b.tokens + a.value[d] * a.tokens) / tokens;
      }
      b.tokens += a.tokens;
      gone[edges[i].from] = true;
    }
    std::vector<Row> out;
    for (size_t i = 0; i < in.size(); ++i) {
      if (!gone[i]) out.push_back(in[i]);
    }
    return out;
  }

  static size_t Capacity(size_t n, size_t chunk) { return n / chunk * (chunk / 2) + n % chunk / 2; }

  void Shrink(size_t first, size_t last, size_t count) {
    while (count > 0) {
      const size_t capacity = Capacity(last - first, chunk), now = std::min(count, capacity);
      std::vector<Row> out(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(first));
      size_t done = 0, can = 0;
      for (size_t at = first; at < last; at += chunk) {
        const size_t end = std::min<size_t>(last, at + chunk);
        can += (end - at) / 2;
        const size_t due = can * now / capacity;
        for (Row& row : Merged({rows.begin() + static_cast<std::ptrdiff_t>(at),
                                rows.begin() + static_cast<std::ptrdiff_t>(end)},
                               due - done)) {
          out.push_back(row);
        }
        done = due;
      }
      out.insert(out.end(), rows.begin() + static_cast<std::ptrdiff_t>(last), rows.end());
      rows = out;
      last -= now;
      count -= now;
    }
  }

  void EndPrompt(size_t stay) { Shrink(sinks, rows.size() - recent, rows.size() - stay); }
  void EndToken(size_t budget, size_t slack) {
    if (rows.size() <= budget + slack) return;
    const size_t first = std::max<size_t>(sinks, budget - recent);
    const size_t end = rows.size() - recent, fresh = Capacity(end - first, chunk);
    Shrink(first, end, fresh);
    const size_t left = rows.size() - budget;
    const size_t chunks = (left + chunk / 2 - 1) / (chunk / 2);
    Shrink(sinks, std::min(rows.size() - recent, sinks + chunks * chunk), left);
  }

  // Attention of a query head, each row as often as it stands for tokens.
  std::vector<double> Attend(const float* q) const {
    std::vector<double> out(kDim);
    double sum = 0;
    for (const Row& row : rows) {
      double dot = 0;
      for (uint32_t d = 0; d < kDim; ++d) dot += q[d] * row.key[d];
      const double weight = row.tokens * std::exp(dot / std::sqrt(kDim));
      sum += weight;
      for (uint32_t d = 0; d < kDim; ++d) out[d] += weight * row.value[d];
    }
    for (double& x : out) x /= sum;
    return out;
  }
};

TEST(Chelsea, IsItsRuleOnEveryTarget) {
  constexpr uint32_t kPrompt = 200, kBudget = 60, kSlack = 12;
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    Sequence s("chelsea:budget=60,chunk=16,sinks=2,recent=10,slack=12", KvType::kF32);
    s.Prompt(kPrompt, 33);
    std::vector<Rule> rules{{0, 16, 2, 10, {}}, {1, 16, 2, 10, {}}};
    for (Rule& r : rules) {
      for (uint32_t t = 0; t < kPrompt; ++t) r.Append(s, t);
      r.EndPrompt(kBudget);
    }
    for (uint32_t t = kPrompt;; ++t) {
      for (const Rule& r : rules) {
        const auto positions = s.cache().positions(0, 0, r.head);
        ASSERT_EQ(positions.size(), r.rows.size()) << t;
        uint32_t tokens = 0;
        for (uint32_t i = 0; i < positions.size(); ++i) {
          ASSERT_EQ(positions[i], r.rows[i].position) << t << " row " << i;
          const uint32_t members = s.cache().members(0, 0, r.head, i);
          ASSERT_EQ(members, r.rows[i].tokens) << t << " row " << i;
          tokens += members;
        }
        ASSERT_EQ(tokens, t);
      }
      s.ExpectRowsAreTheirTokens();
      if (t == kContext) break;
      const auto out = s.Token();
      for (Rule& r : rules) {
        r.Append(s, t);
        constexpr uint32_t kGroup = kHeads / kKvHeads;
        for (uint32_t h = r.head * kGroup; h < (r.head + 1) * kGroup; ++h) {
          const auto want = r.Attend(s.query(t, h));
          for (uint32_t d = 0; d < kDim; ++d) ASSERT_NEAR(out[h * kDim + d], want[d], 2e-5) << t;
        }
        r.EndToken(kBudget, kSlack);
      }
    }
  }
  UseTarget(0);
}

// Clusters of tokens with equal keys lose nothing, whatever their values are.
TEST(Chelsea, EqualKeysAreMergedWithoutLoss) {
  Sequence s("chelsea:budget=104,chunk=16,sinks=0,recent=8,slack=300", KvType::kF32);
  const size_t row = kKvHeads * kDim;
  for (uint32_t t = 0; t < 192; ++t) {
    const auto from = s.keys().begin() + t / 16 * 16 * row;
    std::copy_n(from, row, s.keys().begin() + t * row);
  }
  s.Prompt(200, 64);
  EXPECT_EQ(s.cache().rows(0, 0), 104u);
  for (uint32_t t = 200; t < 260; ++t) {
    const auto out = s.Token();
    std::vector<double> want;
    for (uint32_t h = 0; h < kHeads; ++h) {
      s.Softmax(t, h, UpTo(t + 1), &want);
      for (uint32_t d = 0; d < kDim; ++d) ASSERT_NEAR(out[h * kDim + d], want[d], 2e-5) << t;
    }
  }
}

TEST(Chelsea, WhereEveryRowStaysNotABitChanges) {
  for (const KvType type : {KvType::kF16, KvType::kQ4_0}) {
    Sequence merged("chelsea:budget=1,least=320", type), dense("sink-window:budget=320", type);
    EXPECT_EQ(merged.Prompt(250, 64), dense.Prompt(250, 64));
    for (int i = 0; i < 60; ++i) ASSERT_EQ(merged.Token(), dense.Token());
  }
}

TEST(Chelsea, WhatCannotBeIsRefused) {
  for (const char* spec : {"chelsea:budget=68", "chelsea:least=68", "chelsea:chunk=1",
                           "chelsea:budget=0", "chelsea:chunk=257"}) {
    const auto method = ParseKeep(spec);
    ASSERT_FALSE(method.ok()) << spec;
    EXPECT_EQ(method.error().code, Code::kUsage);
    EXPECT_NE(method.error().message.find("chelsea"), std::string::npos);
  }
  EXPECT_TRUE(ParseKeep("chelsea:budget=69").ok());
}

}  // namespace
}  // namespace snug
