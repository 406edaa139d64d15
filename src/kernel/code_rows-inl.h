// Rows of few-bit codes as MultiplyRows (coded_tile-inl.h) reads them: each row's codes in order,
// the first in the lowest bits of its bytes. Included once per target.
#if defined(SNUG_KERNEL_CODE_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_CODE_ROWS_INL_H
#undef SNUG_KERNEL_CODE_ROWS_INL_H
#else
#define SNUG_KERNEL_CODE_ROWS_INL_H
#endif

#include "kernel/coded_tile-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// kWide values of a row, from codes of 2, 4 and 8 bits and from f16.
struct TwoBits {
  static constexpr size_t kBits = 2;
  static HWY_INLINE void Load(const uint8_t* p, VF (&to)[kPass]) {
    uint32_t word;
    hwy::CopyBytes<4>(p, &word);
    const VU codes = hn::Set(DU(), word);
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) {
      const VU shift = hn::ShiftLeft<1>(hn::Iota(DU(), static_cast<uint32_t>(k * kLanes)));
      const VU code = hn::And(hn::Shr(codes, shift), hn::Set(DU(), 3));
      to[k] = hn::ConvertTo(DF(), hn::BitCast(DI(), code));
    }
  }
};
struct FourBits {
  static constexpr size_t kBits = 4;
  static HWY_INLINE void Load(const uint8_t* p, VF (&to)[kPass]) {
    uint32_t word[2];
    hwy::CopyBytes<8>(p, word);
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) {
      VU codes = hn::Set(DU(), word[k * kLanes / 8]);
#if HWY_TARGET != HWY_SCALAR
      if constexpr (kLanes == 16) {
        codes = hn::IfThenElse(hn::FirstN(DU(), 8), codes, hn::Set(DU(), word[1]));
      }
#endif
      // Lane i of a word's eight; those of the second word shift as those of the first.
      const VU lane =
          hn::And(hn::Iota(DU(), static_cast<uint32_t>(k * kLanes % 8)), hn::Set(DU(), 7));
      const VU code = hn::And(hn::Shr(codes, hn::ShiftLeft<2>(lane)), hn::Set(DU(), 15));
      to[k] = hn::ConvertTo(DF(), hn::BitCast(DI(), code));
    }
  }
};
struct EightBits {
  static constexpr size_t kBits = 8;
  static HWY_INLINE void Load(const uint8_t* p, VF (&to)[kPass]) {
    const hn::Rebind<uint8_t, DI> d8;
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) {
      to[k] = hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::LoadU(d8, p + k * kLanes)));
    }
  }
};
struct Halves16 {
  static constexpr size_t kBits = 16;
  static HWY_INLINE void Load(const uint8_t* p, VF (&to)[kPass]) {
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) to[k] = LoadHalves(p + 2 * k * kLanes);
  }
};

// Rows of codes (of floats) from value c on, as MultiplyRows wants them.
template <class Values>
struct Rows {
  const uint8_t* data;
  size_t row_bytes;
  HWY_INLINE void Load(size_t row, VF (&to)[kPass]) const {
    Values::Load(data + row * row_bytes, to);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
