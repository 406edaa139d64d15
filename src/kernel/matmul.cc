// The matrix product's front door: which kernel a weight type takes.
#include "kernel/matmul.h"

#include "kernel/matmul_internal.h"
#include "kernel/targets.h"

namespace snug {

bool UsesInt8(DType type) {
  return type != DType::kF32 && type != DType::kF16 && type != DType::kBF16;
}

size_t PanelsPerTask(const PackedMatrix& w, int threads) {
  const size_t group = std::clamp<size_t>(kGroupBytes / PanelBytes(w.type, w.cols), 1, kMaxGroup);
  const size_t balanced = w.panels() / (static_cast<size_t>(threads) * 8);
  return std::clamp<size_t>(balanced, 1, group);
}

void MatMul(const PackedMatrix& w, const Activations& x, size_t first_panel, size_t last_panel,
            bool exact, float* out, size_t out_stride) {
  ChooseTarget();
  if (UsesInt8(w.type) && !exact) {
    MatMulInt8(w, x, first_panel, last_panel, out, out_stride);
  } else {
    MatMulFloat(w, x, first_panel, last_panel, exact, out, out_stride);
  }
}

}  // namespace snug
