// Exponentials of the kernels, over compat-inl.h's vectors. Included once per target.
#if defined(SNUG_KERNEL_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATH_INL_H
#undef SNUG_KERNEL_MATH_INL_H
#else
#define SNUG_KERNEL_MATH_INL_H
#endif

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

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
