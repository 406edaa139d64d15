// Mixtral (Jiang et al. 2024): Mistral with a mixture of experts in place of each feed-forward
// block; a softmax over the chosen experts weighs them. Its GGUF files call it "llama".
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Mixtral final : public Model {
 public:
  explicit Mixtral(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
                  Vector(Role::kFfnNorm, "ffn_norm.weight", c.dim)},
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

Result<std::unique_ptr<Model>> OpenMixtral(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.rope.interleaved = RotaryInterleaved(file, c.arch);
  c.local_rope = c.rope;
  c.router.normalize = true;
  SNUG_TRY(ReadExperts(file, &c));
  SNUG_TRY(ReadWindows(file, 0, 0, &c));
  return std::unique_ptr<Model>(std::make_unique<Mixtral>(std::move(c)));
}

}  // namespace snug
