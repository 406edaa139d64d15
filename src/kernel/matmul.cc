// The matrix product's front door: which kernel a weight type takes.
#include "kernel/matmul.h"

#include "kernel/matmul_internal.h"
#include "kernel/targets.h"

namespace snug {

bool UsesInt8(DType type) {
  return type != DType::kF32 && type != DType::kF16 && type != DType::kBF16;
}

size_t PanelsPerTask(const PackedMatrix& w, size_t tokens, int threads) {
  const size_t panel_bytes = PanelBytes(w.type, w.cols), panels = w.panels();
  const size_t least = static_cast<size_t>(threads) * (tokens <= kFewTokens ? 1 : 8);
  const size_t tasks = std::max(panels * panel_bytes / kTaskBytes, least);
  const size_t group = std::clamp<size_t>(kGroupBytes / panel_bytes, 1, kMaxGroup);
  return std::clamp<size_t>((panels + tasks - 1) / tasks, 1, group);
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
