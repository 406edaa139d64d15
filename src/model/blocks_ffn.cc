// Feed-forward blocks.
#include <algorithm>
#include <cassert>

#include "kernel/ops.h"
#include "model/blocks_internal.h"

namespace snug {

void Blocks::Gate(const float* gate, const float* up, size_t n, float* y) const {
  switch (config_.activation) {
    case Activation::kSilu:
      return SiluMul(gate, up, n, y);
    case Activation::kGeluTanh:
      return GeluMul(gate, up, n, y);
    case Activation::kClampedSwiglu:
      return ClampedSwiglu(gate, up, config_.swiglu_alpha, config_.swiglu_limit, n, y);
  }
}

void Blocks::GateTask(const LayerWeights& w, const Activations& x, size_t task, int thread,
                      float* hidden, size_t stride) {
  const float* gate_bias = w.vec(Role::kGateBias);
  const float* up_bias = w.vec(Role::kUpBias);
  const size_t first = task * kFfnPanels;
  const size_t last = std::min(first + kFfnPanels, w[Role::kGate].panels());
  const PackedMatrix g = Panels(w[Role::kGate], first, last);
  const PackedMatrix u = Panels(w[Role::kUp], first, last);
  const size_t column = first * kPanelRows;
  float* out = hidden + column;  // these columns of all rows
  auto* tile = reinterpret_cast<float*>(thread_scratch_ + thread * thread_scratch_bytes_);
  constexpr size_t kTileCols = kFfnPanels * kPanelRows;
  MatMul(g, x, 0, last - first, exact_, out, stride);
  MatMul(u, x, 0, last - first, exact_, tile, kTileCols);
  for (size_t r = 0; r < x.tokens; ++r) {
    float* gates = out + r * stride;
    float* ups = tile + r * kTileCols;
    if (gate_bias != nullptr) AddTo(gate_bias + column, g.rows, gates);
    if (up_bias != nullptr) AddTo(up_bias + column, g.rows, ups);
    Gate(gates, ups, g.rows, gates);
  }
}

void Blocks::GatedFfn(const LayerWeights& w) {
  if (stored_) return;
  LayerWeights seen = w;
  seen[Role::kGate] = Seen(w[Role::kGate], acts_);
  seen[Role::kUp] = Seen(w[Role::kUp], acts_);
  pool_.For(GateTasks(w), [&](size_t task, int thread) {
    GateTask(seen, acts_, task, thread, ffn_, config_.ffn);
  });
  Prepare(ffn_, rows_, config_.ffn);
  const Product products[] = {{w[Role::kDown], w.vec(Role::kDownBias), h_, config_.dim}};
  Multiply(products);
}

}  // namespace snug
