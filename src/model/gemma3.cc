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
constexpr uint32_t kGemma3Pattern = 6;  // every sixth layer attends to everything
constexpr float kLocalRopeBase = 10000;

class Gemma3 final : public Model {
 public:
  explicit Gemma3(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
                  Vector(Role::kQNorm, "attn_q_norm.weight", c.head_dim),
                  Vector(Role::kKNorm, "attn_k_norm.weight", c.head_dim),
                  Vector(Role::kPostAttnNorm, "post_attention_norm.weight", c.dim),
                  Vector(Role::kFfnNorm, "ffn_norm.weight", c.dim),
                  Vector(Role::kPostFfnNorm, "post_ffw_norm.weight", c.dim)},
                 AttentionTensors(c),
                 GatedFfnTensors(c)});
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
  if (c.layers == 62 && !file.Has(prefix + "attention.scale")) {
    const uint32_t scaled = c.dim / c.heads;
    c.attention_scale = 1.0f / std::sqrt(static_cast<float>(scaled));
  }
  SNUG_ASSIGN(c.logit_softcap, ReadFactor(file, prefix + "final_logit_softcapping", 0));
  c.local_rope.base =
      static_cast<float>(file.GetFloat(prefix + "rope.freq_base_swa").value_or(kLocalRopeBase));
  c.local_rope.scaling = RopeScaling::kNone;
  if (!std::isfinite(c.local_rope.base) || c.local_rope.base <= 0) {
    return MakeError(Code::kBadFile, fmt::format("{}: rotary base {} of the layers with a window",
                                                 file.path(), c.local_rope.base));
  }
  SNUG_TRY(file.NeedUint(prefix + "attention.sliding_window"));
  SNUG_TRY(ReadWindows(file, 0, kGemma3Pattern, &c));
  return std::unique_ptr<Model>(std::make_unique<Gemma3>(std::move(c)));
}

}  // namespace snug
