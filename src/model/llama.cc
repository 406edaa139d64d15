// Llama 2 and 3 (Touvron et al. 2023; Grattafiori et al. 2024), and what keeps their form: Mistral
// (Jiang et al. 2023), with a sliding window in every layer, and SmolLM 2. Grouped-query attention,
// RMSNorm before each block, SwiGLU; rotary scaling by YaRN or by Llama 3's per-frequency factors.
// GGUF permutes the rows of q and k so that rotary pairs are neighbours.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Llama final : public Model {
 public:
  explicit Llama(ModelConfig config) { config_ = std::move(config); }

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

Result<std::unique_ptr<Model>> OpenLlama(const ModelFile& file) {
  if (file.GetUint("llama.expert_count").value_or(0) != 0) return OpenMixtral(file);
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.rope.interleaved = RotaryInterleaved(file, c.arch);
  c.local_rope = c.rope;
  SNUG_TRY(ReadWindows(file, 0, 0, &c));
  return std::unique_ptr<Model>(std::make_unique<Llama>(std::move(c)));
}

}  // namespace snug
