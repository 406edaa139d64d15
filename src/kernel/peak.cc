#include "kernel/peak.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/peak.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/compat-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Instructions may neither be left out nor moved out of the loop.
static HWY_INLINE void Touch(VU& v) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  asm volatile("" : "+x"(v.raw));
#elif HWY_ARCH_ARM && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  asm volatile("" : "+w"(v.raw));
#else
  asm volatile("" : "+m"(v));
#endif
}

static HWY_INLINE VI Product(VI sum, VU w, VU x) {
#if HWY_TARGET == HWY_AVX2
  return VI{_mm256_add_epi16(sum.raw, _mm256_maddubs_epi16(w.raw, x.raw))};
#else
  return QuadDot(sum, w, x);
#endif
}

// Six or twelve sums, each a variable: compilers leave arrays of them in memory.
uint64_t RunByteProductsT(uint64_t rounds) {
  // AVX2 has registers for two inputs; the longer latency of others wants four.
  constexpr bool kFour = HWY_TARGET != HWY_AVX2;
  const VU a = hn::Set(DU(), 1), b = hn::Set(DU(), 2), c = hn::Set(DU(), 3);
  VU x = a, y = b, z = c, w = c;
  VI xa = hn::Zero(DI()), xb = xa, xc = xa, ya = xa, yb = xa, yc = xa;
  VI za = xa, zb = xa, zc = xa, wa = xa, wb = xa, wc = xa;
  for (uint64_t r = 0; r < rounds; ++r) {
    Touch(x);
    xa = Product(xa, a, x);
    xb = Product(xb, b, x);
    xc = Product(xc, c, x);
    Touch(y);
    ya = Product(ya, a, y);
    yb = Product(yb, b, y);
    yc = Product(yc, c, y);
    if constexpr (kFour) {
      Touch(z);
      za = Product(za, a, z);
      zb = Product(zb, b, z);
      zc = Product(zc, c, z);
      Touch(w);
      wa = Product(wa, a, w);
      wb = Product(wb, b, w);
      wc = Product(wc, c, w);
    }
  }
  for (const VI sum : {xa, xb, xc, ya, yb, yc, za, zb, zc, wa, wb, wc}) {
    VU seen = hn::BitCast(DU(), sum);
    Touch(seen);
  }
  return rounds * (kFour ? 12 : 6) * 4 * kLanes;
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(RunByteProductsT);

uint64_t RunByteProducts(uint64_t rounds) { return HWY_DYNAMIC_DISPATCH(RunByteProductsT)(rounds); }

}  // namespace snug
#endif  // HWY_ONCE
