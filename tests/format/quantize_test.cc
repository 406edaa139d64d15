// Searched codes: better than one pass over a block, best for what they have made before, safe on
// any input.
#include "format/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "format/quantize_simple.h"

namespace snug {
namespace {

std::vector<DType> Types() {
  std::vector<DType> types;
  for (uint32_t id = 0; id < 64; ++id) {
    const DTypeInfo* type = FindDType(id);
    if (type != nullptr && CanQuantize(type->type)) types.push_back(type->type);
  }
  return types;
}

std::vector<float> Normal(size_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> x(n);
  for (float& v : x) v = normal(generator);
  return x;
}

std::vector<float> Through(DType type, const std::vector<float>& x,
                           const float* importance = nullptr) {
  std::vector<uint8_t> blocks(RowBytes(type, x.size()));
  Quantize(type, x.data(), x.size(), importance, blocks.data());
  std::vector<float> y(x.size());
  Dequantize(type, blocks.data(), x.size(), y.data());
  return y;
}

// Root of the mean squared difference, over that of x.
double RelativeError(const std::vector<float>& x, const std::vector<float>& y,
                     const std::vector<float>& weight = {}) {
  double error = 0, square = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double w = weight.empty() ? 1 : weight[i];
    error += w * (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    square += w * double{x[i]} * x[i];
  }
  return std::sqrt(error / square);
}

TEST(Quantize, EveryTypeIsEncoded) {
  EXPECT_GE(Types().size(), 17u);
  for (const DType type : {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                           DType::kIQ4_XS, DType::kMXFP4, DType::kTQ2_0, DType::kBF16})
    EXPECT_TRUE(CanQuantize(type)) << Info(type).name;
}

// Of normal weights. The bounds are what ggml's quantizers leave of the same distribution.
TEST(Quantize, LeavesNoMoreErrorThanGgml) {
  const std::vector<float> x = Normal(256 * 200, 1);
  const std::pair<DType, double> kBounds[] = {
      {DType::kQ8_0, 0.0055}, {DType::kQ4_0, 0.0860},   {DType::kQ4_1, 0.0781},
      {DType::kQ5_0, 0.0428}, {DType::kQ5_1, 0.0378},   {DType::kQ2_K, 0.2950},
      {DType::kQ3_K, 0.1506}, {DType::kQ4_K, 0.0713},   {DType::kQ5_K, 0.0361},
      {DType::kQ6_K, 0.0178}, {DType::kIQ4_NL, 0.0760}, {DType::kIQ4_XS, 0.0766}};
  for (const auto& [type, bound] : kBounds)
    EXPECT_LT(RelativeError(x, Through(type, x)), bound) << Info(type).name;
}

TEST(Quantize, SearchIsBetterThanOnePass) {
  const std::vector<float> x = Normal(256 * 40, 2);
  for (const DType type : Types()) {
    if (!HasSimpleQuantizer(type)) continue;
    std::vector<uint8_t> blocks(RowBytes(type, x.size()));
    QuantizeSimple(type, x.data(), x.size(), blocks.data());
    std::vector<float> simple(x.size());
    Dequantize(type, blocks.data(), x.size(), simple.data());
    EXPECT_LE(RelativeError(x, Through(type, x)), RelativeError(x, simple)) << Info(type).name;
  }
}

// Weights that a type can hold exactly stay nearly as they are: what a second pass loses is little
// beside what the first lost.
TEST(Quantize, ASecondPassLosesLittle) {
  const std::vector<float> x = Normal(256 * 40, 3);
  for (const DType type : Types()) {
    const std::vector<float> once = Through(type, x);
    const double first = RelativeError(x, once), second = RelativeError(once, Through(type, once));
    EXPECT_LE(second, 0.15 * first + 1e-6) << Info(type).name;
  }
}

TEST(Quantize, ImportantColumnsGetTheSmallerErrors) {
  const std::vector<float> x = Normal(256 * 40, 4);
  std::vector<float> importance(x.size());
  for (size_t i = 0; i < x.size(); ++i) importance[i] = i % 7 == 0 ? 25.0f : 1.0f;
  for (const DType type :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ2_K, DType::kQ3_K,
        DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS}) {
    EXPECT_LT(RelativeError(x, Through(type, x, importance.data()), importance),
              0.97 * RelativeError(x, Through(type, x), importance))
        << Info(type).name;
  }
  // An importance of nothing is none.
  const std::vector<float> zeros(x.size());
  EXPECT_EQ(Through(DType::kQ4_K, x, zeros.data()), Through(DType::kQ4_K, x));
}

// MXFP4's scales are powers of two and its codes 1, 1.5, 2 and so on times them: what lies between
// 1 and 1.5 is off by up to a fifth. Elsewhere scales are fitted, and some are whole multiples of a
// super-block's.
double LargestError(DType type) { return type == DType::kMXFP4 ? 0.2001 : 0.13; }

TEST(Quantize, ConstantsAndExtremesSurvive) {
  for (const DType type : Types()) {
    const double bound = LargestError(type);
    const std::vector<float> zeros(512);
    EXPECT_EQ(Through(type, zeros), zeros) << Info(type).name;
    for (const float v : {1.0f, -1.0f, 1e-3f, -300.0f}) {
      const std::vector<float> y = Through(type, std::vector<float>(512, v));
      for (const float got : y) ASSERT_NEAR(got, v, bound * std::abs(v)) << Info(type).name;
    }
    // One large weight among small ones.
    std::vector<float> x = Normal(512, 5);
    x[100] = 5;
    EXPECT_NEAR(Through(type, x)[100], 5, 5 * (type == DType::kMXFP4 ? bound : 0.08))
        << Info(type).name;
    for (const float v : {INFINITY, -INFINITY, NAN, 3e38f, 1e-42f, 1e30f}) {
      x[77] = v;
      Through(type, x);  // any codes, but no fault
      Through(type, std::vector<float>(512, v));
    }
  }
}

// Rows are encoded block by block: their order and number do not change any.
TEST(Quantize, BlocksDoNotDependOnTheirNeighbours) {
  const std::vector<float> x = Normal(1024, 6);
  for (const DType type : Types()) {
    const DTypeInfo& info = Info(type);
    std::vector<uint8_t> whole(RowBytes(type, x.size())), block(info.bytes);
    Quantize(type, x.data(), x.size(), nullptr, whole.data());
    for (size_t i = 0; i < x.size() / info.block; i += 3) {
      Quantize(type, &x[i * info.block], info.block, nullptr, block.data());
      ASSERT_EQ(std::vector<uint8_t>(&whole[i * info.bytes], &whole[i * info.bytes] + info.bytes),
                block)
          << info.name;
    }
  }
}

}  // namespace
}  // namespace snug
