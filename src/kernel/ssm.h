// Recurrences over tokens: causal convolution, the selective scans of Mamba and Mamba-2, and the
// gated delta rule.
//
// Determinism: every recurrence runs token by token with the same operations, so a token's result
// is a function of its prefix alone, wherever a chunk begins. The algebra over chunks of the papers
// rounds by where chunks lie and is not used.
//
// States are float32. They come in as `from` (null at the beginning of a sequence: zeros) and go
// out to `to`, which does not overlap; a call covers the part of both that it names. Calls for
// disjoint channels, heads or columns may run on different threads; how they are cut changes
// nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snug {

inline constexpr uint32_t kMaxConvWidth = 16;

// y = silu(bias + depthwise convolution of each channel over its last `width` inputs).
struct CausalConvArgs {
  uint32_t tokens = 0, channels = 0, width = 0;
  const float* x = nullptr;  // [tokens, channels], row stride x_stride
  size_t x_stride = 0;
  const float* weight = nullptr;  // [channels, width], the newest input's weight last
  const float* bias = nullptr;    // [channels], or null
  const float* from = nullptr;    // [width - 1, channels] inputs, oldest first
  float* to = nullptr;
  float* y = nullptr;  // [tokens, channels], row stride y_stride
  size_t y_stride = 0;
};
void CausalConvSilu(const CausalConvArgs& args, size_t first_channel, size_t last_channel);

// Mamba (Gu and Dao 2023), algorithm 2: per channel, with dt = softplus(dt + dt_bias),
//   h = exp(dt a) h + dt b x,  y = (c h + d x) silu(z).
struct SelectiveScanArgs {
  uint32_t tokens = 0, channels = 0, states = 0;
  const float* x = nullptr;  // [tokens, channels]
  size_t x_stride = 0;
  const float* z = nullptr;  // [tokens, channels]
  size_t z_stride = 0;
  const float* dt = nullptr;  // [tokens, channels]
  size_t dt_stride = 0;
  const float *b = nullptr, *c = nullptr;  // [tokens, states]
  size_t bc_stride = 0;
  const float* a = nullptr;        // [channels, states], negative
  const float* d = nullptr;        // [channels]
  const float* dt_bias = nullptr;  // [channels]
  const float* from = nullptr;     // [channels, states]
  float* to = nullptr;
  float* y = nullptr;  // [tokens, channels]
  size_t y_stride = 0;
};
void SelectiveScan(const SelectiveScanArgs& args, size_t first_channel, size_t last_channel);

// Mamba-2 (Dao and Gu 2024), the recurrent form of state space duality: per head, with dt =
// softplus(dt + dt_bias),
//   h = exp(dt a) h + dt b x',  y = h' c + d x.
// Heads of a group share b and c.
struct SsdScanArgs {
  uint32_t tokens = 0, heads = 0, head_dim = 0, groups = 0, states = 0;
  const float* x = nullptr;                // [tokens, heads * head_dim]
  const float *b = nullptr, *c = nullptr;  // [tokens, groups * states]
  size_t xbc_stride = 0;                   // of x, b and c
  const float* dt = nullptr;               // [tokens, heads]
  size_t dt_stride = 0;
  const float* a = nullptr;        // [heads], negative
  const float* d = nullptr;        // [heads]
  const float* dt_bias = nullptr;  // [heads]
  const float* from = nullptr;     // [heads, states, head_dim]
  float* to = nullptr;
  float* y = nullptr;  // [tokens, heads * head_dim]
  size_t y_stride = 0;
};
// Columns [first, last) of the channels of one head.
void SsdScan(const SsdScanArgs& args, size_t head, size_t first, size_t last);

// Gated delta rule (Yang, Kautz and Hatamizadeh 2024): per value head, with its group's q and k,
//   s = decay s,  s = s + k (beta (v - s' k))',  y = s' q.
struct DeltaRuleArgs {
  uint32_t tokens = 0, heads = 0, groups = 0, key_dim = 0, value_dim = 0;
  const float *q = nullptr, *k = nullptr;  // [tokens, groups * key_dim]
  const float* v = nullptr;                // [tokens, heads * value_dim]
  size_t qkv_stride = 0;                   // of q, k and v
  const float* gates = nullptr;            // [tokens, groups, 2, heads / groups]: beta, then decay
  size_t gate_stride = 0;
  const float* from = nullptr;  // [heads, key_dim, value_dim]
  float* to = nullptr;
  float* y = nullptr;  // [tokens, heads * value_dim]
  size_t y_stride = 0;
};
// Columns [first, last) of the values of one head.
void GatedDeltaRule(const DeltaRuleArgs& args, size_t head, size_t first, size_t last);

// One token's gates [groups, 2, heads / groups] in place, from what was projected:
//   beta = sigmoid(beta),  decay = exp(a softplus(decay + dt_bias)).
// a (negative) and dt_bias [heads].
void DeltaGates(const float* a, const float* dt_bias, size_t heads, size_t groups, float* gates);

}  // namespace snug
