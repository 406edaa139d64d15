// Matrix products over weights repacked once: y[t, r] = sum_k W[r, k] x[t, k].
//
// Packed layout: panels of 16 rows. Within a panel the weights of 16 rows lie interleaved by groups
// of four columns, as integer dot instructions read them (lane = row), with the block scales beside
// them; the last panel is padded with zero rows. Packed bytes are the file's bytes but for that
// padding.
//
// Determinism: y[t, r] is a function of row r of W, row t of x and the CPU target alone. It does
// not depend on how many tokens or panels a call covers: every (t, r) is accumulated in the same
// order with the same operations, lane = row, column block by column block.
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
// Packs `rows` (1..16 per panel, any count) consecutive raw GGUF rows from `src` into whole panels
// at `dst`. Fast (several GB/s per thread): it runs on the transfer thread while weights stream.
void PackPanels(DType type, const uint8_t* src, size_t rows, size_t cols, uint8_t* dst);
// Row r of a packed matrix as float32 [cols]: the embedding look-up where the head is the
// embedding.
void UnpackRow(const PackedMatrix& w, size_t row, float* dst);

// Four tokens' values of one block of 32 columns, as the kernels read them: three cache lines.
struct alignas(64) XBlock {
  int8_t q[4][kQBlock];  // x = scale * q
  float scale[4];
  float sum[4];         // scale * (sum of q)
  int32_t neg[4];       // -(sum of q)
  int32_t neg_half[4];  // -(sum of q over the first 16 columns)
};
static_assert(sizeof(XBlock) == 192);

// Inputs of one product. Integer types take int8 blocks of 32 with a float scale. A token with an
// outlier that would drown the rest of its values (Qwen's first token, ahead of ffn_down) counts as
// two rows, x = hi + lo, both int8: decided from that token's values alone, and y = y(hi) + y(lo).
// The low rows are quantized where they are used, so they take no memory.
class Activations {
 public:
  // Bytes that a workspace for `tokens` rows of at most `cols` columns takes, a multiple of 64.
  static size_t Bytes(size_t tokens, size_t cols);
  // Lays the views over `memory` (Bytes(...), aligned to 64). Does not own it.
  void Bind(uint8_t* memory, size_t max_tokens, size_t max_cols);

  // Quantizes rows [first, last) of rows [tokens, cols] (row stride `row_stride` floats; cols a
  // multiple of 32) to int8. Calls for disjoint ranges may run on different threads; then call Seal
  // once.
  void Quantize(const float* rows, size_t row_stride, size_t cols, size_t first, size_t last);
  // Ends the preparation of `tokens` rows; `rows` must stay as they are until the last product.
  // Products with float types or with `exact` need only this call, no Quantize and no Bind.
  void Seal(const float* rows, size_t row_stride, size_t tokens, size_t cols);

  // Fields that the kernels read.
  const float* x = nullptr;  // the caller's rows
  size_t stride = 0;
  size_t tokens = 0, cols = 0;
  XBlock* blocks = nullptr;    // [ceil(tokens / 4), cols / 32]
  uint8_t* outlier = nullptr;  // [max_tokens] 1 where the token counts as two rows
  uint32_t* extra = nullptr;   // [n_extra] the tokens that count as two rows, ascending
  size_t n_extra = 0;
  size_t max_tokens = 0, max_cols = 0;
};

// y[t, r] for panels [first_panel, last_panel) of w and all tokens of x; `out` [tokens,
// out_stride], rows of w are columns of out. With `exact`, weights are dequantized to float32 and
// products and sums are float32. Runs on the calling thread, with some tens of KiB of stack and no
// other scratch.
void MatMul(const PackedMatrix& w, const Activations& x, size_t first_panel, size_t last_panel,
            bool exact, float* out, size_t out_stride);

// Panels that one task of a product with `tokens` tokens should cover, so that `threads` threads
// are balanced and tasks are long enough. Any other number gives the same results.
size_t PanelsPerTask(const PackedMatrix& w, size_t tokens, int threads);

// Whether products with this type read int8 activations (else float32 rows).
bool UsesInt8(DType type);

// Name of the SIMD target in use ("AVX-512 VNNI BF16", "AVX2", "NEON", "generic").
const char* KernelTarget();

}  // namespace snug
