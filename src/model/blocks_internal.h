// What the files of Blocks share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "model/blocks.h"

namespace snug {

// Panels of gate and of up that one task multiplies before it joins them.
inline constexpr uint32_t kFfnPanels = 4;
// Split attention is used for at most this many rows at once; more run in groups.
inline constexpr uint32_t kSplitRows = kMaxSplitRows;
// Products of one parallel loop, and experts of one batch.
inline constexpr size_t kMaxProducts = 16;
// Rows up to which a loop over rows stays on the calling thread: a hand-over costs more than a few
// rows.
inline constexpr uint32_t kInlineRows = 2;
// Rows a task of a parallel loop over rows covers.
inline constexpr uint32_t kRowsPerTask = 8;

// Hands out aligned pieces of a buffer; with a null base it only measures.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  float* Floats(size_t n) { return reinterpret_cast<float*>(Bytes(n * sizeof(float))); }
  uint8_t* Bytes(size_t n) {
    uint8_t* p = base_ == nullptr ? nullptr : base_ + used_;
    used_ += AlignBytes(n);
    return p;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* base_;
  size_t used_ = 0;
};

// Lays out the buffers of RoutedFfn.
ExpertBuffers CarveExperts(const BlocksLayout& l, Carver& carve);

// Panels [first, last) of w.
inline PackedMatrix Panels(const PackedMatrix& w, size_t first, size_t last) {
  const size_t rows = std::min<size_t>(w.rows, last * kPanelRows) - first * kPanelRows;
  return {w.data + first * PanelBytes(w.type, w.cols), w.type, static_cast<uint32_t>(rows), w.cols};
}

// Tasks of the gated product of w.
inline size_t GateTasks(const LayerWeights& w) {
  return (w[Role::kGate].panels() + kFfnPanels - 1) / kFfnPanels;
}

template <class F>
void Blocks::ForRows(uint32_t rows, F&& fn) {
  if (rows <= kInlineRows) {
    for (uint32_t r = 0; r < rows; ++r) fn(r);
    return;
  }
  const uint32_t per_task = rows <= 4 * kRowsPerTask ? 1 : kRowsPerTask;
  pool_.For((rows + per_task - 1) / per_task, [&](size_t task, int) {
    const auto first = static_cast<uint32_t>(task) * per_task;
    for (uint32_t r = first; r < std::min(rows, first + per_task); ++r) fn(r);
  });
}

}  // namespace snug
