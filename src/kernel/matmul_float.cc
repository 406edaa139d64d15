// Products in float32 (F32 and F16 weights, and every type with `exact`) and with bf16 pairs:
// weights of 16 rows (lanes) are widened to float32 in chunks of columns on the stack, shared by
// all tokens.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/matmul_float.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/compat-inl.h"
#include "kernel/matmul.h"
#include "kernel/matmul_dispatch-inl.h"
#include "kernel/matmul_formats-inl.h"
#include "kernel/matmul_internal.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

inline constexpr size_t kParts = kPanelRows / kLanes;  // vectors of one column
// Tokens whose sums stay in registers beside a column.
inline constexpr size_t kMaxFloatTile = kLanes == 16 ? 16 : 6;
// Tokens up to which 16-bit weights are widened in registers instead of once for all.
inline constexpr size_t kMaxFusedTile = 2;

// Where a tile of tokens keeps its sums between chunks of columns: `out`, or nothing before the
// first.
struct Sums {
  float* out;  // [tokens, stride]
  size_t stride, rows;
  bool first;
  HWY_INLINE VF Load(size_t t, size_t lane) const {
    if (first) return hn::Zero(DF());
    if (lane + kLanes <= rows) return hn::LoadU(DF(), out + t * stride + lane);
    alignas(64) float part[kLanes] = {};
    for (size_t i = lane; i < rows; ++i) part[i - lane] = out[t * stride + i];
    return hn::Load(DF(), part);
  }
  HWY_INLINE void Store(VF v, size_t t, size_t lane) const {
    if (lane + kLanes <= rows) return hn::StoreU(v, DF(), out + t * stride + lane);
    alignas(64) float part[kLanes];
    hn::Store(v, DF(), part);
    for (size_t i = lane; i < rows; ++i) out[t * stride + i] = part[i - lane];
  }
};

// The sums of T tokens with one panel's rows.
template <int T>
struct Accumulators {
  HWY_INLINE explicit Accumulators(const Sums& from) : sums(from) {
    HWY_UNROLL(16)
    for (int t = 0; t < T; ++t) {
      HWY_UNROLL(4)
      for (size_t i = 0; i < kParts; ++i) acc[t][i] = sums.Load(t, i * kLanes);
    }
  }
  // Adds column c of x [T, stride] times the 16 weights of that column.
  HWY_INLINE void Add(const VF* column, const float* HWY_RESTRICT x, size_t stride, size_t c) {
    HWY_UNROLL(16)
    for (int t = 0; t < T; ++t) {
      const VF value = hn::Set(DF(), x[t * stride + c]);
      HWY_UNROLL(4)
      for (size_t i = 0; i < kParts; ++i) acc[t][i] = hn::MulAdd(column[i], value, acc[t][i]);
    }
  }
  HWY_INLINE void Store() const {
    HWY_UNROLL(16)
    for (int t = 0; t < T; ++t) {
      HWY_UNROLL(4)
      for (size_t i = 0; i < kParts; ++i) sums.Store(acc[t][i], t, i * kLanes);
    }
  }
  VF acc[T][kParts];
  const Sums sums;  // a copy: what is stored cannot alias it
};

// Adds cols columns of w [cols, 16] times x [T, cols] to the sums of T tokens.
template <int T>
static HWY_NOINLINE void FloatTile(const float* HWY_RESTRICT w, const float* HWY_RESTRICT x,
                                   size_t x_stride, size_t cols, const Sums& sums) {
  Accumulators<T> a(sums);
  for (size_t c = 0; c < cols; ++c) {
    VF column[kParts];
    HWY_UNROLL(4)
    for (size_t i = 0; i < kParts; ++i)
      column[i] = hn::LoadU(DF(), w + c * kPanelRows + i * kLanes);
    a.Add(column, x, x_stride, c);
  }
  a.Store();
}

// Columns 2 i and 2 i + 1 of kLanes rows, which lie in words of two 16-bit values.
template <bool kBf16>
static HWY_INLINE void LoadPair(const uint8_t* word, VF* even, VF* odd) {
  if constexpr (kBf16) {
    const VU v = LoadWord(word, 0);
    *even = hn::BitCast(DF(), hn::ShiftLeft<16>(v));
    *odd = hn::BitCast(DF(), hn::And(v, hn::Set(DU(), 0xffff0000u)));
  } else {
    const VF low = LoadHalves(word), high = LoadHalves(word + 2 * kLanes);
#if HWY_TARGET == HWY_SCALAR
    *even = low;
    *odd = high;
#else
    *even = hn::ConcatEven(DF(), high, low);
    *odd = hn::ConcatOdd(DF(), high, low);
#endif
  }
}

// FloatTile over words of two 16-bit columns: the same sums in the same order.
template <bool kBf16, int T>
static HWY_NOINLINE void PairTile(const uint8_t* body, const float* HWY_RESTRICT x, size_t x_stride,
                                  size_t cols, const Sums& sums) {
  Accumulators<T> a(sums);
  for (size_t c = 0; c < cols; c += 2) {
    VF even[kParts], odd[kParts];
    HWY_UNROLL(4)
    for (size_t i = 0; i < kParts; ++i)
      LoadPair<kBf16>(body + c / 2 * 64 + 4 * kLanes * i, even + i, odd + i);
    a.Add(even, x, x_stride, c);
    if (c + 1 < cols) a.Add(odd, x, x_stride, c + 1);
  }
  a.Store();
}

template <class Tile>
static HWY_INLINE void ForTiles(size_t tokens, const Tile& tile) {
  size_t t = 0;
  for (; t + kMaxFloatTile <= tokens; t += kMaxFloatTile) tile.template Run<kMaxFloatTile>(t);
  if constexpr (kMaxFloatTile == 16) {
    if (t + 8 <= tokens) tile.template Run<8>(t), t += 8;
  }
  if (t + 4 <= tokens) tile.template Run<4>(t), t += 4;
  if (t + 2 <= tokens) tile.template Run<2>(t), t += 2;
  if (t < tokens) tile.template Run<1>(t);
}

template <bool kBf16>
struct PairTiles {
  template <int T>
  HWY_INLINE void Run(size_t t) const {
    if constexpr (T <= kMaxFusedTile) {
      Sums tile = sums;
      tile.out += t * sums.stride;
      PairTile<kBf16, T>(body, x + t * x_stride, x_stride, cols, tile);
    }
  }
  const uint8_t* body;
  const float* x;
  size_t x_stride, cols;
  Sums sums;
};

struct FloatTiles {
  template <int T>
  HWY_INLINE void Run(size_t t) const {
    Sums tile = sums;
    tile.out += t * sums.stride;
    FloatTile<T>(w, x + t * x_stride, x_stride, cols, tile);
  }
  const float *w, *x;
  size_t x_stride, cols;
  Sums sums;
};

template <class Format>
static HWY_NOINLINE void Widen(const uint8_t* body, const uint8_t* head, size_t units, float* dst) {
  for (size_t u = 0; u < units; ++u) {
    for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
      Format format(body + u * Format::kBytes + 4 * lane,
                    head + u * Format::kHeadBytes + Format::kHeadBytes / kPanelRows * lane);
      for (size_t j = 0; j < Format::kSubs; ++j) {
        format.Seek(j);
        float* to = dst + (u * Format::kSubs + j) * kQBlock * kPanelRows + lane;
        Unroll<0, 8>(SubBlockToFloat<Format>{format, to});
      }
    }
  }
}

template <bool kBf16>
static HWY_NOINLINE void WidenPairs(const uint8_t* body, size_t words, float* dst) {
  for (size_t i = 0; i < words; ++i) {
    for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
      VF even, odd;
      LoadPair<kBf16>(body + 64 * i + 4 * lane, &even, &odd);
      hn::StoreU(even, DF(), dst + 2 * i * kPanelRows + lane);
      hn::StoreU(odd, DF(), dst + (2 * i + 1) * kPanelRows + lane);
    }
  }
}

// Columns [first, first + cols) of a panel as float32 [cols, 16]: in `scratch`, or where they lie.
static const float* PanelToFloat(const PackedMatrix& w, size_t panel, size_t first, size_t cols,
                                 float* scratch) {
  const uint8_t* p = w.data + panel * PanelBytes(w.type, w.cols);
  const uint8_t* body = p + HeadBytes(w.type, w.cols);
  const auto widen = [&]<class Format>(const Format*) {
    constexpr size_t kUnitCols = kQBlock * Format::kSubs;
    const size_t u = first / kUnitCols;
    Widen<Format>(body + u * Format::kBytes, p + u * Format::kHeadBytes, cols / kUnitCols, scratch);
  };
  switch (w.type) {
    case DType::kF32:
      return reinterpret_cast<const float*>(body) + first * kPanelRows;
    case DType::kF16:
      WidenPairs<false>(body + first / 2 * 64, (cols + 1) / 2, scratch);
      break;
    case DType::kBF16:
      WidenPairs<true>(body + first / 2 * 64, (cols + 1) / 2, scratch);
      break;
    default:
      WithFormat(w.type, widen);
  }
  return scratch;
}

#if SNUG_HAVE_BF16_DOT
// x as pairs of bf16, [T, words]; an odd last column is paired with zero.
static HWY_INLINE void RoundPairs(const float* x, size_t cols, uint32_t* dst) {
  size_t c = 0;
  for (; c + 16 <= cols; c += 16) {
    const __m256bh v = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + c));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + c / 2), reinterpret_cast<__m256i>(v));
  }
  if (c < cols) {
    const __mmask16 mask = static_cast<__mmask16>((1u << (cols - c)) - 1);
    const __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + c));
    const __mmask8 words = static_cast<__mmask8>((1u << ((cols - c + 1) / 2)) - 1);
    _mm256_mask_storeu_epi32(dst + c / 2, words, reinterpret_cast<__m256i>(v));
  }
}

template <int T>
static HWY_NOINLINE void Bf16Tile(const uint8_t* body, const float* x, size_t x_stride, size_t cols,
                                  const Sums& sums) {
  const size_t words = (cols + 1) / 2;
  uint32_t pairs[T][kFloatCols / 2];
  for (int t = 0; t < T; ++t) RoundPairs(x + t * x_stride, cols, pairs[t]);
  VF acc[T];
  HWY_UNROLL(16)
  for (int t = 0; t < T; ++t) acc[t] = sums.Load(t, 0);
  for (size_t i = 0; i < words; ++i) {
    const VU w = LoadWord(body, i);
    HWY_UNROLL(16)
    for (int t = 0; t < T; ++t) acc[t] = PairDotBf16(acc[t], w, hn::Set(DU(), pairs[t][i]));
  }
  HWY_UNROLL(16)
  for (int t = 0; t < T; ++t) sums.Store(acc[t], t, 0);
}

struct Bf16Tiles {
  template <int T>
  HWY_INLINE void Run(size_t t) const {
    Sums tile = sums;
    tile.out += t * sums.stride;
    Bf16Tile<T>(body, x + t * x_stride, x_stride, cols, tile);
  }
  const uint8_t* body;
  const float* x;
  size_t x_stride, cols;
  Sums sums;
};
#endif

void MatMulFloat(const PackedMatrix& w, const Activations& x, size_t first, size_t last, bool exact,
                 float* out, size_t out_stride) {
  (void)exact;
  alignas(64) float scratch[kFloatCols * kPanelRows];
  for (size_t p = first; p < last; ++p) {
    const size_t row = p * kPanelRows, rows = std::min<size_t>(kPanelRows, w.rows - row);
    for (size_t c = 0; c < w.cols; c += kFloatCols) {
      const size_t cols = std::min<size_t>(kFloatCols, w.cols - c);
      const Sums sums{out + row, out_stride, rows, c == 0};
#if SNUG_HAVE_BF16_DOT
      if (w.type == DType::kBF16 && !exact) {
        const uint8_t* body = w.data + p * PanelBytes(w.type, w.cols) + c / 2 * 64;
        ForTiles(x.tokens, Bf16Tiles{body, x.x + c, x.stride, cols, sums});
        continue;
      }
#endif
      if (x.tokens <= kMaxFusedTile && (w.type == DType::kF16 || w.type == DType::kBF16)) {
        const uint8_t* body = w.data + p * PanelBytes(w.type, w.cols) + c / 2 * 64;
        if (w.type == DType::kF16) {
          ForTiles(x.tokens, PairTiles<false>{body, x.x + c, x.stride, cols, sums});
        } else {
          ForTiles(x.tokens, PairTiles<true>{body, x.x + c, x.stride, cols, sums});
        }
        continue;
      }
      const float* columns = PanelToFloat(w, p, c, cols, scratch);
      ForTiles(x.tokens, FloatTiles{columns, x.x + c, x.stride, cols, sums});
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(MatMulFloat);
void MatMulFloat(const PackedMatrix& w, const Activations& x, size_t first_panel, size_t last_panel,
                 bool exact, float* out, size_t out_stride) {
  HWY_DYNAMIC_DISPATCH(MatMulFloat)(w, x, first_panel, last_panel, exact, out, out_stride);
}
}  // namespace snug
#endif
