// The inner kernels of attention: scores of up to six query rows against a tile of keys, and the
// weighted sum of a tile of values; in bf16 pairs where the target has their product, else in
// float32. Included once per target.
#if defined(SNUG_KERNEL_ATTENTION_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_ATTENTION_TILE_INL_H
#undef SNUG_KERNEL_ATTENTION_TILE_INL_H
#else
#define SNUG_KERNEL_ATTENTION_TILE_INL_H
#endif

#include <algorithm>
#include <limits>

#include "format/dtype.h"
#include "hwy/cache_control.h"
#include "kernel/attention_decode-inl.h"
#include "kernel/attention_internal.h"
#include "kernel/kv_layout.h"
#include "kernel/math-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

inline constexpr size_t kRowTile = 6;  // rows x 4 vectors of accumulators fill the register file
inline constexpr size_t kVectors = 4;  // vectors of keys (or dimensions) a pass covers in bf16

// Rows beyond which a tile is decoded once for all of them: up to two tiles of rows decode in
// registers, beside products that leave these units idle.
inline constexpr size_t kDecodedRows = 2 * kRowTile;

// Scores of one row become softcap tanh(score / softcap), in units of log 2.
static HWY_INLINE void CapScores(float* s, float softcap) {
  const DF d;
  for (size_t i = 0; i < kTileTokens; i += kLanes) {
    const VF e =
        Exp(hn::Min(hn::Mul(hn::LoadU(d, s + i), hn::Set(d, -2 / softcap)), hn::Set(d, 88.0f)));
    const VF t = hn::Sub(hn::Div(hn::Set(d, 2.0f), hn::Add(hn::Set(d, 1.0f), e)), hn::Set(d, 1.0f));
    hn::StoreU(hn::Mul(t, hn::Set(d, softcap * kLog2E)), d, s + i);
  }
}

// Scores of one row become probabilities relative to the row's new maximum, after `bias` of the
// tile's tokens, if any, is added to them. False where the row sees nothing of the tile: it then
// keeps its state.
static HWY_INLINE bool SoftmaxStep(float* s, int64_t low, int64_t high, float softcap,
                                   RowState* row, float* alpha, const float* bias = nullptr) {
  if (low >= high) return false;
  const DF d;
  if (softcap > 0) CapScores(s, softcap);
  if (bias != nullptr) {
    for (size_t i = 0; i < kTileTokens; i += kLanes) {
      hn::StoreU(hn::Add(hn::LoadU(d, s + i), hn::LoadU(d, bias + i)), d, s + i);
    }
  }
  const VF none = hn::Set(d, -std::numeric_limits<float>::infinity());
  VF max = none;
  if (low <= 0 && high >= static_cast<int64_t>(kTileTokens)) {
    for (size_t i = 0; i < kTileTokens; i += kLanes) max = hn::Max(max, hn::LoadU(d, s + i));
  } else {
    for (int64_t i = 0; i < static_cast<int64_t>(kTileTokens); ++i) {
      if (i < low || i >= high) s[i] = -std::numeric_limits<float>::infinity();
    }
    for (size_t i = 0; i < kTileTokens; i += kLanes) max = hn::Max(max, hn::LoadU(d, s + i));
  }
  const float new_max = std::max(row->max, hn::GetLane(hn::MaxOfLanes(d, max)));
  const VF shift = hn::Set(d, new_max);
  for (size_t i = 0; i < kTileTokens; i += kLanes) {
    hn::StoreU(Exp2(hn::Sub(hn::LoadU(d, s + i), shift)), d, s + i);
  }
  *alpha = row->max == new_max ? 1.0f : hn::GetLane(Exp2(hn::Set(d, row->max - new_max)));
  row->max = new_max;
  return true;
}

// Products in float32.
struct FloatKernel {
  using Element = float;  // of prepared queries and of probabilities
  using Tile = PairTile;

  static void PrepareQuery(const float* q, size_t head_dim, float scale, float* out) {
    for (size_t i = 0; i < head_dim; ++i) out[i] = q[i] * scale;
  }

  // Vectors of a row of pairs that R rows go over together, so that sums fit the registers.
  template <size_t R>
  static constexpr size_t kV = kLanes == 16 || (kLanes == 8 && R > 2) ? 2 : 4;

  // sums[r] = x[r] times the values [c, c + kV vectors) of all rows of pairs. The even elements of
  // x and the odd ones have sums of their own, in neighbouring lanes.
  template <size_t R, class Reader>
  static HWY_INLINE void Multiply(const Reader& reader, const PairTile& t, const float* x,
                                  size_t x_stride, size_t c, VF (&sums)[R][kV<R>]) {
    // Rows of pairs that make a step: at least four, and whole lines, so much of the next tile
    // being fetched; no more than have the same scales.
    constexpr size_t kBits = kV<R> * kLanes * Reader::kBits, kLine = 64 * 8;
    constexpr size_t kRows = std::clamp<size_t>(kLine / kBits, 4, kKvBlock / 2);
    constexpr size_t kStep = kRows * kBits / 8;
    HWY_UNROLL(6)
    for (size_t r = 0; r < R; ++r) {
      HWY_UNROLL(4)
      for (size_t v = 0; v < kV<R>; ++v) sums[r][v] = hn::Zero(DF());
    }
    const uint8_t* next = t.next == nullptr ? nullptr : t.next + t.rows * (c * Reader::kBits / 8);
    size_t row = 0;
    for (; row + kRows <= t.rows; row += kRows) {
      if (next != nullptr) {
        for (size_t at = 0; at < kStep; at += 64) PrefetchL2(next + at);
        next += kStep;
      }
      HWY_UNROLL(8)
      for (size_t i = 0; i < kRows; ++i) AddRow(reader, row, i, x, x_stride, c, sums);
    }
    for (; row < t.rows; ++row) AddRow(reader, row, 0, x, x_stride, c, sums);
  }
  template <size_t R, size_t V, class Reader>
  static HWY_INLINE void AddRow(const Reader& reader, size_t row, size_t ahead, const float* x,
                                size_t x_stride, size_t c, VF (&sums)[R][V]) {
    VF value[V];
    HWY_UNROLL(4)
    for (size_t v = 0; v < V; ++v) value[v] = reader.Load(row, ahead, c + v * kLanes);
    HWY_UNROLL(6)
    for (size_t r = 0; r < R; ++r) {
      HWY_UNROLL(4)
      for (size_t v = 0; v < V; ++v) {
        const VF pair = RepeatPair(x + r * x_stride + 2 * row + 2 * ahead, c + v * kLanes);
        sums[r][v] = InRegister(hn::MulAdd(pair, value[v], sums[r][v]));
      }
    }
  }
  // Compilers that unroll rename sums until some lie in memory.
  static HWY_INLINE VF InRegister(VF sum) {
#if HWY_TARGET == HWY_AVX2
    __m256 raw = sum.raw;
    asm("" : "+x"(raw));
    return VF{raw};
#else
    return sum;
#endif
  }

  template <size_t R>
  static void Scores(const float* HWY_RESTRICT q, size_t q_stride, const PairTile& keys,
                     size_t /*head_dim*/, float* HWY_RESTRICT scores) {
    WithReader<false>(keys, [&](const auto& reader) HWY_ATTR {
      for (size_t c = 0; c < keys.width; c += kV<R> * kLanes) {
        VF sums[R][kV<R>];
        Multiply<R>(reader, keys, q, q_stride, c, sums);
        HWY_UNROLL(6)
        for (size_t r = 0; r < R; ++r) {
          float* to = scores + r * kTileTokens + c / 2;
          HWY_UNROLL(4)
          for (size_t v = 0; v < kV<R>; v += 2, to += kLanes) {
            hn::StoreU(SumPairs(sums[r][v], sums[r][v + 1]), DF(), to);
          }
        }
      }
    });
  }

  // Probabilities of one row as they enter the weighted sum; returns their sum.
  static HWY_INLINE float Round(float* p) {
    VF sum = hn::Zero(DF());
    for (size_t i = 0; i < kTileTokens; i += kLanes) sum = hn::Add(sum, hn::LoadU(DF(), p + i));
    return hn::GetLane(hn::SumOfLanes(DF(), sum));
  }
  static const float* Rounded(const float* p) { return p; }

  // out[r] = out[r] * alpha[r] + p[r] V.
  template <size_t R>
  static void Accumulate(const float* p, size_t p_stride, const PairTile& values, size_t /*padded*/,
                         const float* alpha, const bool* live, float* const* out) {
    WithReader<true>(values, [&](const auto& reader) HWY_ATTR {
      for (size_t c = 0; c < values.width; c += kV<R> * kLanes) {
        VF sums[R][kV<R>];
        Multiply<R>(reader, values, p, p_stride, c, sums);
        HWY_UNROLL(6)
        for (size_t r = 0; r < R; ++r) {
          if (!live[r]) continue;
          float* o = out[r] + c / 2;
          HWY_UNROLL(4)
          for (size_t v = 0; v < kV<R>; v += 2, o += kLanes) {
            const VF sum = SumPairs(sums[r][v], sums[r][v + 1]);
            hn::StoreU(hn::MulAdd(hn::LoadU(DF(), o), hn::Set(DF(), alpha[r]), sum), DF(), o);
          }
        }
      }
    });
  }
  // Later rows need not fetch what the first ones did.
  static PairTile Fetched(PairTile t) {
    t.next = nullptr;
    return t;
  }
};

#if SNUG_HAVE_BF16_DOT

// Two vectors of floats as one of bf16, in order.
static HWY_INLINE VU ToBf16(VF low, VF high) {
  return VU{reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.raw, low.raw))};
}

// Products of bf16 pairs. Tiles lie as kv_layout.h says.
struct Bf16Kernel {
  using Element = uint16_t;
  using Tile = const uint8_t*;

  static void PrepareQuery(const float* q, size_t head_dim, float scale, uint16_t* out) {
    const VF s = hn::Set(DF(), scale);
    size_t i = 0;
    for (; i + 2 * kLanes <= head_dim; i += 2 * kLanes) {
      hn::StoreU(
          ToBf16(hn::Mul(hn::LoadU(DF(), q + i), s), hn::Mul(hn::LoadU(DF(), q + i + kLanes), s)),
          DU(), reinterpret_cast<uint32_t*>(out + i));
    }
    for (; i < head_dim; ++i) out[i] = FloatToBFloat(q[i] * scale);
  }

  template <size_t R>
  static HWY_INLINE void Scores(const uint16_t* HWY_RESTRICT q, size_t q_stride,
                                const uint8_t* keys, size_t head_dim, float* HWY_RESTRICT scores) {
    VF acc[R][kVectors];
    for (size_t r = 0; r < R; ++r) {
      for (size_t v = 0; v < kVectors; ++v) acc[r][v] = hn::Zero(DF());
    }
    const auto* k = reinterpret_cast<const uint32_t*>(keys);
    for (size_t d = 0; d < head_dim / 2; ++d) {
      VU key[kVectors];
      for (size_t v = 0; v < kVectors; ++v)
        key[v] = hn::LoadU(DU(), k + PairIndex(head_dim / 2, d, 2 * v * kLanes) / 2);
      for (size_t r = 0; r < R; ++r) {
        const VU x = Broadcast4(reinterpret_cast<const int8_t*>(q + r * q_stride + 2 * d));
        for (size_t v = 0; v < kVectors; ++v) acc[r][v] = PairDotBf16(acc[r][v], key[v], x);
      }
    }
    for (size_t r = 0; r < R; ++r) {
      for (size_t v = 0; v < kVectors; ++v) {
        hn::StoreU(acc[r][v], DF(), scores + r * kTileTokens + v * kLanes);
      }
    }
  }

  // Rounds a row of probabilities to bf16 in place (the first half of its bytes); returns the
  // rounded sum.
  static HWY_INLINE float Round(float* p) {
    const VU ones = hn::Set(DU(), 0x3f803f80u);
    auto* out = reinterpret_cast<uint32_t*>(p);
    VF sum = hn::Zero(DF());
    for (size_t i = 0; i < kTileTokens; i += 2 * kLanes) {
      const VU pair = ToBf16(hn::LoadU(DF(), p + i), hn::LoadU(DF(), p + i + kLanes));
      hn::StoreU(pair, DU(), out + i / 2);
      sum = PairDotBf16(sum, pair, ones);
    }
    return hn::GetLane(hn::SumOfLanes(DF(), sum));
  }
  static const uint16_t* Rounded(const float* p) { return reinterpret_cast<const uint16_t*>(p); }

  template <size_t R, size_t V>
  static HWY_INLINE void Columns(const uint16_t* p, size_t p_stride, const uint32_t* v,
                                 size_t padded, const float* alpha, const bool* live,
                                 float* const* out, size_t c) {
    VF acc[R][V];
    for (size_t r = 0; r < R; ++r) {
      for (size_t i = 0; i < V; ++i) acc[r][i] = hn::Zero(DF());
    }
    for (size_t j = 0; j < kTileTokens / 2; ++j) {
      VU value[V];
      for (size_t i = 0; i < V; ++i) {
        value[i] = hn::LoadU(DU(), v + PairIndex(kTileTokens / 2, j, 2 * (c + i * kLanes)) / 2);
      }
      for (size_t r = 0; r < R; ++r) {
        const VU x = Broadcast4(reinterpret_cast<const int8_t*>(p + r * p_stride + 2 * j));
        for (size_t i = 0; i < V; ++i) acc[r][i] = PairDotBf16(acc[r][i], value[i], x);
      }
    }
    for (size_t r = 0; r < R; ++r) {
      if (!live[r]) continue;
      for (size_t i = 0; i < V; ++i) {
        float* o = out[r] + c + i * kLanes;
        hn::StoreU(hn::MulAdd(hn::LoadU(DF(), o), hn::Set(DF(), alpha[r]), acc[r][i]), DF(), o);
      }
    }
  }

  template <size_t R>
  static HWY_INLINE void Accumulate(const uint16_t* p, size_t p_stride, const uint8_t* values,
                                    size_t padded, const float* alpha, const bool* live,
                                    float* const* out) {
    const auto* v = reinterpret_cast<const uint32_t*>(values);
    size_t c = 0;
    for (; c + kVectors * kLanes <= padded; c += kVectors * kLanes) {
      Columns<R, kVectors>(p, p_stride, v, padded, alpha, live, out, c);
    }
    for (; c < padded; c += kLanes) Columns<R, 1>(p, p_stride, v, padded, alpha, live, out, c);
  }
  static Tile Fetched(Tile t) { return t; }
};

// 32 signed bytes times scales of their lanes (two vectors of 16) as bf16.
static HWY_INLINE VU ScaledBf16(__m256i codes, VF low, VF high) {
  const __m512i a = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes));
  const __m512i b = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1));
  return ToBf16(hn::Mul(VF{_mm512_cvtepi32_ps(a)}, low), hn::Mul(VF{_mm512_cvtepi32_ps(b)}, high));
}

// Both nibbles of 16 bytes, less 8, as 32 bytes in order.
static HWY_INLINE __m256i SplitNibbles(const uint8_t* p) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i both =
      _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(0x0f));
  return _mm256_sub_epi8(both, _mm256_set1_epi8(8));
}

static HWY_INLINE __m256i LoadCodes(KvType type, const uint8_t* tile, size_t index) {
  return type == KvType::kQ4_0 ? SplitNibbles(tile + index / 2)
                               : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile + index));
}

// 16 two-byte values of f16 as floats.
static HWY_INLINE VF Halves(const uint8_t* p) {
  return VF{_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

// Each of 16 floats twice: the low eight, then the high eight.
static HWY_INLINE void Twice(VF v, VF* low, VF* high) {
  const __m512i first = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  *low = VF{_mm512_permutexvar_ps(first, v.raw)};
  *high = VF{_mm512_permutexvar_ps(second, v.raw)};
}

static void DecodeHalves(const uint8_t* src, const uint8_t* next, size_t n, uint8_t* dst) {
  for (size_t i = 0; i < n; i += 32) {
    hwy::Prefetch(next + 2 * i);
    hn::StoreU(ToBf16(Halves(src + 2 * i), Halves(src + 2 * i + 32)), DU(),
               reinterpret_cast<uint32_t*>(dst + 2 * i));
  }
}

static void DecodeF8(const uint8_t* src, const uint8_t* next, size_t n, uint8_t* dst) {
  for (size_t i = 0; i < n; i += 32) {
    hwy::Prefetch(next + i);
    hn::StoreU(ToBf16(F8Values::Load(src, i), F8Values::Load(src, i + 16)), DU(),
               reinterpret_cast<uint32_t*>(dst + 2 * i));
  }
}

// A tile of keys as bf16. `next` is the tile that comes after it, to be fetched meanwhile.
static const uint8_t* DecodeKeys(KvType type, const uint8_t* tile, const uint8_t* next,
                                 size_t head_dim, uint8_t* dst) {
  if (type == KvType::kBF16) return tile;
  if (type == KvType::kF16) {
    DecodeHalves(tile, next, head_dim * kTileTokens, dst);
    return dst;
  }
  if (type == KvType::kF8E4M3) {
    DecodeF8(tile, next, head_dim * kTileTokens, dst);
    return dst;
  }
  const uint8_t* scales = tile + ScaleOffset(type, PaddedDim(head_dim));
  const size_t bytes = type == KvType::kQ4_0 ? 64 : 128;  // of a row of pairs
  for (size_t b = 0; b < head_dim / kKvBlock; ++b) {
    VF scale[8];
    for (size_t v = 0; v < 4; ++v) {
      Twice(Halves(scales + (b * kTileTokens + 16 * v) * 2), &scale[2 * v], &scale[2 * v + 1]);
    }
    for (size_t d = b * kKvBlock / 2; d < (b + 1) * kKvBlock / 2; ++d) {
      for (size_t at = 0; at < bytes; at += 64) hwy::Prefetch(next + d * bytes + at);
      for (size_t v = 0; v < 4; ++v) {
        const size_t index = PairIndex(head_dim / 2, d, 32 * v);
        hn::StoreU(ScaledBf16(LoadCodes(type, tile, index), scale[2 * v], scale[2 * v + 1]), DU(),
                   reinterpret_cast<uint32_t*>(dst) + index / 2);
      }
    }
  }
  return dst;
}

// A tile of values as bf16.
static const uint8_t* DecodeValues(KvType type, const uint8_t* tile, const uint8_t* next,
                                   size_t head_dim, uint8_t* dst) {
  if (type == KvType::kBF16) return tile;
  const size_t padded = PaddedDim(head_dim);
  if (type == KvType::kF16) {
    DecodeHalves(tile, next, padded * kTileTokens, dst);
    return dst;
  }
  if (type == KvType::kF8E4M3) {
    DecodeF8(tile, next, padded * kTileTokens, dst);
    return dst;
  }
  const uint8_t* scales = tile + ScaleOffset(type, padded);
  const size_t bytes = padded * (type == KvType::kQ4_0 ? 1 : 2);  // of a row of pairs
  for (size_t j = 0; j < kTileTokens / 2; ++j) {
    for (size_t at = 0; at < bytes; at += 64) hwy::Prefetch(next + j * bytes + at);
    for (size_t b = 0; b < head_dim / kKvBlock; ++b) {
      uint32_t pair;  // the scales of two tokens
      hwy::CopyBytes<4>(scales + (b * kTileTokens + 2 * j) * 2, &pair);
      const VF scale{_mm512_cvtph_ps(_mm256_set1_epi32(static_cast<int>(pair)))};
      for (size_t v = 0; v < 2; ++v) {
        const size_t index = PairIndex(kTileTokens / 2, j, 2 * b * kKvBlock + 32 * v);
        hn::StoreU(ScaledBf16(LoadCodes(type, tile, index), scale, scale), DU(),
                   reinterpret_cast<uint32_t*>(dst) + index / 2);
      }
    }
  }
  return dst;
}

#endif  // SNUG_HAVE_BF16_DOT

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
