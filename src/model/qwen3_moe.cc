// Qwen 3's mixtures of experts (Yang et al. 2025): its attention, and many small experts weighed by
// a softmax over the chosen ones.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Qwen3Moe final : public Model {
 public:
  explicit Qwen3Moe(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
                  Vector(Role::kFfnNorm, "ffn_norm.weight", c.dim),
                  Vector(Role::kQNorm, "attn_q_norm.weight", c.head_dim),
                  Vector(Role::kKNorm, "attn_k_norm.weight", c.head_dim)},
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

Result<std::unique_ptr<Model>> OpenQwen3Moe(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.router.normalize = true;
  SNUG_TRY(ReadExperts(file, &c));
  return std::unique_ptr<Model>(std::make_unique<Qwen3Moe>(std::move(c)));
}

}  // namespace snug
