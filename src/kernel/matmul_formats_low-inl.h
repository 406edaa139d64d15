// Packed formats of two- and three-bit types: Q2_K, Q3_K. Included once per target.
#if defined(SNUG_KERNEL_MATMUL_FORMATS_LOW_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATMUL_FORMATS_LOW_INL_H
#undef SNUG_KERNEL_MATMUL_FORMATS_LOW_INL_H
#else
#define SNUG_KERNEL_MATMUL_FORMATS_LOW_INL_H
#endif

#include "kernel/matmul_formats-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Bit pairs of a unit of 256 columns: words 0-7 hold the first 128, eight the others; pair s of a
// byte belongs to sub-block s of its half.
struct BitPairs {
  HWY_INLINE void Seek(const uint8_t* first_word, size_t j) {
    words = first_word + 64 * (j / 4 * 8);
    shift = hn::Set(DU(), static_cast<uint32_t>(j % 4 * 2));
  }
  template <int K>
  HWY_INLINE VU Quad() const {
    return hn::And(hn::Shr(LoadWord(words, K), shift), hn::Set(DU(), 0x03030303u));
  }
  const uint8_t* words = nullptr;
  VU shift;
};

// Words 0-3 hold a nibble of scale and a nibble of minimum for every 16 columns, 4-19 the weights,
// 20 the f16 d and dmin.
struct FormatQ2_K {
  static constexpr size_t kSubs = 8, kHeadBytes = 0, kBytes = 84 * 16;
  static constexpr int kShift = kNoShift, kMaxWeight = 3;
  static constexpr bool kMin = true, kHalves = true, kWide = false;
  HWY_INLINE FormatQ2_K(const uint8_t* b, const uint8_t*) : body(b) {
    const VU both = LoadWord(b, 20);
    const VF d = LowHalf16(both), dmin = HighHalf16(both);
    for (size_t i = 0; i < 4; ++i) {
      const VU bytes = LoadWord(b, i);
      StoreScaled(d, Nibble<0>(bytes), scales + 4 * i * kLanes);
      StoreScaled(dmin, Nibble<1>(bytes), mins + 4 * i * kLanes);
    }
  }
  HWY_INLINE void Seek(size_t j) {
    sub = j;
    pairs.Seek(body + 64 * 4, j);
  }
  template <int Half>
  HWY_INLINE VF Scale() const {
    return hn::Load(DF(), scales + (2 * sub + Half) * kLanes);
  }
  template <int Half>
  HWY_INLINE VF Min() const {
    return hn::Load(DF(), mins + (2 * sub + Half) * kLanes);
  }
  template <int K>
  HWY_INLINE VU Quad() const {
    return pairs.template Quad<K>();
  }
  const uint8_t* body;
  size_t sub = 0;
  BitPairs pairs;
  alignas(64) float scales[16 * kLanes], mins[16 * kLanes];
};

// Words 0-7 hold the third bits (bit J of a byte is that of sub-block J), 8-23 the others, 24-26
// sixteen 6-bit scales, 32 each too large: low nibbles of scales 0-7 and 8-15 in both nibbles of
// words 24 and 25, their upper bits in word 26.
struct FormatQ3_K {
  static constexpr size_t kSubs = 8, kHeadBytes = 32, kBytes = 108 * 16;
  static constexpr int kShift = 2, kMaxWeight = 7;
  static constexpr bool kMin = false, kHalves = true, kWide = false;
  HWY_INLINE FormatQ3_K(const uint8_t* b, const uint8_t* h) : body(b) {
    const VF d = LoadHalves(h);
    const VU w0 = LoadWord(b, 24), w1 = LoadWord(b, 25), top = LoadWord(b, 26);
    StoreScales(d, Nibble<0>(w0), hn::ShiftLeft<4>(top), scales);
    StoreScales(d, Nibble<0>(w1), hn::ShiftLeft<2>(top), scales + 4 * kLanes);
    StoreScales(d, Nibble<1>(w0), top, scales + 8 * kLanes);
    StoreScales(d, Nibble<1>(w1), hn::ShiftRight<2>(top), scales + 12 * kLanes);
  }
  static HWY_INLINE void StoreScales(VF d, VU low, VU top, float* to) {
    const VU scale = hn::Or(low, hn::And(top, hn::Set(DU(), 0x30303030u)));
    // Less 32 in every byte: with the upper bit set none borrows from the next.
    const VU upper = hn::Set(DU(), 0x80808080u);
    const VU less = hn::Sub(hn::Or(scale, upper), hn::Set(DU(), 0x20202020u));
    StoreScaledSigned(d, hn::Xor(less, upper), to);
  }
  HWY_INLINE void Seek(size_t j) {
    sub = j;
    pairs.Seek(body + 64 * 8, j);
    third_shift = hn::Set(DU(), static_cast<uint32_t>(j));
  }
  template <int Half>
  HWY_INLINE VF Scale() const {
    return hn::Load(DF(), scales + (2 * sub + Half) * kLanes);
  }
  template <int K>
  HWY_INLINE VU Quad() const {
    const VU third = hn::ShiftLeft<2>(hn::Shr(LoadWord(body, K), third_shift));
    return hn::Or(pairs.template Quad<K>(), hn::And(third, hn::Set(DU(), 0x04040404u)));
  }
  const uint8_t* body;
  size_t sub = 0;
  BitPairs pairs;
  VU third_shift;
  alignas(64) float scales[16 * kLanes];
};

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
