// Attention of a prompt's queries over chosen blocks of keys, and what sums of the last queries'
// attention choose them by.
#include "kernel/attention_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "kernel/attention_rows.h"
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
    {KvType::kF32, 4, 2, 32},          {KvType::kF16, 6, 1, 64},  {KvType::kBF16, 4, 1, 64},
    {KvType::kQ8_0, 4, 2, 32, 20.0f},  {KvType::kQ4_0, 2, 2, 64}, {KvType::kF16, 2, 2, 10},
    {KvType::kF16, 4, 2, 32, 0, true},
};
constexpr uint32_t kTokens = 590, kRows = 230, kFirst = kTokens - kRows;

// A prompt of random tokens, of which the last kRows ask.
class Prompt {
 public:
  Prompt(const Shape& s, bool exact) : s_(s) {
    std::mt19937 rng(9);
    std::normal_distribution<float> normal;
    const size_t tile = KvTileBytes(s.type, s.head_dim);
    const uint32_t tiles = (kTokens + kTileTokens - 1) / kTileTokens;
    pool_.resize(size_t{tiles} * s.kv_heads * 2 * tile + 64);
    uint8_t* at = Aligned(pool_);
    for (uint32_t t = 0; t < tiles; ++t, at += s.kv_heads * 2 * tile) tables_.push_back(at);
    for (uint32_t t = 0; t < kTokens; ++t) Store(t, rng);
    q_.resize(kRows * s.heads * s.head_dim);
    for (float& v : q_) v = normal(rng);
    sinks_.assign(s.heads, 0.5f);
    a_.key_type = a_.value_type = s.type;
    a_.heads = s.heads;
    a_.kv_heads = s.kv_heads;
    a_.head_dim = s.head_dim;
    a_.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
    a_.softcap = s.softcap;
    a_.exact = exact;
    if (s.sinks) a_.sinks = sinks_.data();
    a_.q = q_.data();
    a_.q_stride = a_.out_stride = s.heads * s.head_dim;
    a_.tokens = kRows;
    a_.first_pos = kFirst;
    a_.tiles = tables_.data();
    scratch_.resize(AttentionScratchBytes(s.head_dim, s.heads / s.kv_heads) + 64);
    stage_.resize(StageBytes(s.type, s.type, s.head_dim) + 64, 0xff);  // what was there before
  }

  void Store(uint32_t token, std::mt19937& rng) {
    std::normal_distribution<float> normal;
    const size_t tile = KvTileBytes(s_.type, s_.head_dim);
    std::vector<float> row(s_.head_dim);
    auto* page = const_cast<uint8_t*>(tables_[token / kTileTokens]);
    for (uint32_t h = 0; h < s_.kv_heads; ++h) {
      for (float& v : row) v = normal(rng);
      StoreKey(s_.type, row.data(), s_.head_dim, token % kTileTokens, page + h * tile);
      for (float& v : row) v = normal(rng);
      StoreValue(s_.type, row.data(), s_.head_dim, token % kTileTokens,
                 page + (s_.kv_heads + h) * tile);
    }
  }
  std::vector<float> Dense() {
    std::vector<float> out(q_.size());
    a_.out = out.data();
    const AttentionPlan plan = PlanAttention(a_, 1);
    for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a_, plan, t, Aligned(scratch_), nullptr);
    return out;
  }
  // Every head reads `blocks`; rows go in pieces of `piece`.
  std::vector<float> Chosen(const std::vector<uint32_t>& blocks, uint32_t width, uint32_t piece) {
    std::vector<float> out(q_.size());
    a_.out = out.data();
    const KeyBlocks keys{blocks.data(), static_cast<uint32_t>(blocks.size()), width};
    for (uint32_t h = 0; h < s_.heads; ++h) {
      for (uint32_t first = 0; first < kRows; first += piece) {
        AttendKeyBlocks(a_, h, first, std::min(piece, kRows - first), keys, Aligned(stage_),
                        Aligned(scratch_));
      }
    }
    return out;
  }
  // Weights [kTokens] of row r under head h among the blocks, in double; of all where width is 0.
  std::vector<double> Weights(uint32_t r, uint32_t h, const std::vector<uint32_t>& blocks,
                              uint32_t width) const {
    std::vector<double> w(kTokens);
    std::vector<float> row(s_.head_dim);
    double sum = s_.sinks ? std::exp(double{sinks_[h]}) : 0;
    const uint32_t kv = h / (s_.heads / s_.kv_heads);
    for (uint32_t t = 0; t <= kFirst + r; ++t) {
      if (width != 0 && !std::binary_search(blocks.begin(), blocks.end(), t / width)) continue;
      LoadKey(s_.type, Keys(kv, t), s_.head_dim, t % kTileTokens, row.data());
      double dot = 0;
      for (uint32_t d = 0; d < s_.head_dim; ++d) {
        dot += double{q_[(r * s_.heads + h) * s_.head_dim + d]} * row[d];
      }
      dot *= a_.scale;
      sum += w[t] = std::exp(s_.softcap > 0 ? s_.softcap * std::tanh(dot / s_.softcap) : dot);
    }
    for (double& x : w) x /= sum;
    return w;
  }
  double Output(uint32_t h, const std::vector<double>& w, uint32_t d) const {
    std::vector<float> row(s_.head_dim);
    const uint32_t kv = h / (s_.heads / s_.kv_heads);
    double out = 0;
    for (uint32_t t = 0; t < kTokens; ++t) {
      if (w[t] == 0) continue;
      LoadValue(s_.type, Keys(s_.kv_heads + kv, t), s_.head_dim, t % kTileTokens, row.data());
      out += w[t] * row[d];
    }
    return out;
  }
  // Columns, then distances, of rows from `from` on.
  std::vector<float> Lines(uint32_t head, uint32_t from) {
    AttentionArgs last = a_;
    last.q += from * last.q_stride;
    last.first_pos += from;
    last.tokens -= from;
    const size_t wide = (kTokens + kTileTokens - 1) / kTileTokens * kTileTokens;
    std::vector<float> weights(last.tokens * kTileTokens), columns(wide, -1),
        distances(kTokens, -1);
    SumLines(last, head, Aligned(scratch_), weights.data(), columns.data(), distances.data());
    columns.resize(kTokens);
    columns.insert(columns.end(), distances.begin(), distances.end());
    return columns;
  }

 private:
  static uint8_t* Aligned(std::vector<uint8_t>& bytes) {
    return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  }
  const uint8_t* Keys(uint32_t tile, uint32_t token) const {
    return tables_[token / kTileTokens] + tile * KvTileBytes(s_.type, s_.head_dim);
  }
  const Shape s_;
  AttentionArgs a_;
  std::vector<uint8_t> pool_, scratch_, stage_;
  std::vector<const uint8_t*> tables_;
  std::vector<float> q_, sinks_;
};

std::vector<uint32_t> AllBlocks(uint32_t width) {
  std::vector<uint32_t> all((kTokens + width - 1) / width);
  std::iota(all.begin(), all.end(), 0u);
  return all;
}
// The first and every third.
std::vector<uint32_t> SomeBlocks(uint32_t width) {
  std::vector<uint32_t> some = {0};
  for (uint32_t b = 2; b < (kTokens + width - 1) / width; b += 3) some.push_back(b);
  return some;
}

TEST(AttentionBlocks, AllBlocksGiveTheDenseBits) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      for (const bool exact : {false, true}) {
        Prompt prompt(s, exact);
        const auto dense = prompt.Dense();
        for (const uint32_t width : {16u, 32u, 128u}) {
          EXPECT_EQ(prompt.Chosen(AllBlocks(width), width, 128), dense)
              << KvTypeName(s.type) << " " << s.head_dim << " " << width;
        }
        EXPECT_EQ(prompt.Chosen(AllBlocks(32), 32, 7), dense);
      }
    }
  }
  UseTarget(0);
}

TEST(AttentionBlocks, SomeBlocksAreTheSoftmaxOverThem) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      Prompt prompt(s, true);
      for (const uint32_t width : {16u, 48u, 64u}) {
        const auto blocks = SomeBlocks(width);
        const auto got = prompt.Chosen(blocks, width, kRows);
        EXPECT_EQ(prompt.Chosen(blocks, width, 13), got);
        for (uint32_t r = 0; r < kRows; r += 19) {
          for (uint32_t h = 0; h < s.heads; ++h) {
            const auto w = prompt.Weights(r, h, blocks, width);
            const uint32_t d = (r + h) % s.head_dim;
            ASSERT_NEAR(got[(r * s.heads + h) * s.head_dim + d], prompt.Output(h, w, d), 2e-5)
                << KvTypeName(s.type) << " " << width << " " << r;
          }
        }
      }
    }
  }
  UseTarget(0);
}

// Where the choice is held fixed, a token changes nothing before it.
TEST(AttentionBlocks, ChosenBlocksAreSeenCausally) {
  std::mt19937 rng(4);
  for (const Shape& s : kShapes) {
    Prompt prompt(s, false);
    const auto blocks = SomeBlocks(32);
    const auto before = prompt.Chosen(blocks, 32, 128);
    const uint32_t token = blocks[5] * 32 + 5;  // among the rows' own
    ASSERT_GT(token, kFirst);
    prompt.Store(token, rng);
    const auto after = prompt.Chosen(blocks, 32, 128);
    const size_t own = size_t{token - kFirst} * s.heads * s.head_dim;
    EXPECT_TRUE(std::equal(before.begin(), before.begin() + own, after.begin()));
    EXPECT_NE(before[own], after[own]);
  }
}

TEST(AttentionBlocks, LinesAreSumsOfTheSoftmax) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const Shape& s : kShapes) {
      Prompt prompt(s, true);
      for (const uint32_t from : {0u, kRows - 128, kRows - 20}) {
        std::vector<double> want(2 * kTokens);
        const uint32_t head = s.heads - 1;
        for (uint32_t r = from; r < kRows; ++r) {
          const auto w = prompt.Weights(r, head, {}, 0);
          for (uint32_t t = 0; t <= kFirst + r; ++t) {
            want[t] += w[t];
            want[kTokens + kFirst + r - t] += w[t];
          }
        }
        const auto got = prompt.Lines(head, from);
        for (size_t i = 0; i < want.size(); ++i) {
          ASSERT_NEAR(got[i], want[i], 1e-4 + 1e-4 * want[i]) << KvTypeName(s.type) << " " << i;
        }
      }
    }
  }
  UseTarget(0);
}

TEST(AttentionBlocks, SeenCountsUpToTheQuery) {
  const uint32_t blocks[] = {0, 3, 4};
  const KeyBlocks keys{blocks, 3, 32};
  EXPECT_EQ(keys.Seen(0), 1u);
  EXPECT_EQ(keys.Seen(31), 32u);
  EXPECT_EQ(keys.Seen(95), 32u);
  EXPECT_EQ(keys.Seen(96), 33u);
  EXPECT_EQ(keys.Seen(159), 96u);
  EXPECT_EQ(keys.Seen(500), 96u);
}

}  // namespace
}  // namespace snug
