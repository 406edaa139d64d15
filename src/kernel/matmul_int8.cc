// Products of quantized weights with int8 activations: the walk over panels, tokens and columns
// around the inner tiles.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/matmul_int8.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/matmul.h"
#include "kernel/matmul_dispatch-inl.h"
#include "kernel/matmul_internal.h"
#include "kernel/matmul_tile-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// From this many tokens on, where tiles are short, weights are unpacked once for all of them: so
// many panels and columns at a time that they stay in a 32 KiB L1 beside a tile's activations.
inline constexpr size_t kUnpackTokens = 12, kUnpackPanels = 2, kUnpackCols = 512;

// One call's product: w's panels [first, last) for all tokens of x.
template <class Format>
struct Product {
  static constexpr size_t kUnitCols = kQBlock * Format::kSubs;
  const PackedMatrix& w;
  const Activations& x;
  float* out;
  size_t out_stride;
  const size_t panel_bytes = PanelBytes(w.type, w.cols), head_bytes = HeadBytes(w.type, w.cols);
  const size_t x_stride = x.cols / kQBlock;  // blocks

  void Run(size_t first, size_t last) const {
    if constexpr (kRowVectors > 1) {
      if (x.tokens >= kUnpackTokens) return RunUnpacked(first, last);
    }
    // Few tokens: each panel is read once from memory and again from L2. Many: their activations
    // are what is read again, so several panels share them.
    const size_t group =
        x.tokens <= kFewTokens ? 1 : std::clamp<size_t>(kGroupBytes / panel_bytes, 1, kMaxGroup);
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
        for (size_t i = p; i < p + n; ++i) {
          alignas(64) float sums[kMaxTile * kPanelRows] = {};
          PanelTile(i, tokens, blocks, 0, w.cols, t == 0 ? end : nullptr, sums);
          Copy(sums, kPanelRows, out + t * out_stride + i * kPanelRows, out_stride, tokens,
               Rows(i));
        }
      }
      for (size_t i = p; i < p + n; ++i) AddLow(i);
    }
  }

  // As above, a few panels and columns at a time, unpacked once for all tokens.
  void RunUnpacked(size_t first, size_t last) const {
    using Reader = Unpacked<Format>;
    constexpr size_t kSubs = kUnpackCols / kQBlock;
    alignas(64) uint8_t bodies[kUnpackPanels][kSubs * Reader::kBytes];
    alignas(64) uint8_t heads[kUnpackPanels][kSubs * Reader::kHeadBytes];
    for (size_t p = first; p < last; p += kUnpackPanels) {
      const size_t n = std::min(kUnpackPanels, last - p);
      for (size_t c = 0; c < w.cols; c += kUnpackCols) {
        const size_t cols = std::min<size_t>(kUnpackCols, w.cols - c), unit = c / kUnitCols;
        for (size_t i = 0; i < n; ++i) {
          const uint8_t* panel = w.data + (p + i) * panel_bytes;
          Unpack<Format>(panel + head_bytes + unit * Format::kBytes,
                         panel + unit * Format::kHeadBytes, cols / kUnitCols, bodies[i], heads[i]);
        }
        for (size_t t = 0; t < x.tokens; t += kMaxTile) {
          const size_t tokens = std::min<size_t>(kMaxTile, x.tokens - t);
          const XBlock* blocks = x.blocks + t / 4 * x_stride + c / kQBlock;
          for (size_t i = 0; i < n; ++i) {
            float* y = out + t * out_stride + (p + i) * kPanelRows;
            const size_t rows = Rows(p + i);
            const bool whole = tokens == kMaxTile && rows == kPanelRows;
            alignas(64) float part[kMaxTile * kPanelRows] = {};
            if (whole && c == 0) Zero(y);
            if (!whole && c != 0) Copy(y, out_stride, part, kPanelRows, tokens, rows);
            AnyTile<Reader>(tokens, {bodies[i], heads[i], blocks, x_stride, cols / kQBlock, nullptr,
                                     whole ? y : part, whole ? out_stride : kPanelRows});
            if (!whole) Copy(part, kPanelRows, y, out_stride, tokens, rows);
          }
        }
      }
      for (size_t i = p; i < p + n; ++i) AddLow(i);
    }
  }

  // Adds the low rows of the tokens that count as two.
  void AddLow(size_t panel) const {
    for (size_t e = 0; e < x.n_extra; e += 4) {
      const size_t lows = std::min<size_t>(4, x.n_extra - e);
      alignas(64) float sums[4 * kPanelRows] = {};
      XBlock low[kLowCols / kQBlock];
      for (size_t c = 0; c < w.cols; c += kLowCols) {
        const size_t cols = std::min<size_t>(kLowCols, w.cols - c);
        for (size_t k = 0; k < lows; ++k) QuantizeLow(x, x.extra[e + k], c, cols, k, low);
        PanelTile(panel, lows, low, c, cols, nullptr, sums);
      }
      for (size_t k = 0; k < lows; ++k) {
        float* y = out + x.extra[e + k] * out_stride + panel * kPanelRows;
        for (size_t r = 0; r < Rows(panel); ++r) y[r] += sums[k * kPanelRows + r];
      }
    }
  }

  // Adds columns [first, first + cols) of a panel to sums [tokens, 16].
  void PanelTile(size_t panel, size_t tokens, const XBlock* blocks, size_t first, size_t cols,
                 const uint8_t* limit, float* sums) const {
    const uint8_t* p = w.data + panel * panel_bytes;
    const size_t unit = first / kUnitCols;
    for (size_t lane = 0; lane < kPanelRows; lane += kTileRows) {
      AnyTile<Format>(tokens, {p + head_bytes + unit * Format::kBytes + 4 * lane,
                               p + unit * Format::kHeadBytes + kHeadLane<Format> * lane, blocks,
                               x_stride, cols / kUnitCols, limit, sums + lane});
    }
  }
  size_t Rows(size_t panel) const {
    return std::min<size_t>(kPanelRows, w.rows - panel * kPanelRows);
  }
  void Zero(float* y) const {
    for (size_t k = 0; k < kMaxTile; ++k) {
      std::memset(y + k * out_stride, 0, kPanelRows * sizeof(float));
    }
  }
  static void Copy(const float* from, size_t from_stride, float* to, size_t to_stride,
                   size_t tokens, size_t rows) {
    for (size_t k = 0; k < tokens; ++k) {
      std::memcpy(to + k * to_stride, from + k * from_stride, rows * sizeof(float));
    }
  }
};

template <class Format>
static void MatMulFormat(const PackedMatrix& w, const Activations& x, size_t first, size_t last,
                         float* out, size_t out_stride) {
  Product<Format>{w, x, out, out_stride}.Run(first, last);
}

void MatMulInt8(const PackedMatrix& w, const Activations& x, size_t first, size_t last, float* out,
                size_t out_stride) {
  WithFormat(w.type, [&]<class Format>(const Format*) {
    MatMulFormat<Format>(w, x, first, last, out, out_stride);
  });
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
