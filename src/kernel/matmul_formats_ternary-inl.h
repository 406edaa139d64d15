// Packed formats of ternary types: TQ1_0, TQ2_0. Included once per target.
#if defined(SNUG_KERNEL_MATMUL_FORMATS_TERNARY_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATMUL_FORMATS_TERNARY_INL_H
#undef SNUG_KERNEL_MATMUL_FORMATS_TERNARY_INL_H
#else
#define SNUG_KERNEL_MATMUL_FORMATS_TERNARY_INL_H
#endif

#include "kernel/matmul_formats-inl.h"
#include "kernel/matmul_formats_low-inl.h"  // BitPairs

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// One scale for 256 columns; weight = scale * (u - 1).
struct TernaryFormat : SimpleFormat {
  static constexpr size_t kSubs = 8;
  static constexpr int kShift = 0;
  HWY_INLINE TernaryFormat(const uint8_t* b, const uint8_t* h) : SimpleFormat(b, h) {}
};

struct FormatTQ2_0 : TernaryFormat {
  static constexpr size_t kBytes = 64 * 16;
  static constexpr int kMaxWeight = 3;
  HWY_INLINE FormatTQ2_0(const uint8_t* b, const uint8_t* h) : TernaryFormat(b, h) {}
  HWY_INLINE void Seek(size_t j) { pairs.Seek(body, j); }
  template <int K>
  HWY_INLINE VU Quad() const {
    return pairs.template Quad<K>();
  }
  BitPairs pairs;
};

// A byte holds five trits as the fraction byte / 256 in base 3: times three, what passes 256 is the
// next trit. Trit n of words 0-7 belongs to sub-block n, of words 8-11 to quads 40 + 4 n, of word
// 12 (four trits) to quad 60 + n. Two bits a trit would be more than the file has, so the unit is
// decoded here, two trits at a time, to the stack.
struct FormatTQ1_0 : TernaryFormat {
  static constexpr size_t kBytes = 52 * 16;
  static constexpr int kMaxWeight = 2;
  HWY_INLINE FormatTQ1_0(const uint8_t* b, const uint8_t* h) : TernaryFormat(b, h) {
    for (size_t w = 0; w < 8; ++w) Decode(LoadWord(b, w), 8, quads + w * kLanes);
    for (size_t w = 0; w < 4; ++w) Decode(LoadWord(b, 8 + w), 4, quads + (40 + w) * kLanes);
    Decode(LoadWord(b, 12), 1, quads + 60 * kLanes);
  }
  HWY_INLINE void Seek(size_t j) { sub = quads + 8 * j * kLanes; }
  template <int K>
  HWY_INLINE VU Quad() const {
    return hn::Load(DU(), sub + K * kLanes);
  }

  // Trit n of the word's bytes to quad n * stride.
#if HWY_TARGET == HWY_SCALAR
  static HWY_INLINE void Decode(VU word, size_t stride, uint32_t* to) {
    uint32_t bytes = hn::GetLane(word);
    for (size_t n = 0; n < 5; ++n) {
      // Even bytes and odd bytes apart leave room for products.
      const uint32_t even = (bytes & 0x00ff00ffu) * 3, odd = (bytes >> 8 & 0x00ff00ffu) * 3;
      to[n * stride] = (even >> 8 & 0x00030003u) | (odd & 0x03000300u);
      bytes = (even & 0x00ff00ffu) | (odd & 0x00ff00ffu) << 8;
    }
  }
#else
  using D8 = hn::Repartition<uint8_t, DU>;
  using D16 = hn::Repartition<uint16_t, DU>;
  using V16 = hn::Vec<D16>;
  static HWY_INLINE void Decode(VU word, size_t stride, uint32_t* to) {
    alignas(16) static constexpr uint8_t kFirst[16] = {0, 0, 0, 1, 1, 1, 2, 2, 2};
    alignas(16) static constexpr uint8_t kSecond[16] = {0, 1, 2, 0, 1, 2, 0, 1, 2};
    const auto first = hn::LoadDup128(D8(), kFirst), second = hn::LoadDup128(D8(), kSecond);
    const V16 nine = hn::Set(D16(), uint16_t{9}), three = hn::Set(D16(), uint16_t{3});
    // Bytes at the top of 16 bits, so that products drop what has passed 256.
    V16 even = hn::ShiftLeft<8>(hn::BitCast(D16(), word));
    V16 odd = hn::And(hn::BitCast(D16(), word), hn::Set(D16(), uint16_t{0xff00}));
    for (size_t n = 0; n < 4; n += 2) {
      const auto two = Passed(even, odd, nine);
      Store(hn::TableLookupBytes(first, two), to + n * stride * kLanes);
      Store(hn::TableLookupBytes(second, two), to + (n + 1) * stride * kLanes);
      even = hn::Mul(even, nine);
      odd = hn::Mul(odd, nine);
    }
    Store(Passed(even, odd, three), to + 4 * stride * kLanes);
  }
  static HWY_INLINE hn::Vec<D8> Passed(V16 even, V16 odd, V16 factor) {
    const V16 high = hn::ShiftLeft<8>(hn::MulHigh(odd, factor));
    return hn::BitCast(D8(), hn::Or(hn::MulHigh(even, factor), high));
  }
  static HWY_INLINE void Store(hn::Vec<D8> v, uint32_t* to) {
    hn::Store(hn::BitCast(DU(), v), DU(), to);
  }
#endif

  const uint32_t* sub = nullptr;
  alignas(64) uint32_t quads[65 * kLanes];  // the last for word 12's fifth trit, which is none
};

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
