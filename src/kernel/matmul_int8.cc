// Products of quantized weights with int8 activations: for 16 rows (lanes) and a tile of tokens, 32
// columns at a time as integer dot products, scaled and added in float32 in column order.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/matmul_int8.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/cache_control.h"
#include "kernel/compat-inl.h"
#include "kernel/matmul.h"
#include "kernel/matmul_formats-inl.h"
#include "kernel/matmul_internal.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Registers: two per token (integer and float sums), a vector of weights, scales, masks; Q6_K's
// shifts take more.
inline constexpr size_t kMaxTile = kLanes == 16 ? 12 : 4;
template <class Format>
inline constexpr size_t kTileOf = Format::kHalves ? std::min<size_t>(kMaxTile, 8) : kMaxTile;
// Tokens of the next tile where `left` are left: 16 are better halved than split into 12 and 4.
template <class Format>
static size_t NextTile(size_t left) {
  return left > kTileOf<Format> && left <= 16 ? std::min<size_t>(kMaxTile, 8)
                                              : std::min(left, kTileOf<Format>);
}
// Bytes ahead of the weights in use that are asked of memory: hardware prefetching alone keeps up
// with neither one token nor several.
inline constexpr size_t kAhead = 8192;

// One sub-block of 32 columns for T tokens. x[g] is the block of tokens [4 g, 4 g + 4).
template <class Format, int T>
struct SubBlock {
  static constexpr int kGroups = (T + 3) / 4;
  const Format& format;
  const XBlock* const (&x)[kGroups];
  VF (&acc)[T];

  // Weights [16 * Half, ...): all 32 columns, or 16 where each half has its scale.
  template <int Half>
  HWY_INLINE void Run() const {
    VI dot[T];
    HWY_UNROLL(12)
    for (int t = 0; t < T; ++t) dot[t] = Start<Half>(*x[t / 4], t % 4);
    Quads<Half * 4, Format::kHalves ? 4 : 8>(dot);
    const VF scale = format.template Scale<Half>();
    HWY_UNROLL(12)
    for (int t = 0; t < T; ++t) {
      const VF both = hn::Mul(scale, hn::Set(DF(), x[t / 4]->scale[t % 4]));
      acc[t] = hn::MulAdd(hn::ConvertTo(DF(), dot[t]), both, acc[t]);
    }
    if constexpr (Format::kMin) {
      const VF min = format.Min();
      HWY_UNROLL(12)
      for (int t = 0; t < T; ++t) {
        acc[t] = hn::NegMulAdd(min, hn::Set(DF(), x[t / 4]->sum[t % 4]), acc[t]);
      }
    }
  }
  // The dot product of x with the weights' offset, negative: exact in integers.
  template <int Half>
  static HWY_INLINE VI Start(const XBlock& b, int slot) {
    if constexpr (Format::kShift == 0) return hn::Zero(DI());
    if constexpr (Format::kShift != 0) {
      VI sum = hn::Set(DI(), Format::kHalves ? b.neg_half[slot] : b.neg[slot]);
      if constexpr (Half == 1) sum = hn::Sub(hn::Set(DI(), b.neg[slot]), sum);
      return hn::ShiftLeft<Format::kShift>(sum);
    }
  }
  template <int K, int N>
  HWY_INLINE void Quads(VI (&dot)[T]) const {
    if constexpr (N > 0) {
      const VU w = format.template Quad<K>();
      HWY_UNROLL(12)
      for (int t = 0; t < T; ++t) {
        dot[t] = QuadDotBroadcast<Format::kWide>(dot[t], w, x[t / 4]->q[t % 4] + 4 * K);
      }
      Quads<K + 1, N - 1>(dot);
    }
  }
};

// What a tile reads and adds to: `units` units of one panel, at this target's lanes.
struct Operands {
  const uint8_t *body, *head;
  const XBlock* x;
  size_t x_stride;  // blocks from four tokens to the next four
  size_t units;
  const uint8_t*
      limit;    // end of the weights that will be read from memory; null where they are in a cache
  float* sums;  // [T, 16]
};

template <class Format, int T>
static HWY_NOINLINE void Tile(const Operands& o) {
  constexpr int kGroups = (T + 3) / 4;
  const XBlock* x[kGroups];
  for (int g = 0; g < kGroups; ++g) x[g] = o.x + g * o.x_stride;
  VF acc[T];
  HWY_UNROLL(12)
  for (int t = 0; t < T; ++t) acc[t] = hn::LoadU(DF(), o.sums + t * kPanelRows);
  const uint8_t *body = o.body, *head = o.head;
  for (size_t u = 0; u < o.units; ++u) {
    Format format(body, head);
    for (size_t j = 0; j < Format::kSubs; ++j) {
      constexpr size_t kStep = Format::kBytes / Format::kSubs;
      if (const uint8_t* next = body + kAhead + j * kStep; next < o.limit) {
        for (size_t i = 0; i < kStep; i += 64) hwy::Prefetch(next + i);
      }
      format.Seek(j);
      Unroll<0, Format::kHalves ? 2 : 1>(SubBlock<Format, T>{format, x, acc});
      for (int g = 0; g < kGroups; ++g) ++x[g];
    }
    body += Format::kBytes;
    head += Format::kHeadBytes;
  }
  HWY_UNROLL(12)
  for (int t = 0; t < T; ++t) hn::StoreU(acc[t], DF(), o.sums + t * kPanelRows);
}

// Tiles of `tokens` tokens in sizes that are instantiated: surplus slots of a last block are
// computed and dropped.
template <class Format>
static void AnyTile(size_t tokens, const Operands& o) {
  if constexpr (kTileOf < Format >> 8) {
    if (tokens > 8) return Tile<Format, 12>(o);
  }
  if constexpr (kTileOf < Format >> 4) {
    if (tokens > 4) return Tile<Format, 8>(o);
  }
  if (tokens > 2) return Tile<Format, 4>(o);
  if (tokens == 2) return Tile<Format, 2>(o);
  Tile<Format, 1>(o);
}

template <class Format>
static void MatMulFormat(const PackedMatrix& w, const Activations& x, size_t first, size_t last,
                         float* out, size_t out_stride) {
  constexpr size_t kUnitCols = kQBlock * Format::kSubs;
  const size_t units = w.cols / kUnitCols;
  const size_t panel_bytes = PanelBytes(w.type, w.cols);
  const size_t head_bytes = HeadBytes(w.type, w.cols);
  const size_t x_stride = x.cols / kQBlock;
  // Adds units [unit, unit + n) of a panel to sums [tokens, 16].
  const auto tile = [&](size_t panel, size_t tokens, const XBlock* blocks, size_t unit, size_t n,
                        const uint8_t* limit, float* sums) {
    const uint8_t* p = w.data + panel * panel_bytes;
    for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
      AnyTile<Format>(tokens, {p + head_bytes + unit * Format::kBytes + 4 * lane,
                               p + unit * Format::kHeadBytes + 2 * lane, blocks, x_stride, n, limit,
                               sums + lane});
    }
  };
  // Few tokens: each panel is read once from memory and again from L2. Many: their activations are
  // what is read again, so several panels share them.
  const size_t group =
      x.tokens <= kFewTokens ? 1 : std::clamp<size_t>(kGroupBytes / panel_bytes, 1, kMaxGroup);
  alignas(64) float sums[kMaxGroup][kMaxTile * kPanelRows];
  // Of the whole matrix: the task after this one is likely this thread's too.
  const uint8_t* const end = w.data + w.panels() * panel_bytes;
  for (const uint8_t* p = w.data + first * panel_bytes;
       p < std::min(end, w.data + first * panel_bytes + kAhead); p += 64) {
    hwy::Prefetch(p);
  }
  for (size_t p = first; p < last; p += group) {
    const size_t n = std::min(group, last - p);
    for (size_t t = 0, tokens; t < x.tokens; t += tokens) {
      tokens = NextTile<Format>(x.tokens - t);
      const XBlock* blocks = x.blocks + t / 4 * x_stride;
      std::memset(sums, 0, n * sizeof(sums[0]));
      for (size_t i = 0; i < n; ++i)
        tile(p + i, tokens, blocks, 0, units, t == 0 ? end : nullptr, sums[i]);
      for (size_t i = 0; i < n; ++i) {
        const size_t row = (p + i) * kPanelRows, rows = std::min<size_t>(kPanelRows, w.rows - row);
        for (size_t k = 0; k < tokens; ++k) {
          std::memcpy(out + (t + k) * out_stride + row, sums[i] + k * kPanelRows,
                      rows * sizeof(float));
        }
      }
    }
    for (size_t e = 0; e < x.n_extra; e += 4) {
      const size_t lows = std::min<size_t>(4, x.n_extra - e);
      std::memset(sums, 0, n * sizeof(sums[0]));
      XBlock low[kLowCols / kQBlock];
      for (size_t c = 0; c < w.cols; c += kLowCols) {
        const size_t cols = std::min<size_t>(kLowCols, w.cols - c);
        for (size_t k = 0; k < lows; ++k) QuantizeLow(x, x.extra[e + k], c, cols, k, low);
        for (size_t i = 0; i < n; ++i) {
          tile(p + i, lows, low, c / kUnitCols, cols / kUnitCols, nullptr, sums[i]);
        }
      }
      for (size_t i = 0; i < n; ++i) {
        const size_t row = (p + i) * kPanelRows;
        const size_t rows = std::min<size_t>(kPanelRows, w.rows - row);
        for (size_t k = 0; k < lows; ++k) {
          float* y = out + x.extra[e + k] * out_stride + row;
          for (size_t r = 0; r < rows; ++r) y[r] += sums[i][k * kPanelRows + r];
        }
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
