// The recurrences against slow ones in double, over sizes and targets; and the same bits however
// tokens, channels, heads and columns are cut.
#include "kernel/ssm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "kernel/ops.h"
#include "kernel/targets.h"

namespace snug {
namespace {

using Floats = std::vector<float>;

Floats Random(size_t n, float scale, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats v(n);
  for (float& x : v) x = normal(rng);
  return v;
}

Floats Negative(size_t n, uint32_t seed) {
  Floats v = Random(n, 1, seed);
  for (float& x : v) x = -std::exp(x);
  return v;
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double Silu(double x) { return x * Sigmoid(x); }
double Log1pExp(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

void ExpectNear(const Floats& got, const std::vector<double>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], 2e-5 * (1 + std::abs(want[i]))) << what << " " << i;
  }
}

void ExpectSame(const Floats& a, const Floats& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_TRUE(a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) << what;
}

// What a recurrence gave: all rows, and the state after them.
struct History {
  Floats y, state;
};

// Runs `step(first, tokens, from, to, y)` over chunks of `chunk` tokens, from `initial`.
using Step =
    std::function<void(size_t first, size_t tokens, const float* from, float* to, float* y)>;
History InChunks(size_t tokens, size_t width, size_t chunk, const Floats* initial, size_t floats,
                 const Step& step) {
  History run{Floats(tokens * width), initial != nullptr ? *initial : Floats()};
  for (size_t t = 0; t < tokens; t += chunk) {
    Floats next(floats, NAN);
    step(t, std::min(chunk, tokens - t), run.state.empty() ? nullptr : run.state.data(),
         next.data(), run.y.data() + t * width);
    run.state = next;
  }
  return run;
}

template <class F>
void OnTargets(const F& fn) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    fn();
  }
  UseTarget(0);
}

TEST(Ssm, CausalConvolution) {
  OnTargets([] {
    for (const uint32_t width : {1u, 2u, 4u, 5u, kMaxConvWidth}) {
      for (const uint32_t channels : {1u, 7u, 16u, 37u}) {
        for (const uint32_t tokens : {1u, 3u, 19u}) {
          const size_t stride = channels + 3, past = width - 1;
          const Floats x = Random(tokens * stride, 1, 1), w = Random(channels * width, 1, 2);
          const Floats bias = Random(channels, 1, 3), before = Random(past * channels, 1, 4);
          const std::string what =
              std::to_string(width) + " " + std::to_string(channels) + " " + std::to_string(tokens);
          for (const bool fresh : {false, true}) {
            const auto step = [&](size_t cut) {
              return [&, cut](size_t t, size_t n, const float* from, float* to, float* y) {
                CausalConvArgs a;
                a.tokens = static_cast<uint32_t>(n);
                a.channels = channels;
                a.width = width;
                a.x = x.data() + t * stride;
                a.x_stride = stride;
                a.weight = w.data();
                a.bias = fresh ? nullptr : bias.data();
                a.from = from;
                a.to = to;
                a.y = y;
                a.y_stride = channels;
                for (size_t c = 0; c < channels; c += cut) {
                  CausalConvSilu(a, c, std::min<size_t>(channels, c + cut));
                }
              };
            };
            const Floats* initial = fresh ? nullptr : &before;
            const size_t floats = past * channels;
            const History all = InChunks(tokens, channels, tokens, initial, floats, step(channels));
            std::vector<double> y, state;
            const auto input = [&](ptrdiff_t t, size_t c) -> double {
              if (t >= 0) return x[t * stride + c];
              return fresh ? 0.0 : before[(t + past) * channels + c];
            };
            for (ptrdiff_t t = 0; t < tokens; ++t) {
              for (size_t c = 0; c < channels; ++c) {
                double sum = fresh ? 0.0 : bias[c];
                for (size_t j = 0; j < width; ++j) {
                  sum += w[c * width + j] * input(t - static_cast<ptrdiff_t>(past - j), c);
                }
                y.push_back(Silu(sum));
              }
            }
            for (size_t j = 0; j < past; ++j) {
              for (size_t c = 0; c < channels; ++c) {
                state.push_back(input(static_cast<ptrdiff_t>(tokens + j - past), c));
              }
            }
            ExpectNear(all.y, y, what);
            ExpectNear(all.state, state, what + " state");
            const History cut = InChunks(tokens, channels, 2, initial, floats, step(5));
            ExpectSame(cut.y, all.y, what);
            ExpectSame(cut.state, all.state, what + " state");
          }
        }
      }
    }
  });
}

TEST(Ssm, SelectiveScan) {
  OnTargets([] {
    for (const uint32_t channels : {1u, 8u, 19u}) {
      for (const uint32_t states : {1u, 5u, 16u, 24u, 33u}) {
        const uint32_t tokens = 13;
        const size_t wide = channels + 1, bc = 2 * states + 3;
        const Floats x = Random(tokens * wide, 1, 1), z = Random(tokens * wide, 2, 2);
        const Floats dt = Random(tokens * wide, 3, 3), b = Random(tokens * bc, 1, 4);
        const Floats a = Negative(channels * states, 5), d = Random(channels, 1, 6);
        const Floats dt_bias = Random(channels, 1, 7), before = Random(channels * states, 1, 8);
        const std::string what = std::to_string(channels) + " " + std::to_string(states);
        for (const Floats* initial : {static_cast<const Floats*>(nullptr), &before}) {
          const auto step = [&](size_t cut) {
            return [&, cut](size_t t, size_t n, const float* from, float* to, float* y) {
              SelectiveScanArgs s;
              s.tokens = static_cast<uint32_t>(n);
              s.channels = channels;
              s.states = states;
              s.x = x.data() + t * wide;
              s.z = z.data() + t * wide;
              s.dt = dt.data() + t * wide;
              s.x_stride = s.z_stride = s.dt_stride = wide;
              s.b = b.data() + t * bc;
              s.c = s.b + states;
              s.bc_stride = bc;
              s.a = a.data();
              s.d = d.data();
              s.dt_bias = dt_bias.data();
              s.from = from;
              s.to = to;
              s.y = y;
              s.y_stride = channels;
              for (size_t c = 0; c < channels; c += cut) {
                SelectiveScan(s, c, std::min<size_t>(channels, c + cut));
              }
            };
          };
          const size_t floats = channels * states;
          const History all = InChunks(tokens, channels, tokens, initial, floats, step(channels));
          std::vector<double> h(floats, 0.0), y;
          if (initial != nullptr) h.assign(initial->begin(), initial->end());
          for (size_t t = 0; t < tokens; ++t) {
            for (size_t c = 0; c < channels; ++c) {
              const double delta = Log1pExp(double{dt[t * wide + c]} + dt_bias[c]);
              const double in = x[t * wide + c];
              double sum = d[c] * in;
              for (size_t i = 0; i < states; ++i) {
                double& state = h[c * states + i];
                state = std::exp(delta * a[c * states + i]) * state + delta * in * b[t * bc + i];
                sum += b[t * bc + states + i] * state;
              }
              y.push_back(sum * Silu(z[t * wide + c]));
            }
          }
          ExpectNear(all.y, y, what);
          ExpectNear(all.state, h, what + " state");
          const History cut = InChunks(tokens, channels, 4, initial, floats, step(3));
          ExpectSame(cut.y, all.y, what);
          ExpectSame(cut.state, all.state, what + " state");
        }
      }
    }
  });
}

TEST(Ssm, StateSpaceDuality) {
  struct Size {
    uint32_t heads, groups, dim, states;
  };
  OnTargets([] {
    for (const Size& size : {Size{1, 1, 1, 1}, {4, 2, 16, 16}, {6, 3, 64, 9}, {2, 1, 37, 24}}) {
      const auto [heads, groups, dim, states] = size;
      const uint32_t tokens = 11, inner = heads * dim;
      const size_t xbc = inner + 2 * groups * states;
      const Floats x = Random(tokens * xbc, 1, 1), dt = Random(tokens * heads, 3, 2);
      const Floats a = Negative(heads, 3), d = Random(heads, 1, 4), dt_bias = Random(heads, 1, 5);
      const size_t floats = size_t{inner} * states;
      const Floats before = Random(floats, 1, 6);
      const std::string what = std::to_string(dim) + " " + std::to_string(states);
      for (const Floats* initial : {static_cast<const Floats*>(nullptr), &before}) {
        const auto step = [&](size_t block) {
          return [&, block](size_t t, size_t n, const float* from, float* to, float* y) {
            SsdScanArgs s;
            s.tokens = static_cast<uint32_t>(n);
            s.heads = heads;
            s.head_dim = dim;
            s.groups = groups;
            s.states = states;
            s.x = x.data() + t * xbc;
            s.b = s.x + inner;
            s.c = s.b + groups * states;
            s.xbc_stride = xbc;
            s.dt = dt.data() + t * heads;
            s.dt_stride = heads;
            s.a = a.data();
            s.d = d.data();
            s.dt_bias = dt_bias.data();
            s.from = from;
            s.to = to;
            s.y = y;
            s.y_stride = inner;
            for (size_t h = 0; h < heads; ++h) {
              for (size_t c = 0; c < dim; c += block) {
                SsdScan(s, h, c, std::min<size_t>(dim, c + block));
              }
            }
          };
        };
        const History all = InChunks(tokens, inner, tokens, initial, floats, step(dim));
        std::vector<double> state(floats, 0.0), y;
        if (initial != nullptr) state.assign(initial->begin(), initial->end());
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t h = 0; h < heads; ++h) {
            const double delta = Log1pExp(double{dt[t * heads + h]} + dt_bias[h]);
            const float* b = x.data() + t * xbc + inner + h / (heads / groups) * states;
            const float* c = b + groups * states;
            for (size_t p = 0; p < dim; ++p) {
              const double in = x[t * xbc + h * dim + p];
              double sum = d[h] * in;
              for (size_t i = 0; i < states; ++i) {
                double& s = state[(h * states + i) * dim + p];
                s = std::exp(delta * a[h]) * s + delta * in * b[i];
                sum += c[i] * s;
              }
              y.push_back(sum);
            }
          }
        }
        ExpectNear(all.y, y, what);
        ExpectNear(all.state, state, what + " state");
        const History cut = InChunks(tokens, inner, 3, initial, floats, step(16));
        ExpectSame(cut.y, all.y, what);
        ExpectSame(cut.state, all.state, what + " state");
      }
    }
  });
}

TEST(Ssm, GatedDeltaRule) {
  struct Size {
    uint32_t heads, groups, keys, values;
  };
  OnTargets([] {
    for (const Size& size : {Size{1, 1, 1, 1}, {4, 2, 16, 16}, {3, 3, 9, 70}, {2, 1, 33, 7}}) {
      const auto [heads, groups, keys, values] = size;
      const uint32_t tokens = 11;
      const size_t stride = 2 * groups * keys + heads * values + 1, floats = heads * keys * values;
      Floats x = Random(tokens * stride, 1, 1), gates = Random(tokens * 2 * heads, 2, 2);
      const Floats a = Negative(heads, 3), dt_bias = Random(heads, 1, 4);
      const Floats before = Random(floats, 1, 5);
      const std::string what = std::to_string(keys) + " " + std::to_string(values);
      std::vector<double> beta, decay;
      for (size_t t = 0; t < tokens; ++t) {
        float* row = gates.data() + t * 2 * heads;
        const size_t each = heads / groups;
        for (size_t h = 0; h < heads; ++h) {
          const float* gate = row + h / each * 2 * each + h % each;
          beta.push_back(Sigmoid(gate[0]));
          decay.push_back(std::exp(a[h] * Log1pExp(double{gate[each]} + dt_bias[h])));
        }
        DeltaGates(a.data(), dt_bias.data(), heads, groups, row);
        // Keys and queries are of length 1, as the rule wants them.
        for (size_t g = 0; g < 2 * groups; ++g) L2Norm(0, 1, keys, &x[t * stride + g * keys]);
      }
      for (const Floats* initial : {static_cast<const Floats*>(nullptr), &before}) {
        const auto step = [&](size_t block) {
          return [&, block](size_t t, size_t n, const float* from, float* to, float* y) {
            DeltaRuleArgs r;
            r.tokens = static_cast<uint32_t>(n);
            r.heads = heads;
            r.groups = groups;
            r.key_dim = keys;
            r.value_dim = values;
            r.q = x.data() + t * stride;
            r.k = r.q + groups * keys;
            r.v = r.k + groups * keys;
            r.qkv_stride = stride;
            r.gates = gates.data() + t * 2 * heads;
            r.gate_stride = 2 * heads;
            r.from = from;
            r.to = to;
            r.y = y;
            r.y_stride = heads * values;
            for (size_t h = 0; h < heads; ++h) {
              for (size_t c = 0; c < values; c += block) {
                GatedDeltaRule(r, h, c, std::min<size_t>(values, c + block));
              }
            }
          };
        };
        const size_t width = heads * values;
        const History all = InChunks(tokens, width, tokens, initial, floats, step(values));
        std::vector<double> state(floats, 0.0), y;
        if (initial != nullptr) state.assign(initial->begin(), initial->end());
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t h = 0; h < heads; ++h) {
            const float* q = &x[t * stride + h / (heads / groups) * keys];
            const float* k = q + groups * keys;
            const float* v = &x[t * stride + 2 * groups * keys + h * values];
            for (size_t j = 0; j < values; ++j) {
              double recalled = 0, sum = 0;
              for (size_t i = 0; i < keys; ++i) {
                double& s = state[(h * keys + i) * values + j];
                s *= decay[t * heads + h];
                recalled += s * k[i];
              }
              for (size_t i = 0; i < keys; ++i) {
                double& s = state[(h * keys + i) * values + j];
                s += k[i] * beta[t * heads + h] * (v[j] - recalled);
                sum += s * q[i];
              }
              y.push_back(sum);
            }
          }
        }
        ExpectNear(all.y, y, what);
        ExpectNear(all.state, state, what + " state");
        const History cut = InChunks(tokens, width, 3, initial, floats, step(16));
        ExpectSame(cut.y, all.y, what);
        ExpectSame(cut.state, all.state, what + " state");
      }
    }
  });
}

// Values that no model gives but a damaged file may: results are floats, whatever they are.
TEST(Ssm, PositiveDecaysStayDefined) {
  OnTargets([] {
    const Floats one(64, 1.0f), large(64, 1e6f);
    Floats state(64), y(8);
    SelectiveScanArgs s;
    s.tokens = 1;
    s.channels = 8;
    s.states = 8;
    s.x = s.z = s.b = s.c = s.d = one.data();
    s.dt = s.dt_bias = s.a = large.data();
    s.from = one.data();
    s.to = state.data();
    s.y = y.data();
    SelectiveScan(s, 0, 8);
    EXPECT_GT(y[0], 0);
  });
}

}  // namespace
}  // namespace snug
