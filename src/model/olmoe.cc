// OLMoE (Muennighoff et al. 2024): RMSNorm of queries and keys over all heads at once, and a
// mixture of experts weighed by a softmax over all of them.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Olmoe final : public Model {
 public:
  explicit Olmoe(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
                  Vector(Role::kFfnNorm, "ffn_norm.weight", c.dim),
                  Vector(Role::kQNorm, "attn_q_norm.weight", c.heads * c.head_dim),
                  Vector(Role::kKNorm, "attn_k_norm.weight", c.kv_heads * c.head_dim)},
                 AttentionTensors(c),
                 ExpertTensors(c)});
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Norm(w.vec(Role::kAttnNorm));
    b.ProjectQkv(w);
    b.RotateAndStore(layer, w);
    b.Attend(layer);
    b.ProjectOut(w);
    b.AddResidual(nullptr);

    b.Norm(w.vec(Role::kFfnNorm));
    b.RoutedFfn(layer, w);
    b.AddResidual(nullptr);
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenOlmoe(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.joint_head_norm = true;
  SNUG_TRY(ReadExperts(file, &c));
  return std::unique_ptr<Model>(std::make_unique<Olmoe>(std::move(c)));
}

}  // namespace snug
