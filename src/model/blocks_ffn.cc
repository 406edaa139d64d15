// Feed-forward blocks.
#include <algorithm>
#include <cassert>

#include "kernel/ops.h"
#include "model/blocks_internal.h"

namespace snug {

void Blocks::GatedFfn(const LayerWeights& w) {
  const PackedMatrix gate = Seen(w[Role::kGate]), up = Seen(w[Role::kUp]);
  const float* gate_bias = w.vec(Role::kGateBias);
  const float* up_bias = w.vec(Role::kUpBias);
  const size_t ffn = config_.ffn;
  const size_t tasks = (gate.panels() + kFfnPanels - 1) / kFfnPanels;
  const auto join = config_.activation == Activation::kSilu ? SiluMul : GeluMul;
  pool_.For(tasks, [&](size_t task, int thread) {
    const size_t first = task * kFfnPanels;
    const size_t last = std::min(first + kFfnPanels, gate.panels());
    const PackedMatrix g = Panels(gate, first, last), u = Panels(up, first, last);
    const size_t column = first * kPanelRows;
    float* out = ffn_ + column;  // [rows, ffn], these columns
    auto* tile = reinterpret_cast<float*>(thread_scratch_ + thread * thread_scratch_bytes_);
    constexpr size_t kTileCols = kFfnPanels * kPanelRows;
    MatMul(g, acts_, 0, last - first, exact_, out, ffn);
    MatMul(u, acts_, 0, last - first, exact_, tile, kTileCols);
    for (size_t r = 0; r < rows_; ++r) {
      if (gate_bias != nullptr) AddTo(gate_bias + column, g.rows, out + r * ffn);
      if (up_bias != nullptr) AddTo(up_bias + column, g.rows, tile + r * kTileCols);
      join(out + r * ffn, tile + r * kTileCols, g.rows, out + r * ffn);
    }
  });
  Prepare(ffn_, rows_, config_.ffn);
  const Product products[] = {{w[Role::kDown], w.vec(Role::kDownBias), h_, config_.dim}};
  Multiply(products);
}

}  // namespace snug
