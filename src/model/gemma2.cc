// Gemma 2 (Gemma Team 2024): a sliding window in every other layer, soft caps on attention scores
// and logits, norms before and after each block, GELU-gated feed-forward, embeddings scaled by
// sqrt(dim). The head is the embedding.
#include <cmath>

#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

// Facts of the family that older GGUF files leave out.
constexpr uint32_t kGemma2Window = 4096;
constexpr uint32_t kGemma2Pattern = 2;  // every second layer attends to everything
constexpr float kAttentionCap = 50, kLogitCap = 30;

class Gemma2 final : public Model {
 public:
  explicit Gemma2(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
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

Result<std::unique_ptr<Model>> OpenGemma2(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.activation = Activation::kGeluTanh;
  c.embedding_scale = std::sqrt(static_cast<float>(c.dim));
  // Files of the 27B model scale queries by dim / heads instead of head_dim.
  if (c.layers == 46 && !file.Has(c.arch + ".attention.scale")) {
    c.attention_scale = 1.0f / std::sqrt(static_cast<float>(c.dim / c.heads));
  }
  SNUG_ASSIGN(c.attention_softcap,
              ReadFactor(file, c.arch + ".attn_logit_softcapping", kAttentionCap));
  SNUG_ASSIGN(c.logit_softcap, ReadFactor(file, c.arch + ".final_logit_softcapping", kLogitCap));
  SNUG_TRY(ReadWindows(file, kGemma2Window, kGemma2Pattern, &c));
  return std::unique_ptr<Model>(std::make_unique<Gemma2>(std::move(c)));
}

}  // namespace snug
