// SmolLM 3 (Bakouch et al. 2025): Llama's form without rotary positions in every fourth layer
// (NoPE, Yang et al. 2025).
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

constexpr uint32_t kNoRopeInterval = 4;  // a fact of the family that its GGUF files leave out

class SmolLm3 final : public Model {
 public:
  explicit SmolLm3(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
                  Vector(Role::kFfnNorm, "ffn_norm.weight", c.dim)},
                 AttentionTensors(c),
                 GatedFfnTensors(c)});
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Norm(w.vec(Role::kAttnNorm));
    b.ProjectQkv(w);
    b.RotateAndStore(layer, w);
    b.Attend(layer);
    b.ProjectOut(w);
    b.AddResidual(nullptr);

    b.Norm(w.vec(Role::kFfnNorm));
    b.GatedFfn(w);
    b.AddResidual(nullptr);
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenSmolLm3(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.rope.interleaved = RotaryInterleaved(file, c.arch);
  c.local_rope = c.rope;
  c.no_rope.resize(c.layers);
  for (uint32_t l = 0; l < c.layers; ++l) c.no_rope[l] = (l + 1) % kNoRopeInterval == 0;
  return std::unique_ptr<Model>(std::make_unique<SmolLm3>(std::move(c)));
}

}  // namespace snug
