// Packed weight formats, as the integer kernels read them. A reader is set on one unit (32 or 256
// columns) of a panel and hands out, for sub-block J of 32 columns, eight vectors of four unsigned
// weights per row
// ("quads", lane = row), the rows' scales and, where the format has them, minima.
//
// Body: the file's blocks with rows transposed in units of 32 bits, so that word w of 16 rows is
// one vector of 64 bytes at body + 64 w; pack.cc says what else changes. Head: f16 scales [unit,
// 16], where the file's block is not a whole number of words. Included once per target.
#if defined(SNUG_KERNEL_MATMUL_FORMATS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATMUL_FORMATS_INL_H
#undef SNUG_KERNEL_MATMUL_FORMATS_INL_H
#else
#define SNUG_KERNEL_MATMUL_FORMATS_INL_H
#endif

#include "kernel/compat-inl.h"
#include "kernel/matmul.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

static HWY_INLINE VU LoadWord(const uint8_t* body, size_t word) {
  return hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(body + 64 * word));
}
static HWY_INLINE VU Nibbles(VU v) { return hn::And(v, hn::Set(DU(), 0x0f0f0f0fu)); }
// Nibble J (0 low, 1 high) of every byte.
template <int J>
static HWY_INLINE VU Nibble(VU v) {
  if constexpr (J == 0) return Nibbles(v);
  if constexpr (J == 1) return Nibbles(hn::ShiftRight<4>(v));
}
// Bit J of every byte, moved to bit 4.
template <int J>
static HWY_INLINE VU FifthBit(VU v) {
  const VU mask = hn::Set(DU(), 0x10101010u);
  if constexpr (J <= 4) return hn::And(hn::ShiftLeft<4 - J>(v), mask);
  if constexpr (J > 4) return hn::And(hn::ShiftRight<J - 4>(v), mask);
}
// Byte B of every lane as float.
template <int B>
static HWY_INLINE VF ByteToFloat(VU v) {
  const VU byte =
      B == 3 ? hn::ShiftRight<24>(v) : hn::And(hn::ShiftRight<8 * B>(v), hn::Set(DU(), 0xffu));
  return hn::ConvertTo(DF(), hn::BitCast(DI(), byte));
}
template <int B>
static HWY_INLINE VF SignedByteToFloat(VU v) {
  return hn::ConvertTo(DF(), hn::ShiftRight<24>(hn::BitCast(DI(), hn::ShiftLeft<24 - 8 * B>(v))));
}

// Shared by all: kCols columns per unit in kBytes of body and kHeadBytes of head; weight = scale *
// (u - 2^kShift), or scale * u - min; kHalves: two scales per 32 columns; kWide: u may exceed 127.
struct SimpleFormat {
  static constexpr size_t kCols = 32, kHeadBytes = 32;
  static constexpr bool kMin = false, kHalves = false, kWide = false;
  HWY_INLINE SimpleFormat(const uint8_t* b, const uint8_t* h) : body(b), d(LoadHalves(h)) {}
  template <int J, int Half>
  HWY_INLINE VF Scale() const {
    return d;
  }
  const uint8_t* body;
  VF d;
};

struct FormatQ8_0 : SimpleFormat {
  static constexpr size_t kBytes = 512;
  static constexpr int kShift = 7;
  static constexpr bool kWide = true;
  HWY_INLINE FormatQ8_0(const uint8_t* b, const uint8_t* h) : SimpleFormat(b, h) {}
  template <int J, int K>
  HWY_INLINE VU Quad() const {
    return LoadWord(body, K);
  }
};

struct FormatQ4_0 : SimpleFormat {
  static constexpr size_t kBytes = 256;
  static constexpr int kShift = 3;
  HWY_INLINE FormatQ4_0(const uint8_t* b, const uint8_t* h) : SimpleFormat(b, h) {}
  template <int J, int K>
  HWY_INLINE VU Quad() const {
    return Nibble<K / 4>(LoadWord(body, K % 4));
  }
};

// Word 0 holds the fifth bits: bit K of byte c is that of column 4 K + c.
struct FormatQ5_0 : SimpleFormat {
  static constexpr size_t kBytes = 320;
  static constexpr int kShift = 4;
  HWY_INLINE FormatQ5_0(const uint8_t* b, const uint8_t* h)
      : SimpleFormat(b, h), fifth(LoadWord(b, 0)) {}
  template <int J, int K>
  HWY_INLINE VU Quad() const {
    return hn::Or(Nibble<K / 4>(LoadWord(body, 1 + K % 4)), FifthBit<K>(fifth));
  }
  VU fifth;
};

// Q4_K and Q5_K: f16 d and dmin in word 0, eight 6-bit scales and minima in words 1 to 3.
struct KFormat {
  static constexpr size_t kCols = 256, kHeadBytes = 0;
  static constexpr int kShift = 0;
  static constexpr bool kMin = true, kHalves = false, kWide = false;
  HWY_INLINE KFormat(const uint8_t* b, const uint8_t*) : body(b) {
    const VU dd = LoadWord(b, 0), w0 = LoadWord(b, 1), w1 = LoadWord(b, 2), w2 = LoadWord(b, 3);
    const VU six = hn::Set(DU(), 0x3f3f3f3fu), top = hn::Set(DU(), 0x30303030u);
    d = LowHalf16(dd);
    dmin = HighHalf16(dd);
    scales[0] = hn::And(w0, six);
    scales[1] = hn::Or(Nibbles(w2), hn::And(hn::ShiftRight<2>(w0), top));
    mins[0] = hn::And(w1, six);
    mins[1] = hn::Or(Nibbles(hn::ShiftRight<4>(w2)), hn::And(hn::ShiftRight<2>(w1), top));
  }
  template <int J, int Half>
  HWY_INLINE VF Scale() const {
    return hn::Mul(d, ByteToFloat<J % 4>(scales[J / 4]));
  }
  template <int J>
  HWY_INLINE VF Min() const {
    return hn::Mul(dmin, ByteToFloat<J % 4>(mins[J / 4]));
  }
  const uint8_t* body;
  VF d, dmin;
  VU scales[2], mins[2];
};

struct FormatQ4_K : KFormat {
  static constexpr size_t kBytes = 144 * 16;
  HWY_INLINE FormatQ4_K(const uint8_t* b, const uint8_t* h) : KFormat(b, h) {}
  template <int J, int K>
  HWY_INLINE VU Quad() const {
    return Nibble<J % 2>(LoadWord(body, 4 + J / 2 * 8 + K));
  }
};

struct FormatQ5_K : KFormat {
  static constexpr size_t kBytes = 176 * 16;
  HWY_INLINE FormatQ5_K(const uint8_t* b, const uint8_t* h) : KFormat(b, h) {}
  template <int J, int K>
  HWY_INLINE VU Quad() const {
    return hn::Or(Nibble<J % 2>(LoadWord(body, 12 + J / 2 * 8 + K)),
                  FifthBit<J>(LoadWord(body, 4 + K)));
  }
};

// Words 0-31 low nibbles, 32-47 high bit pairs, 48-51 sixteen signed scales.
struct FormatQ6_K {
  static constexpr size_t kCols = 256, kHeadBytes = 32, kBytes = 208 * 16;
  static constexpr int kShift = 5;
  static constexpr bool kMin = false, kHalves = true, kWide = false;
  HWY_INLINE FormatQ6_K(const uint8_t* b, const uint8_t* h) : body(b), d(LoadHalves(h)) {}
  template <int J, int Half>
  HWY_INLINE VF Scale() const {
    constexpr int kIndex = 2 * J + Half;
    return hn::Mul(d, SignedByteToFloat<kIndex % 4>(LoadWord(body, 48 + kIndex / 4)));
  }
  template <int J, int K>
  HWY_INLINE VU Quad() const {
    constexpr int kHalf = J / 4, kQuarter = J % 4;  // of 256 and of 128 columns
    const VU low = Nibble<kQuarter / 2>(LoadWord(body, kHalf * 16 + kQuarter % 2 * 8 + K));
    const VU pairs = LoadWord(body, 32 + kHalf * 8 + K);
    const VU mask = hn::Set(DU(), 0x30303030u);
    if constexpr (kQuarter <= 2)
      return hn::Or(low, hn::And(hn::ShiftLeft<4 - 2 * kQuarter>(pairs), mask));
    if constexpr (kQuarter == 3) return hn::Or(low, hn::And(hn::ShiftRight<2>(pairs), mask));
  }
  const uint8_t* body;
  VF d;
};

// Calls F::template Run<0>(...) to Run<N - 1>(...), unrolled with constant indices.
template <int I, int N, class F>
static HWY_INLINE void Unroll(const F& f) {
  if constexpr (I < N) {
    f.template Run<I>();
    Unroll<I + 1, N>(f);
  }
}

// Writes one unit as float32 [kCols, 16] at this target's lanes; equals Dequantize bit for bit,
// since every product of an f16 scale, an integer scale and a weight has at most 24 significant
// bits.
template <class Format>
struct UnitToFloat {
  template <int I>
  HWY_INLINE void Run() const {
    constexpr int J = I / 8, K = I % 8;
    const VU quad = format.template Quad<J, K>();
    const VF scale = format.template Scale<J, K / 4>();
    Column<J, K, 0>(quad, scale);
    Column<J, K, 1>(quad, scale);
    Column<J, K, 2>(quad, scale);
    Column<J, K, 3>(quad, scale);
  }
  template <int J, int K, int B>
  HWY_INLINE void Column(VU quad, VF scale) const {
    VF w = ByteToFloat<B>(quad);
    if constexpr (Format::kShift != 0) w = hn::Sub(w, hn::Set(DF(), float(1 << Format::kShift)));
    w = hn::Mul(w, scale);
    if constexpr (Format::kMin) w = hn::Sub(w, format.template Min<J>());
    hn::StoreU(w, DF(), dst + (32 * J + 4 * K + B) * kPanelRows);
  }
  const Format& format;
  float* dst;
};

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
