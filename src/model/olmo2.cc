// OLMo 2 (OLMo Team 2024): no norm before a block but one after it, ahead of the residual sum, and
// RMSNorm of queries and keys over all heads at once; SwiGLU.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Olmo2 final : public Model {
 public:
  explicit Olmo2(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kQNorm, "attn_q_norm.weight", c.heads * c.head_dim),
                  Vector(Role::kKNorm, "attn_k_norm.weight", c.kv_heads * c.head_dim),
                  Vector(Role::kPostAttnNorm, "post_attention_norm.weight", c.dim),
                  Vector(Role::kPostFfnNorm, "post_ffw_norm.weight", c.dim)},
                 AttentionTensors(c),
                 GatedFfnTensors(c)});
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    Keys(b, layer, w);
    b.Attend(layer);
    b.ProjectOut(w);
    b.AddResidual(w.vec(Role::kPostAttnNorm));

    b.Plain();
    b.GatedFfn(w);
    b.AddResidual(w.vec(Role::kPostFfnNorm));
  }
  void Keys(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Plain();
    b.ProjectQkv(w);
    b.RotateAndStore(layer, w);
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenOlmo2(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.joint_head_norm = true;
  return std::unique_ptr<Model>(std::make_unique<Olmo2>(std::move(c)));
}

}  // namespace snug
