// Packed weight formats, as the kernels read them. A reader is set on one unit (32 or 256 columns)
// of a panel, then on each of its sub-blocks of 32 columns in turn (Seek), and hands out eight
// vectors of four unsigned weights per row ("quads", lane = row), the rows' scales and, where the
// format has them, minima.
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
// Nibble I (0 low, 1 high) of every byte.
template <int I>
static HWY_INLINE VU Nibble(VU v) {
  const VU mask = hn::Set(DU(), 0x0f0f0f0fu);
  if constexpr (I == 0) return hn::And(v, mask);
  if constexpr (I == 1) return hn::And(hn::ShiftRight<4>(v), mask);
}
// The same with a shift of 0 or 4 known at run time, so that one piece of code serves both.
static HWY_INLINE VU ShiftedNibble(VU v, VU shift) {
  return hn::And(hn::Shr(v, shift), hn::Set(DU(), 0x0f0f0f0fu));
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

// The four bytes of a word, times d, as four vectors.
static HWY_INLINE void StoreScaled(VF d, VU bytes, float* to) {
  hn::Store(hn::Mul(d, ByteToFloat<0>(bytes)), DF(), to);
  hn::Store(hn::Mul(d, ByteToFloat<1>(bytes)), DF(), to + kLanes);
  hn::Store(hn::Mul(d, ByteToFloat<2>(bytes)), DF(), to + 2 * kLanes);
  hn::Store(hn::Mul(d, ByteToFloat<3>(bytes)), DF(), to + 3 * kLanes);
}
static HWY_INLINE void StoreScaledSigned(VF d, VU bytes, float* to) {
  hn::Store(hn::Mul(d, SignedByteToFloat<0>(bytes)), DF(), to);
  hn::Store(hn::Mul(d, SignedByteToFloat<1>(bytes)), DF(), to + kLanes);
  hn::Store(hn::Mul(d, SignedByteToFloat<2>(bytes)), DF(), to + 2 * kLanes);
  hn::Store(hn::Mul(d, SignedByteToFloat<3>(bytes)), DF(), to + 3 * kLanes);
}

// Shared by all: kSubs sub-blocks per unit, in kBytes of body and kHeadBytes of head; weight =
// scale * (u - 2^kShift), or scale * u with kNoShift, or scale * u - min where kMin; kHalves: two
// scales (and minima) per 32 columns; kMaxWeight: the largest u; kWide: it exceeds 127 (kShift is
// then 7).
inline constexpr int kNoShift = -1;
struct SimpleFormat {
  static constexpr size_t kSubs = 1, kHeadBytes = 32;
  static constexpr bool kMin = false, kHalves = false, kWide = false;
  HWY_INLINE SimpleFormat(const uint8_t* b, const uint8_t* h) : body(b), d(LoadHalves(h)) {}
  HWY_INLINE void Seek(size_t) {}
  template <int Half>
  HWY_INLINE VF Scale() const {
    return d;
  }
  const uint8_t* body;
  VF d;
};

struct FormatQ8_0 : SimpleFormat {
  static constexpr size_t kBytes = 512;
  static constexpr int kShift = 7, kMaxWeight = 255;
  static constexpr bool kWide = true;
  HWY_INLINE FormatQ8_0(const uint8_t* b, const uint8_t* h) : SimpleFormat(b, h) {}
  template <int K>
  HWY_INLINE VU Quad() const {
    return LoadWord(body, K);
  }
};

struct FormatQ4_0 : SimpleFormat {
  static constexpr size_t kBytes = 256;
  static constexpr int kShift = 3, kMaxWeight = 15;
  HWY_INLINE FormatQ4_0(const uint8_t* b, const uint8_t* h) : SimpleFormat(b, h) {}
  template <int K>
  HWY_INLINE VU Quad() const {
    return Nibble<K / 4>(LoadWord(body, K % 4));
  }
};

// Fifth bits of quad K, 16 each, where bit K of byte c is that of column 4 K + c.
template <int K>
static HWY_INLINE VU FifthBits(VU word) {
  VU high = word;
  if constexpr (K < 4) high = hn::ShiftLeft<4 - K % 4>(word);
  if constexpr (K > 4) high = hn::ShiftRight<K % 4>(word);
  return hn::And(high, hn::Set(DU(), 0x10101010u));
}

// Word 0 holds the fifth bits.
struct FormatQ5_0 : SimpleFormat {
  static constexpr size_t kBytes = 320;
  static constexpr int kShift = 4, kMaxWeight = 31;
  HWY_INLINE FormatQ5_0(const uint8_t* b, const uint8_t* h)
      : SimpleFormat(b, h), fifth(LoadWord(b, 0)) {}
  template <int K>
  HWY_INLINE VU Quad() const {
    return hn::Or(Nibble<K / 4>(LoadWord(body, 1 + K % 4)), FifthBits<K>(fifth));
  }
  VU fifth;
};

// Q4_1 and Q5_1: f16 scale and minimum in word 0.
struct SimpleMinFormat {
  static constexpr size_t kSubs = 1, kHeadBytes = 0;
  static constexpr int kShift = kNoShift;
  static constexpr bool kMin = true, kHalves = false, kWide = false;
  HWY_INLINE SimpleMinFormat(const uint8_t* b, const uint8_t*) : body(b) {
    const VU both = LoadWord(b, 0);
    d = LowHalf16(both);
    min = hn::Neg(HighHalf16(both));
  }
  HWY_INLINE void Seek(size_t) {}
  template <int Half>
  HWY_INLINE VF Scale() const {
    return d;
  }
  template <int Half>
  HWY_INLINE VF Min() const {
    return min;
  }
  const uint8_t* body;
  VF d, min;
};

struct FormatQ4_1 : SimpleMinFormat {
  static constexpr size_t kBytes = 320;
  static constexpr int kMaxWeight = 15;
  HWY_INLINE FormatQ4_1(const uint8_t* b, const uint8_t* h) : SimpleMinFormat(b, h) {}
  template <int K>
  HWY_INLINE VU Quad() const {
    return Nibble<K / 4>(LoadWord(body, 1 + K % 4));
  }
};

struct FormatQ5_1 : SimpleMinFormat {
  static constexpr size_t kBytes = 384;
  static constexpr int kMaxWeight = 31;
  HWY_INLINE FormatQ5_1(const uint8_t* b, const uint8_t* h)
      : SimpleMinFormat(b, h), fifth(LoadWord(b, 1)) {}
  template <int K>
  HWY_INLINE VU Quad() const {
    return hn::Or(Nibble<K / 4>(LoadWord(body, 2 + K % 4)), FifthBits<K>(fifth));
  }
  VU fifth;
};

// Q4_K and Q5_K: f16 d and dmin in word 0, eight 6-bit scales and minima in words 1 to 3. Both are
// decoded once per unit, to the stack: the kernels need the registers.
struct KFormat {
  static constexpr size_t kSubs = 8, kHeadBytes = 0;
  static constexpr int kShift = kNoShift;
  static constexpr bool kMin = true, kHalves = false, kWide = false;
  HWY_INLINE KFormat(const uint8_t* b, const uint8_t*) : body(b) {
    const VU dd = LoadWord(b, 0), w0 = LoadWord(b, 1), w1 = LoadWord(b, 2), w2 = LoadWord(b, 3);
    const VU six = hn::Set(DU(), 0x3f3f3f3fu), top = hn::Set(DU(), 0x30303030u);
    const VF d = LowHalf16(dd), dmin = HighHalf16(dd);
    const VU scales_high = hn::Or(Nibble<0>(w2), hn::And(hn::ShiftRight<2>(w0), top));
    const VU mins_high = hn::Or(Nibble<1>(w2), hn::And(hn::ShiftRight<2>(w1), top));
    StoreScaled(d, hn::And(w0, six), scales);
    StoreScaled(d, scales_high, scales + 4 * kLanes);
    StoreScaled(dmin, hn::And(w1, six), mins);
    StoreScaled(dmin, mins_high, mins + 4 * kLanes);
  }
  HWY_INLINE void SeekTo(size_t j, size_t first_word) {
    sub = j;
    nibbles = body + 64 * (first_word + j / 2 * 8);
    shift = hn::Set(DU(), static_cast<uint32_t>(j % 2 * 4));
  }
  template <int Half>
  HWY_INLINE VF Scale() const {
    return hn::Load(DF(), scales + sub * kLanes);
  }
  template <int Half>
  HWY_INLINE VF Min() const {
    return hn::Load(DF(), mins + sub * kLanes);
  }

  const uint8_t *body, *nibbles = nullptr;
  size_t sub = 0;
  VU shift;
  alignas(64) float scales[kSubs * kLanes], mins[kSubs * kLanes];
};

struct FormatQ4_K : KFormat {
  static constexpr size_t kBytes = 144 * 16;
  static constexpr int kMaxWeight = 15;
  HWY_INLINE FormatQ4_K(const uint8_t* b, const uint8_t* h) : KFormat(b, h) {}
  HWY_INLINE void Seek(size_t j) { SeekTo(j, 4); }
  template <int K>
  HWY_INLINE VU Quad() const {
    return ShiftedNibble(LoadWord(nibbles, K), shift);
  }
};

// Words 4-11 hold the fifth bits: bit J of a byte is that of sub-block J.
struct FormatQ5_K : KFormat {
  static constexpr size_t kBytes = 176 * 16;
  static constexpr int kMaxWeight = 31;
  HWY_INLINE FormatQ5_K(const uint8_t* b, const uint8_t* h) : KFormat(b, h) {}
  HWY_INLINE void Seek(size_t j) {
    SeekTo(j, 12);
    fifth_shift = hn::Set(DU(), static_cast<uint32_t>(j));
  }
  template <int K>
  HWY_INLINE VU Quad() const {
    const VU fifth = hn::ShiftLeft<4>(hn::Shr(LoadWord(body, 4 + K), fifth_shift));
    return hn::Or(ShiftedNibble(LoadWord(nibbles, K), shift),
                  hn::And(fifth, hn::Set(DU(), 0x10101010u)));
  }
  VU fifth_shift;
};

// Words 0-31 low nibbles, 32-47 high bit pairs, 48-51 sixteen signed scales.
struct FormatQ6_K {
  static constexpr size_t kSubs = 8, kHeadBytes = 32, kBytes = 208 * 16;
  static constexpr int kShift = 5, kMaxWeight = 63;
  static constexpr bool kMin = false, kHalves = true, kWide = false;
  HWY_INLINE FormatQ6_K(const uint8_t* b, const uint8_t* h) : body(b) {
    const VF d = LoadHalves(h);
    for (size_t i = 0; i < 4; ++i)
      StoreScaledSigned(d, LoadWord(b, 48 + i), scales + 4 * i * kLanes);
  }
  HWY_INLINE void Seek(size_t j) {
    const size_t half = j / 4, quarter = j % 4;  // of 256 and of 128 columns
    sub = j;
    nibbles = body + 64 * (half * 16 + quarter % 2 * 8);
    pairs = body + 64 * (32 + half * 8);
    shift = hn::Set(DU(), static_cast<uint32_t>(quarter / 2 * 4));
    pair_shift = hn::Set(DU(), static_cast<uint32_t>(2 * quarter));
  }
  template <int Half>
  HWY_INLINE VF Scale() const {
    return hn::Load(DF(), scales + (2 * sub + Half) * kLanes);
  }
  template <int K>
  HWY_INLINE VU Quad() const {
    const VU pair = hn::ShiftLeft<4>(hn::Shr(LoadWord(pairs, K), pair_shift));
    return hn::Or(ShiftedNibble(LoadWord(nibbles, K), shift),
                  hn::And(pair, hn::Set(DU(), 0x30303030u)));
  }
  const uint8_t *body, *nibbles = nullptr, *pairs = nullptr;
  size_t sub = 0;
  VU shift, pair_shift;
  alignas(64) float scales[16 * kLanes];
};

// Calls F::template Run<0>(...) to Run<N - 1>(...), unrolled with constant indices.
template <int I, int N, class F>
static HWY_INLINE void Unroll(const F& f) {
  if constexpr (I < N) {
    f.template Run<I>();
    Unroll<I + 1, N>(f);
  }
}

// Writes one sub-block as float32 [32, 16] at this target's lanes; equals Dequantize bit for bit,
// since every product of an f16 scale, an integer scale and a weight has at most 24 significant
// bits.
template <class Format>
struct SubBlockToFloat {
  template <int K>
  HWY_INLINE void Run() const {
    const VU quad = format.template Quad<K>();
    const VF scale = format.template Scale<K / 4>();
    Column<K, 0>(quad, scale);
    Column<K, 1>(quad, scale);
    Column<K, 2>(quad, scale);
    Column<K, 3>(quad, scale);
  }
  template <int K, int B>
  HWY_INLINE void Column(VU quad, VF scale) const {
    VF w = ByteToFloat<B>(quad);
    if constexpr (Format::kShift != kNoShift)
      w = hn::Sub(w, hn::Set(DF(), float(1 << Format::kShift)));
    w = hn::Mul(w, scale);
    if constexpr (Format::kMin) w = hn::Sub(w, format.template Min<K / 4>());
    hn::StoreU(w, DF(), dst + (4 * K + B) * kPanelRows);
  }
  const Format& format;
  float* dst;
};

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
