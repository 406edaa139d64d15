// Gemma 3 (Gemma Team 2025): five layers with a sliding window and their own rotary base for each
// layer with full attention, RMSNorm of queries and keys, norms before and after each block,
// GELU-gated feed-forward, embeddings scaled by sqrt(dim). The head is the embedding.
#include <fmt/format.h>

#include <cmath>

#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

// Facts of the family that its GGUF files leave out.
constexpr uint32_t kPattern = 6;  // every sixth layer attends to everything
constexpr float kLocalRopeBase = 10000;

class Gemma3 final : public Model {
 public:
  explicit Gemma3(ModelConfig config) { config_ = std::move(config); }

  std::vector<LayerTensor> Tensors() const override {
    const ModelConfig& c = config_;
    const uint32_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    return {
        {Role::kAttnNorm, "attn_norm.weight", 1, c.dim},
        {Role::kQ, "attn_q.weight", q, c.dim},
        {Role::kK, "attn_k.weight", kv, c.dim},
        {Role::kV, "attn_v.weight", kv, c.dim},
        {Role::kQNorm, "attn_q_norm.weight", 1, c.head_dim},
        {Role::kKNorm, "attn_k_norm.weight", 1, c.head_dim},
        {Role::kO, "attn_output.weight", c.dim, q},
        {Role::kPostAttnNorm, "post_attention_norm.weight", 1, c.dim},
        {Role::kFfnNorm, "ffn_norm.weight", 1, c.dim},
        {Role::kGate, "ffn_gate.weight", c.ffn, c.dim},
        {Role::kUp, "ffn_up.weight", c.ffn, c.dim},
        {Role::kDown, "ffn_down.weight", c.dim, c.ffn},
        {Role::kPostFfnNorm, "post_ffw_norm.weight", 1, c.dim},
    };
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Norm(w.vec(Role::kAttnNorm));
    b.ProjectQkv(w);
    b.RotateAndStore(layer, w);
    b.Attend(layer);
    b.ProjectOut(w);
    b.AddResidual(w.vec(Role::kPostAttnNorm));

    b.Norm(w.vec(Role::kFfnNorm));
    b.GatedFfn(w);
    b.AddResidual(w.vec(Role::kPostFfnNorm));
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenGemma3(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  const std::string prefix = c.arch + ".";
  c.activation = Activation::kGeluTanh;
  c.embedding_scale = std::sqrt(static_cast<float>(c.dim));
  // Files of the 27B model scale queries by dim / heads instead of head_dim.
  if (c.layers == 62 && !file.Has(prefix + "attention.scale"))
    c.attention_scale = 1.0f / std::sqrt(static_cast<float>(c.dim / c.heads));
  c.logit_softcap =
      static_cast<float>(file.GetFloat(prefix + "final_logit_softcapping").value_or(0));
  c.local_rope.base =
      static_cast<float>(file.GetFloat(prefix + "rope.freq_base_swa").value_or(kLocalRopeBase));
  c.local_rope.scaling = RopeScaling::kNone;
  const uint64_t window = file.GetUint(prefix + "attention.sliding_window").value_or(0);
  const uint64_t pattern =
      file.GetUint(prefix + "attention.sliding_window_pattern").value_or(kPattern);
  if (window < 1 || window > c.trained_context || pattern < 1 || c.local_rope.base <= 0) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: sliding window {} (pattern {}) is outside 1 .. {}",
                                 file.path(), window, pattern, c.trained_context));
  }
  for (uint32_t l = 0; l < c.layers; ++l) {
    if ((l + 1) % pattern != 0) c.window[l] = static_cast<uint32_t>(window);
  }
  return std::unique_ptr<Model>(std::make_unique<Gemma3>(std::move(c)));
}

}  // namespace snug
