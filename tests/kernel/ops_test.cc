#include "kernel/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "kernel/targets.h"

namespace snug {
namespace {

std::vector<float> Random(size_t n, float scale, uint32_t seed = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> v(n);
  for (float& x : v) x = normal(rng);
  return v;
}

// fn(n) for sizes around every vector width, on every target.
template <class F>
void ForSizes(const F& fn) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (size_t n = 1; n <= 70; ++n) fn(n);
    fn(1536);
  }
  UseTarget(0);
}

TEST(Ops, RmsNorm) {
  ForSizes([](size_t n) {
    const auto x = Random(n, 3), w = Random(n, 1, 2);
    std::vector<float> y(n);
    RmsNorm(x.data(), w.data(), 1e-6f, n, y.data());
    double squares = 0;
    for (const float v : x) squares += double{v} * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
    for (size_t i = 0; i < n; ++i)
      EXPECT_NEAR(y[i], x[i] * scale * w[i], 1e-5 * (1 + std::abs(y[i])));
  });
}

TEST(Ops, GatedActivations) {
  ForSizes([](size_t n) {
    const auto g = Random(n, 6), u = Random(n, 1, 2);
    std::vector<float> silu(n), gelu(n), clamped(n);
    SiluMul(g.data(), u.data(), n, silu.data());
    GeluMul(g.data(), u.data(), n, gelu.data());
    ClampedSwiglu(g.data(), u.data(), 1.702f, 1.5f, n, clamped.data());
    for (size_t i = 0; i < n; ++i) {
      const double x = g[i];
      const double s = x / (1 + std::exp(-x)) * u[i];
      const double t =
          0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) * u[i];
      const double low = std::min(x, 1.5), up = std::clamp<double>(u[i], -1.5, 1.5);
      EXPECT_NEAR(clamped[i], low / (1 + std::exp(-1.702 * low)) * (up + 1), 5e-6);
      EXPECT_NEAR(silu[i], s, 2e-6 * (1 + std::abs(s)));
      EXPECT_NEAR(gelu[i], t, 2e-6 * (1 + std::abs(t)));
    }
  });
}

TEST(Ops, LayerNorm) {
  ForSizes([](size_t n) {
    auto x = Random(n, 3);
    for (float& v : x) v += 100;  // a mean that would drown the variance of a one-pass sum
    const auto w = Random(n, 1, 2), b = Random(n, 1, 3);
    double mean = 0, variance = 0;
    for (const float v : x) mean += v / static_cast<double>(n);
    for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(n);
    const double scale = 1 / std::sqrt(variance + 1e-5);
    const auto original = x;
    std::vector<float> y(n), plain(n);
    LayerNorm(x.data(), w.data(), b.data(), 1e-5f, n, y.data());
    LayerNorm(x.data(), w.data(), nullptr, 1e-5f, n, plain.data());
    LayerNorm(x.data(), w.data(), b.data(), 1e-5f, n, x.data());
    EXPECT_EQ(x, y);
    for (size_t i = 0; i < n; ++i) {
      const double expected = (original[i] - mean) * scale * w[i];
      EXPECT_NEAR(plain[i], expected, 5e-5 * (1 + std::abs(expected)));
      EXPECT_NEAR(y[i], expected + b[i], 5e-5 * (1 + std::abs(expected)));
    }
  });
}

TEST(Ops, GeluOfTheErrorFunction) {
  ForSizes([](size_t n) {
    auto x = Random(n, 3);
    x[0] = n % 2 == 0 ? -60.0f : 60.0f;  // far outside, and around zero
    if (n > 2) x[1] = 0, x[2] = -1e-4f;
    const auto before = x;
    GeluErf(n, x.data());
    for (size_t i = 0; i < n; ++i) {
      const double v = before[i], expected = v * 0.5 * std::erfc(-v / std::sqrt(2.0));
      EXPECT_NEAR(x[i], expected, 3e-7 * std::max(1.0, std::abs(expected))) << v;
    }
  });
}

TEST(Ops, SigmoidGateAndL2Norm) {
  ForSizes([](size_t n) {
    const auto g = Random(n, 6), x = Random(n, 2, 2);
    auto gated = x, unit = x;
    SigmoidMul(g.data(), n, gated.data());
    L2Norm(1e-6f, 0.5f, n, unit.data());
    double squares = 1e-6;
    for (const float v : x) squares += double{v} * v;
    for (size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(gated[i], x[i] / (1 + std::exp(-double{g[i]})), 2e-6 * (1 + std::abs(x[i])));
      EXPECT_NEAR(unit[i], 0.5 * x[i] / std::sqrt(squares), 1e-6);
    }
  });
}

TEST(Ops, SoftmaxArgMaxSoftCap) {
  ForSizes([](size_t n) {
    auto x = Random(n, 10);
    const size_t best = static_cast<size_t>(std::max_element(x.begin(), x.end()) - x.begin());
    EXPECT_EQ(ArgMax(x.data(), n), best);
    std::vector<float> twice = x;
    twice.insert(twice.end(), x.begin(), x.end());
    EXPECT_EQ(ArgMax(twice.data(), 2 * n), best);  // the first of equals
    std::vector<float> capped = x, p = x;
    SoftCap(30, n, capped.data());
    Softmax(p.data(), n);
    double sum = 0;
    for (const float v : x) sum += std::exp(double{v} - x[best]);
    for (size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(capped[i], 30 * std::tanh(x[i] / 30), 1e-4);
      EXPECT_NEAR(p[i], std::exp(double{x[i]} - x[best]) / sum, 1e-6);
    }
  });
}

TEST(Ops, SumsAndScales) {
  ForSizes([](size_t n) {
    const auto a = Random(n, 1), b = Random(n, 1, 2);
    auto y = b;
    AddTo(a.data(), n, y.data());
    Scale(3, n, y.data());
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(y[i], (a[i] + b[i]) * 3);
    AddScaled(-2, a.data(), n, y.data());
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(y[i], a[i] + b[i] * 3, 2e-6);
  });
}

TEST(Ops, RotationsKeepPairsLengthAndTurnThem) {
  ForSizes([](size_t n) {
    const size_t dim = 2 * n;
    std::vector<float> cs(dim);
    for (size_t i = 0; i < n; ++i)
      cs[i] = std::cos(0.1f * static_cast<float>(i)),
      cs[n + i] = std::sin(0.1f * static_cast<float>(i));
    const auto x = Random(dim, 1);
    auto neox = x, inter = x;
    RopeNeox(cs.data(), dim, neox.data());
    RopeInterleaved(cs.data(), dim, inter.data());
    for (size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(neox[i], x[i] * cs[i] - x[n + i] * cs[n + i], 1e-6);
      EXPECT_NEAR(neox[n + i], x[i] * cs[n + i] + x[n + i] * cs[i], 1e-6);
      EXPECT_NEAR(inter[2 * i], x[2 * i] * cs[i] - x[2 * i + 1] * cs[n + i], 1e-6);
      EXPECT_NEAR(inter[2 * i + 1], x[2 * i] * cs[n + i] + x[2 * i + 1] * cs[i], 1e-6);
    }
  });
}

}  // namespace
}  // namespace snug
