// Recurrent models by the fast path beside --exact, on the same weights: int8 products and half
// precision keys must not build up in the states.
#include <cmath>

#include "engine_testing.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

// KL divergence of two rows of logits.
double Divergence(std::span<const float> p, std::span<const float> q) {
  const auto log_sum = [](std::span<const float> x) {
    double sum = 0;
    for (const float v : x) sum += std::exp(double{v});
    return std::log(sum);
  };
  const double ps = log_sum(p), qs = log_sum(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double lp = p[i] - ps;
    kl += std::exp(lp) * (lp - (q[i] - qs));
  }
  return kl;
}

// The mean over all rows of `vocab` logits.
double MeanDivergence(const std::vector<float>& p, const std::vector<float>& q, size_t vocab) {
  EXPECT_EQ(p.size(), q.size());
  double sum = 0;
  for (size_t at = 0; at < p.size(); at += vocab) {
    sum += Divergence({&p[at], vocab}, {&q[at], vocab});
  }
  return sum * static_cast<double>(vocab) / static_cast<double>(p.size());
}

// How far a small change moves the logits is the model's own: routers that nearly hesitate, and
// norms of what nearly cancels, make random models of Qwen3-Next jump. The measure is therefore
// what rounding the weights to Q8_0 does in exact arithmetic.
class FastPath : public ::testing::TestWithParam<const char*> {};

TEST_P(FastPath, StaysAsCloseToExactAsRoundedWeightsDo) {
  EngineOptions o = TinyOptions(GetParam());
  SNUG_NEED(o.model_path);
  const auto logits = [&](bool exact, const char* weights) {
    o.exact = exact;
    o.weights = weights;
    auto engine = OpenOrFail(o);
    return AllLogits(*engine, 0, SomeTokens(250, 512), 64);
  };
  const auto rounded = logits(true, "q8_0");
  const double fast = MeanDivergence(rounded, logits(false, "q8_0"), 512);
  const double rounding = MeanDivergence(logits(true, ""), rounded, 512);
  ASSERT_TRUE(std::isfinite(fast));
  EXPECT_GT(fast, 0);  // the paths differ
  EXPECT_LT(fast, 4 * rounding);
  // Without routers, nothing jumps.
  if (std::string(GetParam()).starts_with("mamba")) {
    EXPECT_LT(fast, 0.002);
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, FastPath, ::testing::Values("mamba", "mamba2", "qwen3next"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace snug
