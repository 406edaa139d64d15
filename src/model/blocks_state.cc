// The blocks of recurrent layers: convolution and recurrence over each sequence's state.
#include <cmath>

#include "kernel/ops.h"
#include "kernel/ssm.h"
#include "model/blocks_internal.h"

namespace snug {

template <class F>
void Blocks::ForSpans(size_t tasks, F&& fn) {
  pool_.For(spans_.size() * tasks, [&](size_t i, int) { fn(spans_[i / tasks], i % tasks); });
}

namespace {

// Channels of one task: some lines of each row.
constexpr size_t kConvChannels = 64;
constexpr size_t kScanChannels = 32;
// Columns of a head of one task.
constexpr size_t kHeadColumns = 64;

size_t Blocked(size_t n, size_t block) { return (n + block - 1) / block; }

}  // namespace

void Blocks::ProjectState(const LayerWeights& w) {
  const Product products[] = {{w[Role::kSsmIn], nullptr, projected_, config_.state.projected()}};
  Multiply(products);
}

void Blocks::ProjectDelta(const LayerWeights& w) {
  const StateConfig& c = config_.state;
  float* z = projected_ + c.conv_channels();
  const Product products[] = {{w[Role::kSsmIn], nullptr, projected_, c.projected()},
                              {w[Role::kSsmGate], nullptr, z, c.projected()},
                              {w[Role::kSsmGates], nullptr, z + c.inner, c.projected()}};
  Multiply(products);
}

void Blocks::Convolve(uint32_t layer, const LayerWeights& w, uint32_t first) {
  const StateConfig& c = config_.state;
  const size_t channels = c.conv_channels(), stride = c.projected();
  ForSpans(Blocked(channels, kConvChannels), [&](const RowSpan& s, size_t task) {
    CausalConvArgs a;
    a.tokens = s.rows;
    a.channels = c.conv_channels();
    a.width = c.conv_width;
    a.x = projected_ + s.first_row * stride + first;
    a.x_stride = stride;
    a.weight = w.vec(Role::kConv);
    a.bias = w.vec(Role::kConvBias);
    a.from = cache_.states().committed(s.sequence, layer);
    a.to = cache_.states().next(s.sequence, layer);
    a.y = convolved_ + s.first_row * channels;
    a.y_stride = channels;
    CausalConvSilu(a, task * kConvChannels, std::min(channels, (task + 1) * kConvChannels));
  });
}

Blocks::StateSpan Blocks::RecurrentState(const RowSpan& s, uint32_t layer) {
  const size_t at = config_.state.conv_floats();
  const float* from = cache_.states().committed(s.sequence, layer);
  return {from == nullptr ? nullptr : from + at, cache_.states().next(s.sequence, layer) + at};
}

void Blocks::SelectiveScan(uint32_t layer, const LayerWeights& w) {
  const StateConfig& c = config_.state;
  const size_t inner = c.inner, steps = c.steps();
  Prepare(convolved_, rows_, c.inner);
  const Product low[] = {{w[Role::kSsmX], nullptr, steps_, steps}};
  Multiply(low);
  if (c.norm_steps) {
    ForRows(rows_, [&](uint32_t r) {
      float* row = steps_ + r * steps;
      RmsNorm(row, nullptr, config_.eps, c.dt_rank, row);
      for (float* p : {row + c.dt_rank, row + c.dt_rank + c.size}) {
        RmsNorm(p, nullptr, config_.eps, c.size, p);
      }
    });
  }
  Prepare(steps_, rows_, c.dt_rank, steps);
  const Product dt[] = {{w[Role::kSsmDt], nullptr, dt_, inner}};
  Multiply(dt);
  ForSpans(Blocked(inner, kScanChannels), [&](const RowSpan& s, size_t task) {
    const StateSpan state = RecurrentState(s, layer);
    SelectiveScanArgs a;
    a.tokens = s.rows;
    a.channels = c.inner;
    a.states = c.size;
    a.x = convolved_ + s.first_row * inner;
    a.x_stride = inner;
    a.z = projected_ + s.first_row * c.projected() + inner;
    a.z_stride = c.projected();
    a.dt = dt_ + s.first_row * inner;
    a.dt_stride = inner;
    a.b = steps_ + s.first_row * steps + c.dt_rank;
    a.c = a.b + c.size;
    a.bc_stride = steps;
    a.a = w.vec(Role::kSsmA);
    a.d = w.vec(Role::kSsmD);
    a.dt_bias = w.vec(Role::kSsmDtBias);
    a.from = state.from;
    a.to = state.to;
    a.y = mixed_ + s.first_row * inner;
    a.y_stride = inner;
    snug::SelectiveScan(a, task * kScanChannels, std::min(inner, (task + 1) * kScanChannels));
  });
  CountStates();
}

void Blocks::SsdScan(uint32_t layer, const LayerWeights& w) {
  const StateConfig& c = config_.state;
  const size_t inner = c.inner, conv = c.conv_channels(), in = c.projected();
  const size_t dim = c.head_dim(), blocks = Blocked(dim, kHeadColumns);
  ForSpans(c.heads * blocks, [&](const RowSpan& s, size_t task) {
    const size_t head = task / blocks, column = task % blocks * kHeadColumns;
    const StateSpan state = RecurrentState(s, layer);
    SsdScanArgs a;
    a.tokens = s.rows;
    a.heads = c.heads;
    a.head_dim = c.head_dim();
    a.groups = c.groups;
    a.states = c.size;
    a.x = convolved_ + s.first_row * conv;
    a.b = a.x + inner;
    a.c = a.b + c.groups * c.size;
    a.xbc_stride = conv;
    a.dt = projected_ + s.first_row * in + inner + conv;
    a.dt_stride = in;
    a.a = w.vec(Role::kSsmA);
    a.d = w.vec(Role::kSsmD);
    a.dt_bias = w.vec(Role::kSsmDtBias);
    a.from = state.from;
    a.to = state.to;
    a.y = mixed_ + s.first_row * inner;
    a.y_stride = inner;
    snug::SsdScan(a, head, column, std::min(dim, column + kHeadColumns));
  });
  // The gate, then RMSNorm of each group's channels.
  const size_t group = inner / c.groups;
  ForRows(rows_, [&](uint32_t r) {
    float* y = mixed_ + r * inner;
    SiluMul(projected_ + r * in, y, inner, y);
    for (size_t g = 0; g < inner; g += group) {
      RmsNorm(y + g, w.vec(Role::kSsmNorm) + g, config_.eps, group, y + g);
    }
  });
  CountStates();
}

void Blocks::DeltaRule(uint32_t layer, const LayerWeights& w) {
  // Of queries and keys, as the implementation that models are trained with has it.
  constexpr float kLengthEps = 1e-6f;
  const StateConfig& c = config_.state;
  const size_t inner = c.inner, conv = c.conv_channels(), in = c.projected(), dim = c.head_dim();
  const float scale = 1 / std::sqrt(static_cast<float>(c.size));
  ForRows(rows_, [&](uint32_t r) {
    float* q = convolved_ + r * conv;
    float* k = q + size_t{c.groups} * c.size;
    for (size_t g = 0; g < c.groups; ++g) {
      L2Norm(kLengthEps, scale, c.size, q + g * c.size);
      L2Norm(kLengthEps, 1, c.size, k + g * c.size);
    }
    DeltaGates(w.vec(Role::kSsmA), w.vec(Role::kSsmDtBias), c.heads, c.groups,
               projected_ + r * in + conv + inner);
  });
  const size_t blocks = Blocked(dim, kHeadColumns);
  ForSpans(c.heads * blocks, [&](const RowSpan& s, size_t task) {
    const size_t head = task / blocks, column = task % blocks * kHeadColumns;
    const StateSpan state = RecurrentState(s, layer);
    DeltaRuleArgs a;
    a.tokens = s.rows;
    a.heads = c.heads;
    a.groups = c.groups;
    a.key_dim = c.size;
    a.value_dim = c.head_dim();
    a.q = convolved_ + s.first_row * conv;
    a.k = a.q + size_t{c.groups} * c.size;
    a.v = a.k + size_t{c.groups} * c.size;
    a.qkv_stride = conv;
    a.gates = projected_ + s.first_row * in + conv + inner;
    a.gate_stride = in;
    a.from = state.from;
    a.to = state.to;
    a.y = mixed_ + s.first_row * inner;
    a.y_stride = inner;
    GatedDeltaRule(a, head, column, std::min(dim, column + kHeadColumns));
  });
  ForRows(rows_, [&](uint32_t r) {
    float* y = mixed_ + r * inner;
    for (size_t h = 0; h < c.heads; ++h) {
      RmsNorm(y + h * dim, w.vec(Role::kSsmNorm), config_.eps, dim, y + h * dim);
    }
    SiluMul(projected_ + r * in + conv, y, inner, y);
  });
  CountStates();
}

void Blocks::ProjectMixed(const LayerWeights& w) {
  Prepare(mixed_, rows_, config_.state.inner);
  const Product products[] = {{w[Role::kSsmOut], nullptr, h_, config_.dim}};
  Multiply(products);
}

void Blocks::CountStates() { kv_bytes_ += spans_.size() * config_.state.floats() * sizeof(float); }

}  // namespace snug
