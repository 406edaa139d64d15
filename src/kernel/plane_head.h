// A Q8_0 output matrix stored as two bit planes, the high five bits of each weight and the low
// three, in the same number of bytes. Greedy, top-k and min-p decoding read the high plane, bound
// every logit from it, and read the low plane only of the rows that can still matter; what they
// return is exact, bit for bit what MatMul computes from the whole matrix.
//
// The bound. A weight is d * (8 h + l - 128); with l = 3.5 + e, |e| <= 3.5, the high plane gives
// the logit but for sum_i d e_i x_i. Elements of x are split in two: for the few large ones |e_i|
// <= 3.5 is used (an L1 bound with the row's own block scales), for the others the Cauchy-Schwarz
// inequality with the row's stored norm of d e (an L2 bound). Any split is valid; the token chooses
// the one that is tightest for a typical row. Rounding in float32 is bounded too and added.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/threads.h"
#include "kernel/matmul.h"

namespace snug {

inline constexpr size_t kMaxPlaneCols = 8192;  // what the stack's scratch is made for

// A view; does not own. `data` is aligned to 64 and holds, one after the other, the high plane in
// panels of 16 rows (as packed Q5_0 with the block's own scales), the low plane row by row, and a
// norm per row.
class PlaneHead {
 public:
  PlaneHead() = default;
  PlaneHead(uint8_t* data, size_t rows,
            size_t cols);  // cols a multiple of 32, at most kMaxPlaneCols
  // Bytes of the whole, a multiple of 64: the file's bytes and 4 per row.
  static size_t Bytes(size_t rows, size_t cols);

  // Packs raw Q8_0 rows [first_row, first_row + rows) from `src`; first_row a multiple of 16, and
  // rows too unless they are the last.
  void Pack(const uint8_t* src, size_t first_row, size_t rows);
  // As UnpackRow of the packed Q8_0 matrix.
  void UnpackRow(size_t row, float* dst) const;
  // As MatMul of the packed Q8_0 matrix, from both planes.
  void MatMul(const Activations& x, size_t first_panel, size_t last_panel, bool exact, float* out,
              size_t out_stride) const;
  // The same for one panel, with its first row in column 0 of out.
  void MatMulPanel(const Activations& x, size_t panel, bool exact, float* out,
                   size_t out_stride) const;

  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  size_t panels() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  const uint8_t* high_panel(size_t panel) const { return data_ + panel * high_bytes_; }
  // 12 bytes per block of 32 columns; three words, word p with bit p of column 4 k + c at bit 8 c +
  // k.
  const uint8_t* low_row(size_t row) const { return low_ + row * (cols_ / kQBlock) * 12; }
  float norm(size_t row) const { return norms_[row]; }
  const float* norms() const { return norms_; }
  size_t high_bytes() const { return high_bytes_; }

 private:
  uint8_t* data_ = nullptr;
  uint8_t* low_ = nullptr;
  float* norms_ = nullptr;
  size_t rows_ = 0, cols_ = 0, high_bytes_ = 0;
};

struct Candidate {
  uint32_t row;
  float logit;
};

inline constexpr size_t kMaxPlaneK = 128;

struct PlaneQuery {
  size_t k = 1;  // the k largest logits are wanted, at most kMaxPlaneK
  // Only those at least the largest logit less this (min-p: -temperature * log(min_p)).
  float margin = std::numeric_limits<float>::infinity();
};

// What a search read.
struct PlaneStats {
  size_t survivors = 0;  // rows whose low plane was read
  size_t exact = 0;      // rows computed in full
};

// Floats of scratch that PlaneTop takes: a bound per row (padded) and per panel.
inline size_t PlaneScratchFloats(size_t rows) {
  return (rows + kPanelRows - 1) / kPanelRows * (kPanelRows + 1);
}
// Survivors of the high plane beyond which a search gives up, and the length of its list.
inline size_t PlaneMaxSurvivors(size_t rows) { return rows / 8 + 1; }

// Finds every row whose logit, for token `token` of x, is among the k largest (ties included) and
// within the margin; a few others may come with them. Returns how many were written to `out`, in
// ascending row order, with exact logits; 0 where that would be more than `capacity`, where more
// than PlaneMaxSurvivors rows survive the high plane, or where the token counts as two rows: then
// the caller takes the full product. `bounds` [PlaneScratchFloats] and `list` [PlaneMaxSurvivors]
// are scratch. Not for concurrent use of one pool.
size_t PlaneTop(ThreadPool& pool, const PlaneHead& head, const Activations& x, size_t token,
                const PlaneQuery& query, float* bounds, uint32_t* list, Candidate* out,
                size_t capacity, PlaneStats* stats = nullptr);

}  // namespace snug
