// Operations that Highway 1.0.3 lacks and the kernels need, per target: integer quad dot products,
// the bf16 pair dot product, halves taken out of 32-bit lanes. Included once per target.
#if defined(SNUG_KERNEL_COMPAT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_COMPAT_INL_H
#undef SNUG_KERNEL_COMPAT_INL_H
#else
#define SNUG_KERNEL_COMPAT_INL_H
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

// Highway 1.0.3 names neither of these two for its AVX3_DL: it has checked the CPU for the first,
// ChooseTarget for the second.
#undef SNUG_BEFORE_NAMESPACE
#undef SNUG_AFTER_NAMESPACE
#if HWY_TARGET == HWY_AVX3_DL
#define SNUG_BEFORE_NAMESPACE()                                \
  HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni,avx512bf16") \
  static_assert(true, "takes the semicolon")
#define SNUG_AFTER_NAMESPACE() HWY_POP_ATTRIBUTES static_assert(true, "takes the semicolon")
#else
#define SNUG_BEFORE_NAMESPACE() HWY_BEFORE_NAMESPACE()
#define SNUG_AFTER_NAMESPACE() HWY_AFTER_NAMESPACE()
#endif

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
using VU = hn::Vec<DU>;
inline constexpr size_t kLanes = hn::MaxLanes(DF());

// acc[lane] + sum over the lane's four bytes of w (unsigned) * x (signed): exact, no saturation,
// for w <= 127.
static HWY_INLINE VI QuadDot(VI acc, VU w, VU x) {
#if HWY_TARGET == HWY_AVX3_DL
  return VI{_mm512_dpbusd_epi32(acc.raw, w.raw, x.raw)};
#elif HWY_TARGET == HWY_AVX2
  const __m256i pairs = _mm256_maddubs_epi16(w.raw, x.raw);  // at most 2 * 127 * 127 < 2^15
  return VI{_mm256_add_epi32(acc.raw, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
#elif HWY_TARGET == HWY_NEON
  const int8x16_t a = vreinterpretq_s8_u32(w.raw), b = vreinterpretq_s8_u32(x.raw);
#if defined(__ARM_FEATURE_DOTPROD)
  return VI(vdotq_s32(acc.raw, a, b));
#else
  const int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  const int32x4_t hi = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
  return VI(vaddq_s32(acc.raw, vpaddq_s32(lo, hi)));
#endif
#else
  alignas(64) uint8_t wb[4 * kLanes];
  alignas(64) int8_t xb[4 * kLanes];
  alignas(64) int32_t sum[kLanes];
  hn::StoreU(w, DU(), reinterpret_cast<uint32_t*>(wb));
  hn::StoreU(x, DU(), reinterpret_cast<uint32_t*>(xb));
  hn::StoreU(acc, DI(), sum);
  for (size_t i = 0; i < 4 * kLanes; ++i) sum[i / 4] += wb[i] * xb[i];
  return hn::LoadU(DI(), sum);
#endif
}

// The same for w <= 255.
static HWY_INLINE VI QuadDotWide(VI acc, VU w, VU x) {
#if HWY_TARGET == HWY_AVX2
  // maddubs would saturate: w = 2 * (w >> 1) + (w & 1).
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(w.raw, 1), _mm256_set1_epi8(0x7f));
  const __m256i low = _mm256_and_si256(w.raw, _mm256_set1_epi8(1));
  const __m256i twice = _mm256_madd_epi16(_mm256_maddubs_epi16(high, x.raw), _mm256_set1_epi16(2));
  const __m256i once = _mm256_madd_epi16(_mm256_maddubs_epi16(low, x.raw), _mm256_set1_epi16(1));
  return VI{_mm256_add_epi32(acc.raw, _mm256_add_epi32(twice, once))};
#elif HWY_TARGET == HWY_NEON
  const VU high = hn::And(hn::ShiftRight<1>(w), hn::Set(DU(), 0x7f7f7f7fu));
  const VU low = hn::And(w, hn::Set(DU(), 0x01010101u));
  return QuadDot(QuadDot(QuadDot(acc, high, x), high, x), low, x);
#else
  return QuadDot(acc, w, x);
#endif
}

// The f16 in the low (high) half of each 32-bit lane as float.
static HWY_INLINE VF LowHalf16(VU v) {
  const hn::Rebind<uint16_t, DF> d16;
  const auto bits = hn::DemoteTo(d16, hn::BitCast(DI(), hn::And(v, hn::Set(DU(), 0xffffu))));
  return hn::PromoteTo(DF(), hn::BitCast(hn::Rebind<hwy::float16_t, DF>(), bits));
}
static HWY_INLINE VF HighHalf16(VU v) { return LowHalf16(hn::ShiftRight<16>(v)); }

// kLanes consecutive f16 values as float.
static HWY_INLINE VF LoadHalves(const uint8_t* p) {
  const hn::Rebind<hwy::float16_t, DF> dh;
  return hn::PromoteTo(DF(), hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(p)));
}

// Asks for a line of memory that is not needed before the L1 cache has been filled anew.
static HWY_INLINE void PrefetchL2(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }

// Four bytes at p in every lane.
static HWY_INLINE VU Broadcast4(const int8_t* p) {
  uint32_t bits;
  hwy::CopyBytes<4>(p, &bits);
  return hn::Set(DU(), bits);
}

// QuadDot with the same four bytes at x for every lane: one instruction where it can be.
template <bool kWide>
static HWY_INLINE VI QuadDotBroadcast(VI acc, VU w, const int8_t* x) {
#if HWY_TARGET == HWY_AVX3_DL
  // Compilers load and dot in two.
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(acc.raw)
      : "v"(w.raw), "m"(*reinterpret_cast<const int32_t*>(x)));
  return acc;
#else
  return kWide ? QuadDotWide(acc, w, Broadcast4(x)) : QuadDot(acc, w, Broadcast4(x));
#endif
}

#if HWY_TARGET == HWY_AVX3_DL
#undef SNUG_HAVE_BF16_DOT
#define SNUG_HAVE_BF16_DOT 1
// acc[lane] + w[2 lane] * x[2 lane] + w[2 lane + 1] * x[2 lane + 1], lanes holding bf16 pairs.
static HWY_INLINE VF PairDotBf16(VF acc, VU w, VU x) {
  return VF{_mm512_dpbf16_ps(acc.raw, reinterpret_cast<__m512bh>(w.raw),
                             reinterpret_cast<__m512bh>(x.raw))};
}
#else
#undef SNUG_HAVE_BF16_DOT
#define SNUG_HAVE_BF16_DOT 0
#endif

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
