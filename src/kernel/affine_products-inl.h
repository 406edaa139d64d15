// Products of a few float rows with tiles of few-bit codes (affine_codec.h), in integers. A row,
// once times the scales of a group, becomes two planes of signed bytes, a = step (128 high + low)
// with step = max |a| / 16256, which meet the codes in exact integer sums: each product is within
// step / 2 * (2^bits - 1) of that in float32. The zeros' part is float32. Included
// once per target.
#if defined(SNUG_KERNEL_AFFINE_PRODUCTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_AFFINE_PRODUCTS_INL_H
#undef SNUG_KERNEL_AFFINE_PRODUCTS_INL_H
#else
#define SNUG_KERNEL_AFFINE_PRODUCTS_INL_H
#endif

#include "kernel/affine_codec.h"
#include "kernel/coded_tile-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

inline constexpr size_t kPlaneRows = 16;  // values whose high and then low bytes lie together
inline constexpr float kPlaneTop = 127 * 128;
inline constexpr size_t kCodeRows = 2;  // rows of x whose sums stay in registers

// A tile of keys or of values: codes with scales and zeros of [groups, rows] (keys: of token groups
// by channel; values: of channel groups by token), or rows of floats.
struct Tile {
  size_t bits;  // 32: floats
  const uint8_t* data;
  size_t rows, width;
  size_t group;           // values of a row
  const uint8_t* scales;  // [width / group, rows] f16
  const uint8_t* zeros;
  const uint8_t* next;  // the tile that follows, to be fetched meanwhile, or null
  size_t next_bytes;
  float* room;  // of [64, head_dim]
};

// Rows of x times the scales of a group.
struct Folded {
  int8_t* planes;           // [n, rows / 16, 2, 16]
  float steps[kRowTile];    // of the planes
  float offsets[kRowTile];  // x times the zeros
};

// to [n / 16, 2, 16] = the planes of n values times `inverse`.
static HWY_INLINE void ToPlanes(const float* x, size_t n, float inverse, int8_t* to) {
  const DF d;
  const VF by = hn::Set(d, inverse);
  for (size_t i = 0; i < n; i += kPlaneRows, to += 2 * kPlaneRows) {
#if HWY_TARGET == HWY_AVX2
    const __m256i a = _mm256_cvtps_epi32(hn::Mul(hn::LoadU(d, x + i), by).raw);
    const __m256i b = _mm256_cvtps_epi32(hn::Mul(hn::LoadU(d, x + i + 8), by).raw);
    const __m256i v = _mm256_packs_epi32(a, b);  // four of a, four of b, then the others
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i high = _mm256_mulhrs_epi16(v, _mm256_set1_epi16(256));  // (v + 64) >> 7
    const __m256i low = _mm256_sub_epi16(v, _mm256_slli_epi16(high, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_permutevar8x32_epi32(_mm256_packs_epi16(high, low), order));
#else
    for (size_t k = 0; k < kPlaneRows; k += kLanes) {
      const VI v = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i + k), by));
      const hn::Rebind<int8_t, DI> d8;
      const VI high = hn::ShiftRight<7>(hn::Add(v, hn::Set(DI(), 64)));
      hn::StoreU(hn::DemoteTo(d8, high), d8, to + k);
      hn::StoreU(hn::DemoteTo(d8, hn::Sub(v, hn::ShiftLeft<7>(high))), d8, to + kPlaneRows + k);
    }
#endif
  }
}

// R rows of x [R, t.rows] and group g, as rows `first` on of the result. `products` has room for as
// many floats.
template <size_t R>
static HWY_INLINE void FoldR(const Tile& t, size_t g, size_t first, const float* x, size_t x_stride,
                             float* products, Folded* to) {
  const DF d;
  const size_t rows = t.rows;
  const uint8_t *scales = t.scales + 2 * g * rows, *zeros = t.zeros + 2 * g * rows;
  VF offset[R], most[R];
  HWY_UNROLL(6)
  for (size_t r = 0; r < R; ++r) offset[r] = most[r] = hn::Zero(d);
  for (size_t i = 0; i < rows; i += kLanes) {
    const VF s = LoadHalves(scales + 2 * i), z = LoadHalves(zeros + 2 * i);
    HWY_UNROLL(6)
    for (size_t r = 0; r < R; ++r) {
      const VF v = hn::LoadU(d, x + r * x_stride + i), a = hn::Mul(v, s);
      hn::StoreU(a, d, products + r * rows + i);
      most[r] = hn::Max(most[r], hn::Abs(a));
      offset[r] = hn::MulAdd(v, z, offset[r]);
    }
  }
  for (size_t r = 0; r < R; ++r) {
    to->offsets[first + r] = hn::GetLane(hn::SumOfLanes(d, offset[r]));
    const float max = hn::GetLane(hn::MaxOfLanes(d, most[r]));
    to->steps[first + r] = max / kPlaneTop;
    // A max so small that its inverse is none has no part in any sum.
    const float inverse = max > 1e-30f ? kPlaneTop / max : 0;
    ToPlanes(products + r * rows, rows, inverse, to->planes + 2 * (first + r) * rows);
  }
}

static HWY_NOINLINE void Fold(const Tile& t, size_t g, const float* x, size_t x_stride, size_t n,
                              float* products, Folded* to) {
  size_t r = 0;
  for (; r + 3 <= n; r += 3) FoldR<3>(t, g, r, x + r * x_stride, x_stride, products, to);
  for (; r < n; ++r) FoldR<1>(t, g, r, x + r * x_stride, x_stride, products, to);
}

// Rows after which sums of 16 bits (AVX2), each over pairs of products, are added to wider ones.
constexpr size_t SafeRows(size_t bits) { return bits == 2 ? 128 : 32; }

// The sums of one row of x: kWide lanes of each plane. Compilers keep named vectors in registers
// where they would not an array.
template <size_t kBits>
struct RowSums {
#if HWY_TARGET == HWY_AVX2
  static_assert(127 * ((1 << kBits) - 1) * SafeRows(kBits) / 2 < 32768);
  __m256i high0, high1, low0, low1;
  HWY_INLINE void Clear() { high0 = high1 = low0 = low1 = _mm256_setzero_si256(); }
  // Four rows of codes times four bytes of each plane.
  HWY_INLINE void Add(const VU (&codes)[kPass], const int8_t* planes) {
    const __m256i h = Broadcast4(planes).raw, l = Broadcast4(planes + kPlaneRows).raw;
    high0 = _mm256_add_epi16(high0, _mm256_maddubs_epi16(codes[0].raw, h));
    high1 = _mm256_add_epi16(high1, _mm256_maddubs_epi16(codes[1].raw, h));
    low0 = _mm256_add_epi16(low0, _mm256_maddubs_epi16(codes[0].raw, l));
    low1 = _mm256_add_epi16(low1, _mm256_maddubs_epi16(codes[1].raw, l));
    asm("" : "+x"(high0), "+x"(high1), "+x"(low0), "+x"(low1));
  }
  // Adds 128 times the high sums and the low ones.
  HWY_INLINE void AddTo(VI (&sums)[kPass]) const {
    const __m256i ones = _mm256_set1_epi16(1), by = _mm256_set1_epi16(128);
    sums[0] = hn::Add(sums[0], VI{_mm256_madd_epi16(high0, by)});
    sums[1] = hn::Add(sums[1], VI{_mm256_madd_epi16(high1, by)});
    sums[0] = hn::Add(sums[0], VI{_mm256_madd_epi16(low0, ones)});
    sums[1] = hn::Add(sums[1], VI{_mm256_madd_epi16(low1, ones)});
  }
#else
  VI high[kPass], low[kPass];
  HWY_INLINE void Clear() {
    for (size_t k = 0; k < kPass; ++k) high[k] = low[k] = hn::Zero(DI());
  }
  HWY_INLINE void Add(const VU (&codes)[kPass], const int8_t* planes) {
    const VU h = Broadcast4(planes), l = Broadcast4(planes + kPlaneRows);
    for (size_t k = 0; k < kPass; ++k) {
      high[k] = QuadDot(high[k], codes[k], h);
      low[k] = QuadDot(low[k], codes[k], l);
    }
  }
  HWY_INLINE void AddTo(VI (&sums)[kPass]) const {
    for (size_t k = 0; k < kPass; ++k) {
      sums[k] = hn::Add(sums[k], hn::Add(hn::ShiftLeft<7>(high[k]), low[k]));
    }
  }
#endif
};

// R rows of x, one or kCodeRows.
template <size_t kBits, size_t R>
struct CodeSums {
  RowSums<kBits> a, b;
  HWY_INLINE void Clear() {
    a.Clear();
    if constexpr (R > 1) b.Clear();
  }
  // Quad P of a block's rows.
  template <size_t P>
  HWY_INLINE void AddQuad(const uint8_t* block, const int8_t* planes, size_t stride) {
    VU codes[kPass];
    const VU mask = hn::Set(DU(), ((1u << kBits) - 1) * 0x01010101u);
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) {
      const VU packed = hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(block) + k * kLanes);
      if constexpr (P == 0) {
        codes[k] = hn::And(packed, mask);
      } else {
        codes[k] = hn::And(hn::ShiftRight<kBits * P>(packed), mask);
      }
    }
    planes += 4 * P;
    a.Add(codes, planes);
    if constexpr (R > 1) b.Add(codes, planes + stride);
  }
};

// to [R, kWide] = the sums of the lanes whose codes begin at `blocks`; rows of x from `first` on.
template <size_t kBits, size_t R>
static HWY_INLINE void MultiplyCodesR(const uint8_t* blocks, size_t rows, const Folded& x,
                                      size_t first, float* to) {
  constexpr size_t kBlock = AffineBlockRows(kBits);
  constexpr size_t kSafe = SafeRows(kBits);
  const size_t stride = 2 * rows;
  const int8_t* planes = x.planes + first * stride;
  VI sums[R][kPass];
  for (size_t r = 0; r < R; ++r) {
    for (size_t k = 0; k < kPass; ++k) sums[r][k] = hn::Zero(DI());
  }
  for (size_t begin = 0; begin < rows; begin += kSafe) {
    CodeSums<kBits, R> part;
    part.Clear();
    const size_t end = std::min(rows, begin + kSafe);
    for (size_t row = begin; row < end; row += kBlock, blocks += kAffineBlockBytes) {
      const int8_t* p = planes + row / kPlaneRows * 2 * kPlaneRows + row % kPlaneRows;
      part.template AddQuad<0>(blocks, p, stride);
      part.template AddQuad<1>(blocks, p, stride);
      if constexpr (kBits == 2) {
        part.template AddQuad<2>(blocks, p, stride);
        part.template AddQuad<3>(blocks, p, stride);
      }
    }
    part.a.AddTo(sums[0]);
    if constexpr (R > 1) part.b.AddTo(sums[1]);
  }
  const DF d;
  for (size_t r = 0; r < R; ++r) {
    const VF step = hn::Set(d, x.steps[first + r]), offset = hn::Set(d, x.offsets[first + r]);
    for (size_t k = 0; k < kPass; ++k) {
      hn::StoreU(hn::MulAdd(hn::ConvertTo(d, sums[r][k]), step, offset), d,
                 to + (first + r) * kWide + k * kLanes);
    }
  }
}

template <size_t kBits>
static HWY_NOINLINE void MultiplyCodes(const uint8_t* blocks, size_t rows, const Folded& x,
                                       size_t n, float* sums) {
  size_t r = 0;
  for (; r + kCodeRows <= n; r += kCodeRows) {
    MultiplyCodesR<kBits, kCodeRows>(blocks, rows, x, r, sums);
  }
  for (; r < n; ++r) MultiplyCodesR<kBits, 1>(blocks, rows, x, r, sums);
}

// Rows of floats, as MultiplyRows wants them.
struct FloatRows {
  const float* data;
  size_t stride;
  HWY_INLINE void Load(size_t row, VF (&to)[kPass]) const {
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) to[k] = hn::LoadU(DF(), data + row * stride + k * kLanes);
  }
};

// Calls f(c, sums [n, kWide]) with x [n, t.rows] times values [c, c + kWide) of all rows, for each
// such c.
template <class F>
static HWY_INLINE void ForProducts(const Tile& t, const float* x, size_t x_stride, size_t n,
                                   const F& f) {
  HWY_ALIGN float sums[kRowTile * kWide];
  Folded folded;
  folded.planes = reinterpret_cast<int8_t*>(t.room + kRowTile * t.rows);
  const size_t share = t.next_bytes / (t.width / kWide);
  for (size_t c = 0; c < t.width; c += kWide) {
    if (t.next != nullptr) Fetch(t.next + c / kWide * share, share);
    if (t.bits == 32) {
      const FloatRows rows{reinterpret_cast<const float*>(t.data) + c, t.width};
      MultiplyRows(rows, t.rows, x, x_stride, n, sums);
    } else {
      if (c % t.group == 0) Fold(t, c / t.group, x, x_stride, n, t.room, &folded);
      const uint8_t* blocks = t.data + c * t.rows * t.bits / 8;
      t.bits == 2 ? MultiplyCodes<2>(blocks, t.rows, folded, n, sums)
                  : MultiplyCodes<4>(blocks, t.rows, folded, n, sums);
    }
    f(c, sums);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
