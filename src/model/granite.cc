// Granite 3 (IBM 2024): Llama's form with four multipliers (maximal update parametrisation, Yang et
// al. 2022): of the embedding, of what each block adds, of attention scores, and a divisor of the
// logits.
#include <fmt/format.h>

#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Granite final : public Model {
 public:
  explicit Granite(ModelConfig config) { config_ = std::move(config); }

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

Result<std::unique_ptr<Model>> OpenGranite(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.rope.interleaved = RotaryInterleaved(file, c.arch);
  c.local_rope = c.rope;
  SNUG_ASSIGN(c.embedding_scale, ReadFactor(file, c.arch + ".embedding_scale", 1));
  SNUG_ASSIGN(c.residual_scale, ReadFactor(file, c.arch + ".residual_scale", 1));
  SNUG_ASSIGN(const float divisor, ReadFactor(file, c.arch + ".logit_scale", 1));
  if (divisor == 0) {
    return MakeError(Code::kBadFile, fmt::format("{}: {}.logit_scale = 0", file.path(), c.arch));
  }
  c.logit_scale = 1 / divisor;
  return std::unique_ptr<Model>(std::make_unique<Granite>(std::move(c)));
}

}  // namespace snug
