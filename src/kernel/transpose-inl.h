// Rows to lanes: the transposition in words of 32 bits that packing consists of. Included once per
// target.
#if defined(SNUG_KERNEL_TRANSPOSE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_TRANSPOSE_INL_H
#undef SNUG_KERNEL_TRANSPOSE_INL_H
#else
#define SNUG_KERNEL_TRANSPOSE_INL_H
#endif

#include <cstring>

#include "kernel/compat-inl.h"
#include "kernel/matmul.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Words [0, words) of 16 sources to words of dst, each XORed with `flip`.
static HWY_INLINE void Transpose(const uint8_t* const (&src)[kPanelRows], size_t words,
                                 uint32_t flip, uint8_t* dst) {
  size_t w = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<uint32_t, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  const auto mask = hn::Set(d, flip);
  for (; w + 4 <= words; w += 4) {
    for (size_t r = 0; r < kPanelRows; r += 4) {
      const auto load = [&](size_t i) HWY_ATTR {
        return hn::Xor(hn::LoadU(d, reinterpret_cast<const uint32_t*>(src[r + i] + 4 * w)), mask);
      };
      const auto a = load(0), b = load(1), c = load(2), e = load(3);
      const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b));
      const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
      const auto ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
      const auto ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
      const auto store = [&](size_t i, auto v) HWY_ATTR {
        hn::StoreU(hn::BitCast(d, v), d, reinterpret_cast<uint32_t*>(dst + 64 * (w + i) + 4 * r));
      };
      store(0, hn::InterleaveLower(d64, ab_low, ce_low));
      store(1, hn::InterleaveUpper(d64, ab_low, ce_low));
      store(2, hn::InterleaveLower(d64, ab_high, ce_high));
      store(3, hn::InterleaveUpper(d64, ab_high, ce_high));
    }
  }
#endif
  for (; w < words; ++w) {
    for (size_t r = 0; r < kPanelRows; ++r) {
      uint32_t v;
      std::memcpy(&v, src[r] + 4 * w, 4);
      v ^= flip;
      std::memcpy(dst + 64 * w + 4 * r, &v, 4);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
