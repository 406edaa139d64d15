#include "kernel/ops.h"

#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/ops.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/math-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Calls fn(load, store) over n floats, whole vectors and then a part. `load(p)` and `store(v, p)`
// take pointers into arrays of n.
template <class F>
static HWY_INLINE void ForVectors(size_t n, const F& fn) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    fn(
        i, [](const float* p) HWY_ATTR { return hn::LoadU(DF(), p); },
        [](VF v, float* p) HWY_ATTR { hn::StoreU(v, DF(), p); });
  }
  if (i == n) return;
  const size_t rest = n - i;
  fn(
      i,
      [rest](const float* p) HWY_ATTR {
        HWY_ALIGN float part[kLanes] = {};
        std::memcpy(part, p, rest * sizeof(float));
        return hn::Load(DF(), part);
      },
      [rest](VF v, float* p) HWY_ATTR {
        HWY_ALIGN float part[kLanes];
        hn::Store(v, DF(), part);
        std::memcpy(p, part, rest * sizeof(float));
      });
}

static void RmsNormT(const float* x, const float* w, float eps, size_t n, float* y) {
  VF squares = hn::Zero(DF());
  ForVectors(n, [&](size_t i, auto load, auto) HWY_ATTR {
    const VF v = load(x + i);
    squares = hn::MulAdd(v, v, squares);
  });
  const VF scale = hn::Set(DF(), 1.0f / std::sqrt(Sum(squares) / static_cast<float>(n) + eps));
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    VF v = hn::Mul(load(x + i), scale);
    if (w != nullptr) v = hn::Mul(v, load(w + i));
    store(v, y + i);
  });
}

static void LayerNormT(const float* x, const float* w, const float* b, float eps, size_t n,
                       float* y) {
  // The mean first: a sum of squares less the square of the sum loses what a large mean leaves.
  VF sum = hn::Zero(DF());
  ForVectors(n, [&](size_t i, auto load, auto) HWY_ATTR { sum = hn::Add(sum, load(x + i)); });
  const float mean = Sum(sum) / static_cast<float>(n);
  const VF shift = hn::Set(DF(), mean);
  VF squares = hn::Zero(DF());
  const size_t whole = n / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    const VF v = hn::Sub(hn::LoadU(DF(), x + i), shift);
    squares = hn::MulAdd(v, v, squares);
  }
  float variance = Sum(squares);
  for (size_t i = whole; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / std::sqrt(variance / static_cast<float>(n) + eps);
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    VF v = hn::Mul(hn::Mul(hn::Sub(load(x + i), shift), hn::Set(DF(), scale)), load(w + i));
    if (b != nullptr) v = hn::Add(v, load(b + i));
    store(v, y + i);
  });
}

static void AddToT(const float* x, size_t n, float* y) {
  ForVectors(n, [&](size_t i, auto load, auto store)
                    HWY_ATTR { store(hn::Add(load(x + i), load(y + i)), y + i); });
}

static void AddScaledT(float s, const float* x, size_t n, float* y) {
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    store(hn::MulAdd(hn::Set(DF(), s), load(x + i), load(y + i)), y + i);
  });
}

static void ScaleT(float s, size_t n, float* x) {
  ForVectors(n, [&](size_t i, auto load, auto store)
                    HWY_ATTR { store(hn::Mul(load(x + i), hn::Set(DF(), s)), x + i); });
}

static void SiluMulT(const float* gate, const float* up, size_t n, float* y) {
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    const VF g = load(gate + i);
    store(hn::Mul(Gate(g, g), load(up + i)), y + i);
  });
}

static void SigmoidMulT(const float* gate, size_t n, float* y) {
  ForVectors(n, [&](size_t i, auto load, auto store)
                    HWY_ATTR { store(Gate(load(y + i), load(gate + i)), y + i); });
}

static void L2NormT(float eps, float scale, size_t n, float* x) {
  VF squares = hn::Zero(DF());
  ForVectors(n, [&](size_t i, auto load, auto) HWY_ATTR {
    const VF v = load(x + i);
    squares = hn::MulAdd(v, v, squares);
  });
  ScaleT(scale / std::sqrt(Sum(squares) + eps), n, x);
}

static void GeluMulT(const float* gate, const float* up, size_t n, float* y) {
  // gelu(x) = x/2 (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    const DF d;
    const VF g = load(gate + i);
    const VF cubic = hn::MulAdd(hn::Mul(g, g), hn::Mul(g, hn::Set(d, 0.044715f)), g);
    const VF z = hn::Mul(cubic, hn::Set(d, 1.59576912f));
    store(hn::Mul(Gate(g, z), load(up + i)), y + i);
  });
}

static void GeluErfT(size_t n, float* x) {
  // For z = |x|: 1 - Phi(z) = 1/2 erfc(z / sqrt 2), by Hastings' rational approximation (Abramowitz
  // and Stegun 7.1.26, off by at most 1.5e-7); Phi(-z) = 1 - Phi(z).
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    const DF d;
    const VF v = load(x + i), z = hn::Mul(hn::Abs(v), hn::Set(d, 0.70710678f));
    const VF one = hn::Set(d, 1.0f);
    const VF t = hn::Div(one, hn::MulAdd(z, hn::Set(d, 0.3275911f), one));
    VF p = hn::Set(d, 0.5f * 1.061405429f);
    p = hn::MulAdd(p, t, hn::Set(d, 0.5f * -1.453152027f));
    p = hn::MulAdd(p, t, hn::Set(d, 0.5f * 1.421413741f));
    p = hn::MulAdd(p, t, hn::Set(d, 0.5f * -0.284496736f));
    p = hn::MulAdd(p, t, hn::Set(d, 0.5f * 0.254829592f));
    const VF tail = hn::Mul(hn::Mul(p, t), Exp(hn::Neg(hn::Mul(z, z))));
    const VF phi = hn::IfThenElse(hn::Lt(v, hn::Zero(d)), tail, hn::Sub(one, tail));
    store(hn::Mul(v, phi), x + i);
  });
}

static void ClampedSwigluT(const float* gate, const float* up, float alpha, float limit, size_t n,
                           float* y) {
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    const DF d;
    const VF most = hn::Set(d, limit);
    const VF g = hn::Min(load(gate + i), most);
    const VF u = hn::Max(hn::Min(load(up + i), most), hn::Neg(most));
    const VF gated = Gate(g, hn::Mul(g, hn::Set(d, alpha)));
    store(hn::Mul(gated, hn::Add(u, hn::Set(d, 1.0f))), y + i);
  });
}

static float MaxT(const float* x, size_t n) {
  VF max = hn::Set(DF(), x[0]);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) max = hn::Max(max, hn::LoadU(DF(), x + i));
  float m = hn::GetLane(hn::MaxOfLanes(DF(), max));
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

static void SoftmaxT(float* x, size_t n) {
  const VF max = hn::Set(DF(), MaxT(x, n));
  VF sum = hn::Zero(DF());
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VF e = Exp(hn::Sub(hn::LoadU(DF(), x + i), max));
    hn::StoreU(e, DF(), x + i);
    sum = hn::Add(sum, e);
  }
  float total = Sum(sum);
  for (; i < n; ++i) {
    x[i] = hn::GetLane(Exp(hn::Sub(hn::Set(DF(), x[i]), max)));
    total += x[i];
  }
  ScaleT(1 / total, n, x);
}

static size_t ArgMaxT(const float* x, size_t n) {
  const float max = MaxT(x, n);
  const VF wanted = hn::Set(DF(), max);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const intptr_t first = hn::FindFirstTrue(DF(), hn::Eq(hn::LoadU(DF(), x + i), wanted));
    if (first >= 0) return i + static_cast<size_t>(first);
  }
  for (; i < n; ++i) {
    if (x[i] == max) return i;
  }
  return 0;
}

static void SoftCapT(float cap, size_t n, float* x) {
  // cap tanh(z / cap) = cap (2 sigmoid(2 z / cap) - 1)
  ForVectors(n, [&](size_t i, auto load, auto store) HWY_ATTR {
    const DF d;
    const VF z = hn::Mul(load(x + i), hn::Set(d, 2 / cap));
    store(hn::MulSub(hn::Set(d, 2 * cap), Gate(hn::Set(d, 1.0f), z), hn::Set(d, cap)), x + i);
  });
}

static void RopeNeoxT(const float* cos_sin, size_t dim, float* head) {
  const size_t half = dim / 2;
  ForVectors(half, [&](size_t i, auto load, auto store) HWY_ATTR {
    const VF c = load(cos_sin + i), s = load(cos_sin + half + i);
    const VF a = load(head + i), b = load(head + half + i);
    store(hn::NegMulAdd(b, s, hn::Mul(a, c)), head + i);
    store(hn::MulAdd(a, s, hn::Mul(b, c)), head + half + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernel/targets.h"

namespace snug {

HWY_EXPORT(RmsNormT);
HWY_EXPORT(LayerNormT);
HWY_EXPORT(AddToT);
HWY_EXPORT(AddScaledT);
HWY_EXPORT(ScaleT);
HWY_EXPORT(SiluMulT);
HWY_EXPORT(SigmoidMulT);
HWY_EXPORT(L2NormT);
HWY_EXPORT(GeluMulT);
HWY_EXPORT(GeluErfT);
HWY_EXPORT(ClampedSwigluT);
HWY_EXPORT(SoftmaxT);
HWY_EXPORT(ArgMaxT);
HWY_EXPORT(SoftCapT);
HWY_EXPORT(RopeNeoxT);

void RmsNorm(const float* x, const float* w, float eps, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(RmsNormT)(x, w, eps, n, y);
}
void LayerNorm(const float* x, const float* w, const float* b, float eps, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(LayerNormT)(x, w, b, eps, n, y);
}
void AddTo(const float* x, size_t n, float* y) { HWY_DYNAMIC_DISPATCH(AddToT)(x, n, y); }
void AddScaled(float s, const float* x, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(AddScaledT)(s, x, n, y);
}
void Scale(float s, size_t n, float* x) { HWY_DYNAMIC_DISPATCH(ScaleT)(s, n, x); }
void SiluMul(const float* gate, const float* up, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(SiluMulT)(gate, up, n, y);
}
void SigmoidMul(const float* gate, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(SigmoidMulT)(gate, n, y);
}
void L2Norm(float eps, float scale, size_t n, float* x) {
  HWY_DYNAMIC_DISPATCH(L2NormT)(eps, scale, n, x);
}
void GeluMul(const float* gate, const float* up, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(GeluMulT)(gate, up, n, y);
}
void GeluErf(size_t n, float* x) { HWY_DYNAMIC_DISPATCH(GeluErfT)(n, x); }
void ClampedSwiglu(const float* gate, const float* up, float alpha, float limit, size_t n,
                   float* y) {
  HWY_DYNAMIC_DISPATCH(ClampedSwigluT)(gate, up, alpha, limit, n, y);
}
void Softmax(float* x, size_t n) { HWY_DYNAMIC_DISPATCH(SoftmaxT)(x, n); }
size_t ArgMax(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(ArgMaxT)(x, n); }
void SoftCap(float cap, size_t n, float* x) { HWY_DYNAMIC_DISPATCH(SoftCapT)(cap, n, x); }
void RopeNeox(const float* cos_sin, size_t dim, float* head) {
  HWY_DYNAMIC_DISPATCH(RopeNeoxT)(cos_sin, dim, head);
}

void RopeInterleaved(const float* cos_sin, size_t dim, float* head) {
  const size_t half = dim / 2;
  for (size_t i = 0; i < half; ++i) {
    const float c = cos_sin[i], s = cos_sin[half + i];
    const float a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = a * c - b * s;
    head[2 * i + 1] = a * s + b * c;
  }
}

}  // namespace snug
#endif  // HWY_ONCE
