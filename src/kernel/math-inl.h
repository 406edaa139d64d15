// Exponentials, logarithms and gates of the kernels, and whole or part vectors in memory, over
// compat-inl.h's vectors. Included once per target.
#if defined(SNUG_KERNEL_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATH_INL_H
#undef SNUG_KERNEL_MATH_INL_H
#else
#define SNUG_KERNEL_MATH_INL_H
#endif

#include <cstring>

#include "kernel/compat-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// 2^x for x <= 127; 0 for x below -126 (and for -infinity). Relative error below 2e-7: 2^f on
// [-1/2, 1/2] by its Taylor polynomial of degree 7 in f ln 2.
static HWY_INLINE VF Exp2(VF x) {
  const DF d;
  const VF floor = hn::Set(d, -126.0f);
  const VF n = hn::Round(hn::Max(x, floor));
  const VF f = hn::Sub(hn::Max(x, floor), n);
  VF p = hn::Set(d, 1.5252734e-5f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.5403530e-4f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.3333558e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.6181291e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.5504109e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022651f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.69314718f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const VI exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(DI(), n), hn::Set(DI(), 127)));
  return hn::IfThenElseZero(hn::Ge(x, floor), hn::Mul(p, hn::BitCast(d, exponent)));
}

inline constexpr float kLog2E = 1.44269504f;

// e^x for x <= 88; 0 for x below -87 (and for -infinity).
static HWY_INLINE VF Exp(VF x) {
  // x log2(e) in two parts, so that large |x| keep their fraction.
  const DF d;
  x = hn::Max(x, hn::Set(d, -100.0f));
  const VF hi = hn::Mul(x, hn::Set(d, kLog2E));
  const VF lo = hn::MulAdd(x, hn::Set(d, 1.92596299e-8f), hn::MulSub(x, hn::Set(d, kLog2E), hi));
  return hn::MulAdd(Exp2(hi), hn::Mul(lo, hn::Set(d, 0.69314718f)), Exp2(hi));
}

// v * sigmoid(z)
static HWY_INLINE VF Gate(VF v, VF z) {
  const DF d;
  const VF e = Exp(hn::Min(hn::Neg(z), hn::Set(d, 88.0f)));
  return hn::Div(v, hn::Add(hn::Set(d, 1.0f), e));
}

// log(1 + e^x) = max(x, 0) + log(1 + u), u = e^-|x|. The logarithm is 2 atanh(s) with s = u / (2 +
// u), at most 1/3: eight terms of its series reach 1e-8 and lose nothing where u is small.
static HWY_INLINE VF Softplus(VF x) {
  const DF d;
  const VF u = Exp(hn::Neg(hn::Abs(x)));
  const VF s = hn::Div(u, hn::Add(u, hn::Set(d, 2.0f)));
  const VF s2 = hn::Mul(s, s);
  VF p = hn::Set(d, 1.0f / 15);
  p = hn::MulAdd(p, s2, hn::Set(d, 1.0f / 13));
  p = hn::MulAdd(p, s2, hn::Set(d, 1.0f / 11));
  p = hn::MulAdd(p, s2, hn::Set(d, 1.0f / 9));
  p = hn::MulAdd(p, s2, hn::Set(d, 1.0f / 7));
  p = hn::MulAdd(p, s2, hn::Set(d, 1.0f / 5));
  p = hn::MulAdd(p, s2, hn::Set(d, 1.0f / 3));
  p = hn::MulAdd(p, s2, hn::Set(d, 1.0f));
  return hn::MulAdd(hn::Add(s, s), p, hn::Max(x, hn::Zero(d)));
}

// The first n floats at p, zeros after them; all of a vector where n is kLanes or more.
static HWY_INLINE VF LoadFirst(const float* p, size_t n) {
  if (n >= kLanes) return hn::LoadU(DF(), p);
  HWY_ALIGN float part[kLanes] = {};
  std::memcpy(part, p, n * sizeof(float));
  return hn::Load(DF(), part);
}
static HWY_INLINE void StoreFirst(VF v, float* p, size_t n) {
  if (n >= kLanes) return hn::StoreU(v, DF(), p);
  HWY_ALIGN float part[kLanes];
  hn::Store(v, DF(), part);
  std::memcpy(p, part, n * sizeof(float));
}

static HWY_INLINE float Sum(VF v) { return hn::GetLane(hn::SumOfLanes(DF(), v)); }

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
