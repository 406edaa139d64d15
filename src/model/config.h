// Hyper-parameters of a transformer, as the architecture files read them from metadata.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace snug {

enum class Activation : uint8_t { kSilu, kGeluTanh, kClampedSwiglu };
enum class Pooling : uint8_t { kMean, kCls };  // of an encoder: over all tokens, or the first
enum class RopeScaling : uint8_t { kNone, kLinear, kYarn };

// Rotary embedding of one kind of layer. Llama 3's and LongRoPE's scaling come as per-frequency
// divisors (RopeDivisors) and are applied on top.
struct RopeConfig {
  uint32_t dim = 0;  // rotated dimensions of a head
  float base = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  float factor = 1;
  float original_context = 0;           // YaRN (Peng et al. 2023), LongRoPE
  float beta_fast = 32, beta_slow = 1;  // YaRN
  bool truncate = true;                 // YaRN: its ramp begins and ends at whole dimensions
  float attention_factor = 0;           // of cosines and sines; 0: YaRN's 0.1 ln(factor) + 1, or 1
  bool interleaved = false;             // pairs (2i, 2i+1), as GGUF permutes Llama's rows
};

// How a router's logits choose experts and weigh what they give.
struct RouterConfig {
  enum class Score : uint8_t { kSoftmax, kSigmoid };
  uint32_t experts = 0, used = 0;  // of a layer, of a token; 0: the model has none
  Score score = Score::kSoftmax;   // over all experts of the layer
  bool normalize = false;  // the chosen scores are divided by their sum: a softmax over the chosen
  float scale = 1;         // multiplies the weights
};

// Recurrent layers: state spaces (Mamba, Mamba-2) and the gated delta rule, each behind a causal
// convolution.
struct StateConfig {
  uint32_t conv_width = 0;
  uint32_t inner = 0;              // channels of the recurrence
  uint32_t size = 0;               // state of a channel: N of the papers, the delta rule's key size
  uint32_t heads = 0, groups = 0;  // of channels; of heads that share B and C (q and k). Mamba: 0
  uint32_t gates = 0;              // projected for each head: Mamba-2's step; beta and decay
  uint32_t dt_rank = 0;            // Mamba
  bool norm_steps = false;         // Mamba: RMSNorm of dt, B and C (Falcon Mamba)
  uint32_t head_dim() const { return inner / heads; }
  uint32_t conv_channels() const { return inner + 2 * groups * size; }
  // Columns of a token's projections: the convolution's inputs, the output's gate, and the heads'
  // gates; for Mamba, whose steps come of the convolution, x and z, then dt, B and C apart.
  uint32_t projected() const { return inner + conv_channels() + heads * gates; }
  uint32_t steps() const { return dt_rank == 0 ? 0 : dt_rank + 2 * size; }
  // What a layer keeps of a sequence: the last inputs of the convolution, then the state.
  uint64_t conv_floats() const { return (uint64_t{conv_width} - 1) * conv_channels(); }
  uint64_t floats() const { return conv_floats() + uint64_t{inner} * size; }
};

struct ModelConfig {
  std::string arch, name;
  uint32_t layers = 0, dim = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  uint32_t expert_ffn = 0, shared_ffn = 0;  // widths of one routed and of the shared expert
  uint32_t trained_context = 0;
  float eps = 1e-6f;
  float attention_scale = 0;                                       // multiplies q.k
  float embedding_scale = 1, residual_scale = 1, logit_scale = 1;  // multipliers
  float attention_softcap = 0, logit_softcap = 0;                  // 0: none
  Activation activation = Activation::kSilu;
  float swiglu_alpha = 1.702f, swiglu_limit = 7;  // of kClampedSwiglu
  RouterConfig router;
  bool tied = false;             // the head is the token embedding
  RopeConfig rope, local_rope;   // local_rope: of the layers with a window
  std::vector<uint32_t> window;  // [layers], 0 = full attention
  std::vector<bool> no_rope;     // [layers] without positions, or empty
  bool joint_head_norm = false;  // norms of queries and keys go over all heads at once
  bool attention_gate = false;   // attn_q has a gate behind the query of each head
  // Encoders: attention sees the whole text, and there is no head.
  bool encoder = false;
  Pooling pooling = Pooling::kMean;
  bool normalize = false;  // embeddings have length 1
  uint32_t token_types = 0;
  StateConfig state;
  std::vector<bool> recurrent;  // [layers] whether it has a state instead of attention
  uint32_t recurrent_layers() const {
    return static_cast<uint32_t>(std::count(recurrent.begin(), recurrent.end(), true));
  }
  uint32_t max_window() const {
    uint32_t m = 0;
    for (uint32_t w : window) m = w > m ? w : m;
    return m;
  }
};

}  // namespace snug
