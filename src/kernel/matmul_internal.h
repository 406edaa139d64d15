// What the parts of the matrix product share; not for other folders.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernel/matmul.h"

namespace snug {

// How a unit of `cols` columns of one row lies in the file and in a panel. Float types go in units
// of 64.
struct PanelLayout {
  uint32_t cols, bytes;      // of the file's block
  uint32_t scale_bytes = 0;  // where not 0, scales of so many bytes lie apart, ahead of the body:
                             // [unit, 16]
  uint32_t scale_at = 0;     // where in the block that scale is
  uint32_t body_at = 0;      // the words that are transposed: at this byte,
  uint32_t words;            // so many,
  uint32_t flip = 0;         // XORed with this (signed bytes become unsigned)
  int fifth_word = -1;       // the word of fifth bits, regrouped by columns of four
  size_t HeadBytes(size_t columns) const {
    return (columns / cols * scale_bytes * kPanelRows + 63) / 64 * 64;
  }
};
const PanelLayout& LayoutOf(DType type);

// Bytes of f16 block scales ahead of a panel's body, a multiple of 64; 0 where the body holds them.
size_t HeadBytes(DType type, size_t cols);

// Weights of a task of a small matrix: some microseconds of reading, which hide the wait for its
// first lines.
inline constexpr size_t kTaskBytes = size_t{96} << 10;
// Panels that the tiles of more than kFewTokens tokens go over together: half of a 512 KiB L2.
inline constexpr size_t kFewTokens = 64;
inline constexpr size_t kGroupBytes = size_t{256} << 10;
inline constexpr size_t kMaxGroup = 16;
// Columns of an outlier token's low row that are quantized at a time.
inline constexpr size_t kLowCols = 1024;
// Columns that the float kernels dequantize at a time, 64 bytes each: 16 KiB.
inline constexpr size_t kFloatCols = 256;

// A token counts as two rows when its largest value exceeds kOutlierFactor times the typical block
// maximum: the geometric mean over its blocks that are not zero, whose logarithm is, to 6 %, the
// mean of the floats' bits. On Qwen 2.5 1.5B and Gemma 3 270M the median of that ratio is 3 to 10;
// one in 200 inputs of ffn_down exceeds 64, no others do, and without these rows Qwen's greatest KL
// divergence from float32 is 0.3 instead of 0.02.
inline constexpr float kOutlierFactor = 64.0f;
inline bool IsOutlier(float largest, int64_t mean_bits) {
  return largest > kOutlierFactor * std::bit_cast<float>(static_cast<int32_t>(mean_bits));
}

// The low row of `token`, x - hi, columns [first, first + cols), into `slot` of low [cols / 32].
void QuantizeLow(const Activations& x, size_t token, size_t first, size_t cols, size_t slot,
                 XBlock* low);

void MatMulInt8(const PackedMatrix& w, const Activations& x, size_t first_panel, size_t last_panel,
                float* out, size_t out_stride);
void MatMulFloat(const PackedMatrix& w, const Activations& x, size_t first_panel, size_t last_panel,
                 bool exact, float* out, size_t out_stride);

}  // namespace snug
