// Llama 2 and 3 (Touvron et al. 2023; Grattafiori et al. 2024): grouped-query attention, RMSNorm
// before each block, SwiGLU; rotary scaling by YaRN or by Llama 3's per-frequency factors. GGUF
// permutes the rows of q and k so that rotary pairs are neighbours. Mistral (Jiang et al. 2023) is
// the same with a window in every layer.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Llama final : public Model {
 public:
  explicit Llama(ModelConfig config) { config_ = std::move(config); }

  std::vector<LayerTensor> Tensors() const override {
    const ModelConfig& c = config_;
    const uint32_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    return {
        {Role::kAttnNorm, "attn_norm.weight", 1, c.dim},
        {Role::kQ, "attn_q.weight", q, c.dim},
        {Role::kK, "attn_k.weight", kv, c.dim},
        {Role::kV, "attn_v.weight", kv, c.dim},
        {Role::kO, "attn_output.weight", c.dim, q},
        {Role::kFfnNorm, "ffn_norm.weight", 1, c.dim},
        {Role::kGate, "ffn_gate.weight", c.ffn, c.dim},
        {Role::kUp, "ffn_up.weight", c.ffn, c.dim},
        {Role::kDown, "ffn_down.weight", c.dim, c.ffn},
    };
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
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.rope.interleaved = RotaryInterleaved(file, c.arch);
  c.local_rope = c.rope;
  SNUG_TRY(ReadWindow(file, &c));
  return std::unique_ptr<Model>(std::make_unique<Llama>(std::move(c)));
}

}  // namespace snug
