// Products of quantized weights with int8 activations: for 16 rows (lanes) and a tile of tokens, 32
// columns at a time as integer dot products, scaled and added in float32 in column order.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/matmul_int8.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/compat-inl.h"
#include "kernel/matmul.h"
#include "kernel/matmul_formats-inl.h"
#include "kernel/matmul_internal.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Registers: 2 per token (integer and float sums), a vector of weights, scales, masks.
inline constexpr size_t kMaxTile = kLanes == 16 ? 12 : 4;

template <class Format>
static HWY_INLINE VI Dot(VI acc, VU w, VU x) {
  if constexpr (Format::kWide) return QuadDotWide(acc, w, x);
  return QuadDot(acc, w, x);
}

// One sub-block of 32 columns for T tokens. x[t / 4] is the block of token t.
template <class Format, int T, int J>
struct SubBlock {
  static constexpr int kGroups = (T + 3) / 4;
  const Format& format;
  const XBlock* const (&x)[kGroups];
  VF (&acc)[T];

  // Weights [16 * Half, ...): all 32 columns, or 16 where each half has its scale.
  template <int Half>
  HWY_INLINE void Run() const {
    constexpr int kQuads = Format::kHalves ? 4 : 8;
    VI dot[T];
    HWY_UNROLL(12)
    for (int t = 0; t < T; ++t) {
      const XBlock& b = x[t / 4][J];
      if constexpr (Format::kShift == 0) {
        dot[t] = hn::Zero(DI());
      } else if constexpr (!Format::kHalves) {
        dot[t] = hn::ShiftLeft<Format::kShift>(hn::Set(DI(), b.neg[t % 4]));
      } else {
        const VI first = hn::Set(DI(), b.neg_half[t % 4]);
        const VI sum = Half == 0 ? first : hn::Sub(hn::Set(DI(), b.neg[t % 4]), first);
        dot[t] = hn::ShiftLeft<Format::kShift>(sum);
      }
    }
    Quads<Half * 4, kQuads>(dot);
    const VF scale = format.template Scale<J, Half>();
    HWY_UNROLL(12)
    for (int t = 0; t < T; ++t) {
      const VF both = hn::Mul(scale, hn::Set(DF(), x[t / 4][J].scale[t % 4]));
      acc[t] = hn::MulAdd(hn::ConvertTo(DF(), dot[t]), both, acc[t]);
    }
    if constexpr (Format::kMin) {
      const VF min = format.template Min<J>();
      HWY_UNROLL(12)
      for (int t = 0; t < T; ++t) {
        acc[t] = hn::NegMulAdd(min, hn::Set(DF(), x[t / 4][J].sum[t % 4]), acc[t]);
      }
    }
  }
  template <int K, int N>
  HWY_INLINE void Quads(VI (&dot)[T]) const {
    if constexpr (N > 0) {
      const VU w = format.template Quad<J, K>();
      HWY_UNROLL(12)
      for (int t = 0; t < T; ++t) {
        dot[t] = Dot<Format>(dot[t], w, Broadcast4(x[t / 4][J].q[t % 4] + 4 * K));
      }
      Quads<K + 1, N - 1>(dot);
    }
  }
};

template <class Format, int T>
struct Unit {
  template <int J>
  HWY_INLINE void Run() const {
    Unroll<0, Format::kHalves ? 2 : 1>(SubBlock<Format, T, J>{format, x, acc});
  }
  const Format& format;
  const XBlock* const (&x)[(T + 3) / 4];
  VF (&acc)[T];
};

// Adds `units` units of one panel (at this target's lanes) to acc [T, 16].
template <class Format, int T>
static HWY_NOINLINE void Tile(const uint8_t* HWY_RESTRICT body, const uint8_t* HWY_RESTRICT head,
                              const XBlock* HWY_RESTRICT x, size_t x_stride, size_t units,
                              float* HWY_RESTRICT out) {
  constexpr int kGroups = (T + 3) / 4;
  const XBlock* group[kGroups];
  for (int g = 0; g < kGroups; ++g) group[g] = x + g * x_stride;
  VF acc[T];
  HWY_UNROLL(12)
  for (int t = 0; t < T; ++t) acc[t] = hn::LoadU(DF(), out + t * kPanelRows);
  for (size_t u = 0; u < units; ++u) {
    const Format format(body, head);
    Unroll<0, Format::kCols / 32>(Unit<Format, T>{format, group, acc});
    body += Format::kBytes;
    head += Format::kHeadBytes;
    for (int g = 0; g < kGroups; ++g) group[g] += Format::kCols / 32;
  }
  HWY_UNROLL(12)
  for (int t = 0; t < T; ++t) hn::StoreU(acc[t], DF(), out + t * kPanelRows);
}

// Tiles of `tokens` tokens, rounded up to a size that is instantiated (the surplus lanes of the
// last block are computed and dropped).
template <class Format>
static void AnyTile(size_t tokens, const uint8_t* body, const uint8_t* head, const XBlock* x,
                    size_t x_stride, size_t units, float* acc) {
  for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
    const uint8_t* b = body + 4 * lane;
    const uint8_t* h = head + 2 * lane;
    float* a = acc + lane;
    if constexpr (kMaxTile == 12) {
      if (tokens > 8) {
        Tile<Format, 12>(b, h, x, x_stride, units, a);
        continue;
      }
      if (tokens > 4) {
        Tile<Format, 8>(b, h, x, x_stride, units, a);
        continue;
      }
    }
    if (tokens > 2) {
      Tile<Format, 4>(b, h, x, x_stride, units, a);
    } else if (tokens == 2) {
      Tile<Format, 2>(b, h, x, x_stride, units, a);
    } else {
      Tile<Format, 1>(b, h, x, x_stride, units, a);
    }
  }
}

template <class Format>
static void MatMulFormat(const PackedMatrix& w, const Activations& x, size_t first, size_t last,
                         float* out, size_t out_stride) {
  const size_t units = w.cols / Format::kCols;
  const size_t panel_bytes = PanelBytes(w.type, w.cols);
  const size_t head_bytes = HeadBytes(w.type, w.cols);
  const size_t x_stride = x.cols / kQBlock;
  const auto tile = [&](size_t panel, size_t tokens, const XBlock* blocks, size_t first_unit,
                        size_t n, float* acc) {
    const uint8_t* p = w.data + panel * panel_bytes;
    AnyTile<Format>(tokens, p + head_bytes + first_unit * Format::kBytes,
                    p + first_unit * Format::kHeadBytes, blocks, x_stride, n, acc);
  };
  // One tile reads the panels in one stream. More tiles go over panels that stay in L2, in chunks
  // of columns whose activations stay in L1.
  const bool single = x.tokens <= kMaxTile;
  const size_t group = single ? 1 : std::clamp<size_t>(kGroupBytes / panel_bytes, 1, kMaxGroup);
  const size_t chunk = single ? units : std::max<size_t>(kChunkCols / Format::kCols, 1);
  alignas(64) float acc[kMaxGroup][kMaxTile * kPanelRows];
  for (size_t p = first; p < last; p += group) {
    const size_t n = std::min(group, last - p);
    for (size_t t = 0; t < x.tokens; t += kMaxTile) {
      const size_t tokens = std::min(kMaxTile, x.tokens - t);
      const XBlock* blocks = x.blocks + t / 4 * x_stride;
      std::memset(acc, 0, n * sizeof(acc[0]));
      for (size_t u = 0; u < units; u += chunk) {
        const XBlock* at = blocks + u * (Format::kCols / kQBlock);
        for (size_t i = 0; i < n; ++i)
          tile(p + i, tokens, at, u, std::min(chunk, units - u), acc[i]);
      }
      for (size_t i = 0; i < n; ++i) {
        const size_t row = (p + i) * kPanelRows, rows = std::min<size_t>(kPanelRows, w.rows - row);
        for (size_t k = 0; k < tokens; ++k) {
          std::memcpy(out + (t + k) * out_stride + row, acc[i] + k * kPanelRows,
                      rows * sizeof(float));
        }
      }
    }
    for (size_t e = 0; e < x.n_extra; ++e) {
      std::memset(acc, 0, n * sizeof(acc[0]));
      XBlock low[kLowCols / kQBlock];
      for (size_t c = 0; c < w.cols; c += kLowCols) {
        const size_t cols = std::min<size_t>(kLowCols, w.cols - c);
        QuantizeLow(x, x.extra[e], c, cols, low);
        for (size_t i = 0; i < n; ++i)
          tile(p + i, 1, low, c / Format::kCols, cols / Format::kCols, acc[i]);
      }
      for (size_t i = 0; i < n; ++i) {
        const size_t row = (p + i) * kPanelRows, rows = std::min<size_t>(kPanelRows, w.rows - row);
        float* y = out + x.extra[e] * out_stride + row;
        for (size_t r = 0; r < rows; ++r) y[r] += acc[i][r];
      }
    }
  }
}

void MatMulInt8(const PackedMatrix& w, const Activations& x, size_t first, size_t last, float* out,
                size_t out_stride) {
  switch (w.type) {
    case DType::kQ8_0:
      return MatMulFormat<FormatQ8_0>(w, x, first, last, out, out_stride);
    case DType::kQ4_0:
      return MatMulFormat<FormatQ4_0>(w, x, first, last, out, out_stride);
    case DType::kQ5_0:
      return MatMulFormat<FormatQ5_0>(w, x, first, last, out, out_stride);
    case DType::kQ4_K:
      return MatMulFormat<FormatQ4_K>(w, x, first, last, out, out_stride);
    case DType::kQ5_K:
      return MatMulFormat<FormatQ5_K>(w, x, first, last, out, out_stride);
    case DType::kQ6_K:
      return MatMulFormat<FormatQ6_K>(w, x, first, last, out, out_stride);
    default:
      return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(MatMulInt8);
void MatMulInt8(const PackedMatrix& w, const Activations& x, size_t first_panel, size_t last_panel,
                float* out, size_t out_stride) {
  HWY_DYNAMIC_DISPATCH(MatMulInt8)(w, x, first_panel, last_panel, out, out_stride);
}
}  // namespace snug
#endif
