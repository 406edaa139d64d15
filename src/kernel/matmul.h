// Matrix products over weights repacked once: y[t, r] = sum_k W[r, k] x[t, k].
//
// Packed layout: panels of 16 rows. Within a panel the weights of 16 rows lie interleaved by groups of four
// columns, as integer dot instructions read them (lane = row), with the block scales beside them; the last
// panel is padded with zero rows. Packed bytes are the file's bytes but for that padding.
//
// Determinism: y[t, r] is a function of row r of W, row t of x and the CPU target alone. It does not depend
// on how many tokens or panels a call covers: every (t, r) is accumulated in the same order with the same
// operations, lane = row, column block by column block.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/ledger.h"
#include "format/dtype.h"

namespace snug {

inline constexpr size_t kPanelRows = 16;
inline constexpr size_t kQBlock = 32;  // columns per activation scale

// A view of a packed matrix; does not own. `data` is aligned to 64.
struct PackedMatrix {
  const uint8_t* data = nullptr;
  DType type = DType::kF32;
  uint32_t rows = 0, cols = 0;
  size_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
};

// Bytes of one packed panel of `cols` columns (a multiple of 64), and of a whole matrix.
size_t PanelBytes(DType type, size_t cols);
inline size_t PackedBytes(DType type, size_t rows, size_t cols) {
  return (rows + kPanelRows - 1) / kPanelRows * PanelBytes(type, cols);
}
// Packs `rows` (1..16 per panel, any count) consecutive raw GGUF rows from `src` into whole panels at
// `dst`. Fast (several GB/s per thread): it runs on the transfer thread while weights stream.
void PackPanels(DType type, const uint8_t* src, size_t rows, size_t cols, uint8_t* dst);
// Row r of a packed matrix as float32 [cols]: the embedding look-up where the head is the embedding.
void UnpackRow(const PackedMatrix& w, size_t row, float* dst);

// Inputs of one product, prepared for a weight type. Integer types take int8 blocks of 32 with a float
// scale. A token whose blocks hold outliers that would drown their neighbours (Qwen's first token) is
// stored as two rows, x = hi + lo, both int8: decided from that token's values alone.
class Activations {
 public:
  // Bytes that a workspace for `tokens` rows of at most `cols` columns takes (second rows included).
  static size_t Bytes(size_t tokens, size_t cols);
  // Lays the views over `memory` (Bytes(...), aligned to 64). Does not own it.
  void Bind(uint8_t* memory, size_t max_tokens, size_t max_cols);

  // Prepares rows [first, last) of x [tokens, cols] (row stride `stride` floats): quantizes to int8. Calls
  // for disjoint ranges may run on different threads; then call Seal once.
  void Quantize(const float* x, size_t stride, size_t cols, size_t first, size_t last);
  // Collects the second rows after all Quantize calls of `tokens` rows.
  void Seal(const float* x, size_t stride, size_t tokens, size_t cols);

  // Fields that the kernels read.
  const float* x = nullptr;  // the caller's rows: float kernels read these
  size_t stride = 0;
  size_t tokens = 0, cols = 0;
  int8_t* q = nullptr;         // [rows, cols], rows = tokens + n_extra
  float* scale = nullptr;      // [rows, cols / 32]
  int32_t* sum = nullptr;      // [rows, cols / 32] sums of q over each block
  uint32_t* extra = nullptr;   // [n_extra] the token that second row `tokens + i` belongs to
  size_t n_extra = 0;
  size_t max_tokens = 0, max_cols = 0;
};

// y[t, r] for panels [first_panel, last_panel) of w and all tokens of x; `out` [tokens, out_stride], rows
// of w are columns of out. With `exact`, weights are dequantized to float32 and products and sums are float32.
// Scratch-free; runs on the calling thread.
void MatMul(const PackedMatrix& w, const Activations& x, size_t first_panel, size_t last_panel, bool exact,
            float* out, size_t out_stride);

// Whether products with this type read int8 activations (else float32 rows).
bool UsesInt8(DType type);

// Name of the SIMD target in use ("AVX-512 VNNI BF16", "AVX2", "NEON", "generic").
const char* KernelTarget();

}  // namespace snug
