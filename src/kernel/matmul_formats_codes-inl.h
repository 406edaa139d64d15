// Packed formats whose nibbles name codes of a table: IQ4_NL, IQ4_XS, MXFP4. The tables hold bytes
// made unsigned by the format's offset, and one lookup serves a quad. Included once per target.
#if defined(SNUG_KERNEL_MATMUL_FORMATS_CODES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATMUL_FORMATS_CODES_INL_H
#undef SNUG_KERNEL_MATMUL_FORMATS_CODES_INL_H
#else
#define SNUG_KERNEL_MATMUL_FORMATS_CODES_INL_H
#endif

#include "kernel/matmul_formats-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

struct alignas(16) OffsetCodes {
  constexpr OffsetCodes(const int8_t (&codes)[16], int shift) {
    for (size_t i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(codes[i] + (1 << shift));
  }
  uint8_t bytes[16] = {};
};
inline constexpr OffsetCodes kIq4Unsigned(kIq4Codes, 7), kMxfp4Unsigned(kMxfp4Codes, 4);

// Looks up every byte of a vector of nibbles.
struct CodeTable {
#if HWY_TARGET == HWY_SCALAR
  HWY_INLINE explicit CodeTable(const OffsetCodes& codes) : table(codes.bytes) {}
  HWY_INLINE VU Lookup(VU nibbles) const {
    const uint32_t n = hn::GetLane(nibbles);
    uint32_t bytes = 0;
    for (int i = 0; i < 32; i += 8) bytes |= static_cast<uint32_t>(table[n >> i & 15]) << i;
    return hn::Set(DU(), bytes);
  }
  const uint8_t* table;
#else
  using D8 = hn::Repartition<uint8_t, DU>;
  HWY_INLINE explicit CodeTable(const OffsetCodes& codes)
      : table(hn::LoadDup128(D8(), codes.bytes)) {}
  HWY_INLINE VU Lookup(VU nibbles) const {
    return hn::BitCast(DU(), hn::TableLookupBytes(table, hn::BitCast(D8(), nibbles)));
  }
  hn::Vec<D8> table;  // the codes in every block of 128 bits
#endif
};

struct FormatIQ4_NL : SimpleFormat {
  static constexpr size_t kBytes = 256;
  static constexpr int kShift = 7, kMaxWeight = 113 + 128;
  static constexpr bool kWide = true;
  HWY_INLINE FormatIQ4_NL(const uint8_t* b, const uint8_t* h)
      : SimpleFormat(b, h), codes(kIq4Unsigned) {}
  template <int K>
  HWY_INLINE VU Quad() const {
    return codes.Lookup(Nibble<K / 4>(LoadWord(body, K % 4)));
  }
  CodeTable codes;
};

// Word 0 holds the f16 d and the upper two bits of eight 6-bit scales (each 32 too large), word 1
// their nibbles; then four words per sub-block.
struct FormatIQ4_XS {
  static constexpr size_t kSubs = 8, kHeadBytes = 0, kBytes = 136 * 16;
  static constexpr int kShift = 7, kMaxWeight = 113 + 128;
  static constexpr bool kMin = false, kHalves = false, kWide = true;
  HWY_INLINE FormatIQ4_XS(const uint8_t* b, const uint8_t*) : body(b), codes(kIq4Unsigned) {
    const VU w0 = LoadWord(b, 0), low = LoadWord(b, 1);
    const VF d = LowHalf16(w0);
    StoreScale<0>(d, w0, low);
  }
  template <int J>
  HWY_INLINE void StoreScale(VF d, VU w0, VU low) {
    if constexpr (J < 8) {
      const VU four = hn::And(hn::ShiftRight<4 * J>(low), hn::Set(DU(), 0xfu));
      const VU two = hn::And(hn::ShiftRight<12 + 2 * J>(w0), hn::Set(DU(), 0x30u));
      const VI scale = hn::Sub(hn::BitCast(DI(), hn::Or(four, two)), hn::Set(DI(), 32));
      hn::Store(hn::Mul(d, hn::ConvertTo(DF(), scale)), DF(), scales + J * kLanes);
      StoreScale<J + 1>(d, w0, low);
    }
  }
  HWY_INLINE void Seek(size_t j) {
    sub = j;
    nibbles = body + 64 * (2 + 4 * j);
  }
  template <int Half>
  HWY_INLINE VF Scale() const {
    return hn::Load(DF(), scales + sub * kLanes);
  }
  template <int K>
  HWY_INLINE VU Quad() const {
    return codes.Lookup(Nibble<K / 4>(LoadWord(nibbles, K % 4)));
  }
  const uint8_t *body, *nibbles = nullptr;
  size_t sub = 0;
  CodeTable codes;
  alignas(64) float scales[kSubs * kLanes];
};

// Head: a byte per row, the scale's exponent. Codes are doubled to integers, so the scale is half
// of what the exponent says: 2^(e - 128).
struct FormatMXFP4 {
  static constexpr size_t kSubs = 1, kHeadBytes = 16, kBytes = 256;
  static constexpr int kShift = 4, kMaxWeight = 12 + 16;
  static constexpr bool kMin = false, kHalves = false, kWide = false;
  HWY_INLINE FormatMXFP4(const uint8_t* b, const uint8_t* h) : body(b), codes(kMxfp4Unsigned) {
    const VU e = hn::PromoteTo(DU(), hn::LoadU(hn::Rebind<uint8_t, DF>(), h));
    // The two smallest are subnormal.
    const VU one = hn::Set(DU(), 1);
    const VU small = hn::ShiftLeft<21>(hn::Add(e, one)),
             normal = hn::ShiftLeft<23>(hn::Sub(e, one));
    d = hn::BitCast(DF(), hn::IfThenElse(hn::Gt(e, one), normal, small));
  }
  HWY_INLINE void Seek(size_t) {}
  template <int Half>
  HWY_INLINE VF Scale() const {
    return d;
  }
  template <int K>
  HWY_INLINE VU Quad() const {
    return codes.Lookup(Nibble<K / 4>(LoadWord(body, K % 4)));
  }
  const uint8_t* body;
  CodeTable codes;
  VF d;
};

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
