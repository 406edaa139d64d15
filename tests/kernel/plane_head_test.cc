// The plane-split head against the packed Q8_0 matrix: rows, products and searches bit for bit, and
// the bound.
#include "kernel/plane_head.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernel/targets.h"
#include "kernel/weights.h"

namespace snug {
namespace {

using testing::Aligned;
using testing::RandomRows;
using testing::RandomWeights;

// The same head, packed whole and split.
struct Heads {
  Heads(size_t r, size_t c, std::mt19937& rng)
      : rows(r),
        cols(c),
        raw(RandomWeights(DType::kQ8_0, r, c, rng)),
        packed(PackedBytes(DType::kQ8_0, r, c)),
        planes(PlaneHead::Bytes(r, c)),
        split(planes.get(), r, c) {
    Pack();
  }
  void Pack() {
    PackPanels(DType::kQ8_0, raw.data(), rows, cols, packed.get());
    const size_t first = std::min<size_t>(rows, 32);
    split.Pack(raw.data(), 0, first);
    if (rows > first)
      split.Pack(raw.data() + first * RowBytes(DType::kQ8_0, cols), first, rows - first);
  }
  PackedMatrix whole() {
    return {packed.get(), DType::kQ8_0, static_cast<uint32_t>(rows), static_cast<uint32_t>(cols)};
  }
  size_t rows, cols;
  std::vector<uint8_t> raw;
  Aligned packed, planes;
  PlaneHead split;
};

struct Inputs {
  Inputs(const std::vector<float>& rows, size_t tokens, size_t cols)
      : memory(Activations::Bytes(tokens, cols)) {
    a.Bind(memory.get(), tokens, cols);
    a.Quantize(rows.data(), cols, cols, 0, tokens);
    a.Seal(rows.data(), cols, tokens, cols);
  }
  Aligned memory;
  Activations a;
};

class PlaneHeadTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { UseTarget(GetParam()); }
  void TearDown() override { UseTarget(0); }
  std::mt19937 rng{11};
  ThreadPool pool{2};
};
INSTANTIATE_TEST_SUITE_P(Targets, PlaneHeadTest, ::testing::ValuesIn(RunnableTargets()));

TEST_P(PlaneHeadTest, TakesTheFilesBytesAndANorm) {
  const size_t file = 4096 * RowBytes(DType::kQ8_0, 640);
  EXPECT_EQ(PlaneHead::Bytes(4096, 640), file + 4096 * sizeof(float));
}

TEST_P(PlaneHeadTest, RowsAndProductsEqualThePackedMatrix) {
  for (const size_t cols : {32, 160, 640, 1120}) {
    for (const size_t rows : {1, 16, 45, 100}) {
      Heads h(rows, cols, rng);
      std::vector<float> got(cols), want(cols);
      for (size_t r = 0; r < rows; ++r) {
        h.split.UnpackRow(r, got.data());
        UnpackRow(h.whole(), r, want.data());
        ASSERT_EQ(std::memcmp(got.data(), want.data(), cols * sizeof(float)), 0)
            << rows << " x " << cols;
      }
      const size_t tokens = 5;
      const std::vector<float> x = RandomRows(tokens, cols, rng);
      const Inputs in(x, tokens, cols);
      for (const bool exact : {false, true}) {
        std::vector<float> y(tokens * rows), z(tokens * rows);
        MatMul(h.whole(), in.a, 0, h.whole().panels(), exact, y.data(), rows);
        h.split.MatMul(in.a, 0, h.split.panels(), exact, z.data(), rows);
        ASSERT_EQ(std::memcmp(y.data(), z.data(), y.size() * sizeof(float)), 0);
      }
    }
  }
}

// Every row that belongs to the answer is there with the very bits of MatMul.
void ExpectTop(ThreadPool& pool, Heads& h, const Inputs& in, size_t token, const PlaneQuery& query,
               bool may_give_up) {
  std::vector<float> y(in.a.tokens * h.rows), bounds(PlaneScratchFloats(h.rows));
  MatMul(h.whole(), in.a, 0, h.whole().panels(), false, y.data(), h.rows);
  const float* logits = y.data() + token * h.rows;
  std::vector<uint32_t> list(PlaneMaxSurvivors(h.rows));
  std::vector<Candidate> out(h.rows);
  PlaneStats stats;
  const size_t n = PlaneTop(pool, h.split, in.a, token, query, bounds.data(), list.data(),
                            out.data(), out.size(), &stats);
  if (n == 0) {
    EXPECT_TRUE(may_give_up) << stats.survivors << " survivors";
    return;
  }
  std::vector<float> sorted(logits, logits + h.rows);
  std::sort(sorted.rbegin(), sorted.rend());
  const float least = std::max(sorted[std::min(query.k, h.rows) - 1], sorted[0] - query.margin);
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    if (i > 0) {
      ASSERT_LT(out[i - 1].row, out[i].row);
    }
    ASSERT_LT(out[i].row, h.rows);
    ASSERT_EQ(out[i].logit, logits[out[i].row]);
    found += out[i].logit >= least;
  }
  const auto want = static_cast<size_t>(
      std::count_if(logits, logits + h.rows, [&](float v) { return v >= least; }));
  EXPECT_EQ(found, want) << "k " << query.k << " margin " << query.margin;
}

TEST_P(PlaneHeadTest, SearchFindsTheLargestLogits) {
  const size_t rows = 3001, cols = 640, tokens = 6;
  Heads h(rows, cols, rng);
  // Tokens that point at some row, as a model's last hidden state does, more and less clearly.
  std::vector<float> x = RandomRows(tokens, cols, rng), row(cols);
  for (size_t t = 0; t < tokens; ++t) {
    UnpackRow(h.whole(), 500 * t + 3, row.data());
    for (size_t c = 0; c < cols; ++c)
      x[t * cols + c] += row[c] * (t == 5 ? 0.0f : 6.0f / (1.0f + t));
  }
  const Inputs in(x, tokens, cols);
  for (size_t t = 0; t < tokens; ++t) {
    for (const size_t k : {1, 5, 64}) ExpectTop(pool, h, in, t, {.k = k}, t > 1 || k > 1);
    ExpectTop(pool, h, in, t, {.k = 40, .margin = 3.0f}, true);
  }
}

// Equal rows tie, and rows that differ only in their low bits are told apart.
TEST_P(PlaneHeadTest, SearchTellsTiesAndLowBits) {
  const size_t rows = 1000, cols = 96;
  Heads h(rows, cols, rng);
  const size_t bytes = RowBytes(DType::kQ8_0, cols);
  const std::vector<float> noise = RandomRows(1, cols, rng);
  std::vector<float> x(cols);
  UnpackRow(h.whole(), 17, x.data());
  for (size_t c = 0; c < cols; ++c) x[c] = 8 * x[c] + 0.1f * noise[c];
  for (const size_t r : {40, 41, 600, 999})
    std::memcpy(&h.raw[r * bytes], &h.raw[17 * bytes], bytes);
  h.raw[600 * bytes + 7] ^= 1;
  h.raw[999 * bytes + 50] ^= 2;
  h.Pack();
  const Inputs in(x, 1, cols);
  for (const size_t k : {1, 3, 4, 5}) ExpectTop(pool, h, in, 0, {.k = k}, false);
}

TEST_P(PlaneHeadTest, AnOutlierTokenIsLeftToTheFullProduct) {
  const size_t rows = 200, cols = 640;
  Heads h(rows, cols, rng);
  std::vector<float> x = RandomRows(1, cols, rng);
  x[3] = 1e6f;
  const Inputs in(x, 1, cols);
  ASSERT_EQ(in.a.n_extra, 1u);
  std::vector<float> bounds(PlaneScratchFloats(rows));
  std::vector<uint32_t> list(PlaneMaxSurvivors(rows));
  std::vector<Candidate> out(rows);
  EXPECT_EQ(PlaneTop(pool, h.split, in.a, 0, {}, bounds.data(), list.data(), out.data(), rows), 0u);
}

}  // namespace
}  // namespace snug
