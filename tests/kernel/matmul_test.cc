// The matrix product against sums in double, for every type, target and remainder; and its promise
// that a row's result depends on that row and that token alone.
#include "kernel/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernel/targets.h"
#include "kernel/weights.h"

namespace snug {
namespace {

using testing::Aligned;
using testing::kAllTypes;
using testing::RandomRows;
using testing::RandomWeights;
using testing::WeightAt;

// A matrix, packed.
struct Matrix {
  Matrix(DType t, size_t r, size_t c, std::mt19937& rng)
      : type(t), rows(r), cols(c), raw(RandomWeights(t, r, c, rng)), packed(PackedBytes(t, r, c)) {
    PackPanels(type, raw.data(), rows, cols, packed.get());
    for (size_t i = 0; i < rows * cols; ++i)
      w.push_back(WeightAt(type, raw, cols, i / cols, i % cols));
  }
  PackedMatrix view() {
    return {packed.get(), type, static_cast<uint32_t>(rows), static_cast<uint32_t>(cols)};
  }
  DType type;
  size_t rows, cols;
  std::vector<uint8_t> raw;
  Aligned packed;
  std::vector<double> w;
};

// Prepared activations and their memory.
struct Inputs {
  Inputs(const std::vector<float>& rows, size_t tokens, size_t cols)
      : memory(Activations::Bytes(tokens, cols) + 1) {
    a.Bind(memory.get(), tokens, cols);
    if (cols % kQBlock == 0) a.Quantize(rows.data(), cols, cols, 0, tokens);
    a.Seal(rows.data(), cols, tokens, cols);
  }
  // x as the integer kernels see it.
  double Quantized(size_t t, size_t c) const {
    const XBlock& b = a.blocks[t / 4 * (a.cols / kQBlock) + c / kQBlock];
    return static_cast<double>(b.scale[t % 4]) * b.q[t % 4][c % kQBlock];
  }
  Aligned memory;
  Activations a;
};

std::vector<float> Product(Matrix& m, const std::vector<float>& x, size_t tokens, bool exact) {
  const Inputs in(x, tokens, m.cols);
  std::vector<float> y(tokens * m.rows, NAN);
  MatMul(m.view(), in.a, 0, m.view().panels(), exact, y.data(), m.rows);
  return y;
}

size_t Cols(DType type, size_t n) {
  if (UsesInt8(type)) return n * Info(type).block;
  return n == 1 ? 64 : 32 * n + 3;
}

class EveryTarget : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { UseTarget(GetParam()); }
  void TearDown() override { UseTarget(0); }
  std::mt19937 rng{7};
};
INSTANTIATE_TEST_SUITE_P(Targets, EveryTarget, ::testing::ValuesIn(RunnableTargets()));

// Float32 sums of n terms differ from exact ones by at most n roundings of partial sums that the
// sum of absolute terms bounds; in practice far less, so n / 4 is allowed.
double Tolerance(double sum_of_absolutes, size_t n) {
  return (8 + n / 4.0) * 6e-8 * sum_of_absolutes;
}

TEST_P(EveryTarget, ProductEqualsTheSumInDouble) {
  for (const DType type : kAllTypes) {
    for (const size_t n : {1, 3, 5}) {
      for (const size_t rows : {1, 16, 35}) {
        Matrix m(type, rows, Cols(type, n), rng);
        const size_t max_tokens = 40;
        const std::vector<float> x = RandomRows(max_tokens, m.cols, rng);
        for (const size_t tokens : {1, 2, 3, 4, 5, 8, 9, 12, 13, 17, 24, 40}) {
          const Inputs in(x, tokens, m.cols);
          std::vector<float> y(tokens * rows, NAN);
          MatMul(m.view(), in.a, 0, m.view().panels(), false, y.data(), rows);
          for (size_t t = 0; t < tokens; ++t) {
            for (size_t r = 0; r < rows; ++r) {
              double want = 0, sum = 0;
              for (size_t c = 0; c < m.cols; ++c) {
                const double v = UsesInt8(type) ? in.Quantized(t, c) : x[t * m.cols + c];
                want += m.w[r * m.cols + c] * v;
                sum += std::abs(m.w[r * m.cols + c] * v);
              }
              // Integer types with minima sum two parts of which the difference is small.
              double limit = Tolerance(UsesInt8(type) ? 4 * sum : sum, m.cols);
              if (type == DType::kBF16) limit += sum / 256;  // x may be rounded to bf16
              ASSERT_NEAR(y[t * rows + r], want, limit)
                  << Info(type).name << " rows " << rows << " cols " << m.cols << " tokens "
                  << tokens;
            }
          }
        }
      }
    }
  }
}

TEST_P(EveryTarget, ExactProductEqualsTheSumInDouble) {
  for (const DType type : kAllTypes) {
    for (const size_t n : {1, 3}) {
      Matrix m(type, 35, Cols(type, n), rng);
      for (const size_t tokens : {1, 7, 21}) {
        const std::vector<float> x = RandomRows(tokens, m.cols, rng);
        const std::vector<float> y = Product(m, x, tokens, true);
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t r = 0; r < m.rows; ++r) {
            double want = 0, sum = 0;
            for (size_t c = 0; c < m.cols; ++c) {
              want += m.w[r * m.cols + c] * x[t * m.cols + c];
              sum += std::abs(m.w[r * m.cols + c] * x[t * m.cols + c]);
            }
            ASSERT_NEAR(y[t * m.rows + r], want, Tolerance(sum, m.cols)) << Info(type).name;
          }
        }
      }
    }
  }
}

// Unit vectors pick single weights out of an exact product: as Dequantize has them, whatever their
// scales.
TEST_P(EveryTarget, ExactProductWithUnitVectorsIsTheWeights) {
  for (const DType type : kAllTypes) {
    Matrix m(type, 19, 256, rng);
    if (type == DType::kMXFP4) {
      // Subnormal scales too, and the largest whose weights are finite.
      size_t e = 0;
      for (size_t at = 0; at < m.raw.size(); at += 17) m.raw[at] = static_cast<uint8_t>(e++ % 253);
      PackPanels(type, m.raw.data(), m.rows, m.cols, m.packed.get());
    }
    std::vector<float> x(m.cols * m.cols), w(m.rows * m.cols);
    for (size_t c = 0; c < m.cols; ++c) x[c * m.cols + c] = 1;
    Dequantize(type, m.raw.data(), w.size(), w.data());
    const std::vector<float> y = Product(m, x, m.cols, true);
    for (size_t i = 0; i < w.size(); ++i) {
      ASSERT_EQ(y[i % m.cols * m.rows + i / m.cols], w[i]) << Info(type).name << " " << i;
    }
  }
}

TEST_P(EveryTarget, QuantizedProductStaysNearTheExactOne) {
  for (const DType type : kAllTypes) {
    Matrix m(type, 48, UsesInt8(type) ? 512 : 515, rng);
    const std::vector<float> x = RandomRows(6, m.cols, rng);
    const std::vector<float> fast = Product(m, x, 6, false), exact = Product(m, x, 6, true);
    double error = 0, norm = 0;
    for (size_t i = 0; i < fast.size(); ++i) {
      error += std::pow(fast[i] - exact[i], 2);
      norm += std::pow(exact[i], 2);
    }
    // An int8 block of normal values is off by 0.006 of its norm.
    EXPECT_LT(std::sqrt(error / norm), 0.012) << Info(type).name;
  }
}

TEST_P(EveryTarget, ResultsDoNotDependOnBatchOrPanelRange) {
  for (const DType type : kAllTypes) {
    for (const bool exact : {false, true}) {
      // Wide enough for several chunks of columns.
      Matrix m(type, 77, UsesInt8(type) ? 2304 : 1000, rng);
      const size_t tokens = 29;
      std::vector<float> x = RandomRows(tokens, m.cols, rng);
      for (const size_t t : {0, 3, 4, 9, 21, 28})
        x[t * m.cols + 70 + t] = 1e5f;  // outlier rows among them
      const std::vector<float> all = Product(m, x, tokens, exact);
      for (const size_t batch : {1, 2, 3, 7, 12, 16}) {
        for (size_t t = 0; t < tokens; t += batch) {
          const size_t n = std::min(batch, tokens - t);
          const std::vector<float> rows(x.begin() + t * m.cols, x.begin() + (t + n) * m.cols);
          const Inputs in(rows, n, m.cols);
          std::vector<float> y(n * m.rows, NAN);
          for (size_t p = 0; p < m.view().panels(); ++p) {
            MatMul(m.view(), in.a, p, p + 1, exact, y.data(), m.rows);
          }
          ASSERT_EQ(std::memcmp(y.data(), all.data() + t * m.rows, y.size() * sizeof(float)), 0)
              << Info(type).name << " batch " << batch << " exact " << exact;
        }
      }
    }
  }
}

TEST_P(EveryTarget, QuantizeRoundsToTheNearestStep) {
  const size_t cols = 96, tokens = 7;
  std::vector<float> x = RandomRows(tokens, cols, rng);
  for (size_t c = 32; c < 64; ++c) x[2 * cols + c] = 0;
  const Inputs in(x, tokens, cols);
  EXPECT_EQ(in.a.n_extra, 0u);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t b = 0; b < cols / kQBlock; ++b) {
      const XBlock& block = in.a.blocks[t / 4 * (cols / kQBlock) + b];
      float most = 0;
      int sum = 0, half = 0;
      for (size_t i = 0; i < kQBlock; ++i) {
        const float v = x[t * cols + b * kQBlock + i];
        most = std::max(most, std::abs(v));
        sum += block.q[t % 4][i];
        if (i < 16) half += block.q[t % 4][i];
        EXPECT_LE(std::abs(v - block.scale[t % 4] * block.q[t % 4][i]),
                  block.scale[t % 4] * 0.50001f);
      }
      EXPECT_FLOAT_EQ(block.scale[t % 4], most / 127.0f);
      EXPECT_EQ(block.neg[t % 4], -sum);
      EXPECT_EQ(block.neg_half[t % 4], -half);
      EXPECT_EQ(block.sum[t % 4], block.scale[t % 4] * static_cast<float>(sum));
    }
  }
}

TEST_P(EveryTarget, AnOutlierDoesNotDrownItsNeighbours) {
  for (const DType type : {DType::kQ4_K, DType::kQ6_K, DType::kQ8_0}) {
    Matrix m(type, 32, 1536, rng);
    const size_t tokens = 3;
    std::vector<float> x = RandomRows(tokens, m.cols, rng);
    x[1 * m.cols + 700] = 20000;  // as Qwen's first token has ahead of ffn_down
    const Inputs in(x, tokens, m.cols);
    ASSERT_EQ(in.a.n_extra, 1u);
    EXPECT_EQ(in.a.extra[0], 1u);
    const std::vector<float> fast = Product(m, x, tokens, false),
                             exact = Product(m, x, tokens, true);
    // What the ordinary values contribute is kept to a few percent, though the outlier is 20000
    // times larger.
    double error = 0, norm = 0;
    for (size_t r = 0; r < m.rows; ++r) {
      const double outlier = m.w[r * m.cols + 700] * 20000;
      error += std::pow(fast[m.rows + r] - exact[m.rows + r], 2);
      norm += std::pow(exact[m.rows + r] - outlier, 2);
    }
    EXPECT_LT(std::sqrt(error / norm), 0.03) << Info(type).name;
  }
}

TEST_P(EveryTarget, RowsBeyondTheMatrixAreNotWritten) {
  Matrix m(DType::kQ4_K, 21, 256, rng);
  const size_t stride = 40, tokens = 5;
  const std::vector<float> x = RandomRows(tokens, m.cols, rng);
  const Inputs in(x, tokens, m.cols);
  for (const bool exact : {false, true}) {
    std::vector<float> y(tokens * stride, 123.0f);
    MatMul(m.view(), in.a, 0, 2, exact, y.data(), stride);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t r = 21; r < stride; ++r) ASSERT_EQ(y[t * stride + r], 123.0f);
    }
  }
}

// Asking which target is in use must not change it: bf16 weights show which kernel ran.
TEST_P(EveryTarget, AskingForTheTargetKeepsIt) {
  Matrix m(DType::kBF16, 16, 64, rng);
  const std::vector<float> x = RandomRows(1, m.cols, rng);
  const std::vector<float> before = Product(m, x, 1, false);
  EXPECT_STRNE(KernelTarget(), "");
  EXPECT_FALSE(RunnableTargets().empty());
  EXPECT_EQ(Product(m, x, 1, false), before);
}

}  // namespace
}  // namespace snug
