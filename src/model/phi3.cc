// Phi 3 and 3.5, Phi 4 mini (Abdin et al. 2024): Llama's form with q, k, v in one matrix and gate
// and up in another; LongRoPE (Ding et al. 2024) divides rotary frequencies by one list of factors
// for contexts up to the original length and by another beyond.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Phi3 final : public Model {
 public:
  explicit Phi3(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Globals() const override {
    const uint32_t pairs = config_.rope.dim / 2;
    return {Vector(Role::kOutputNorm, "output_norm.weight", config_.dim),
            Optional(Vector(Role::kRopeDivisors, "rope_factors_short.weight", pairs)),
            Optional(Vector(Role::kLongRopeDivisors, "rope_factors_long.weight", pairs))};
  }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    const uint32_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    return {
        Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
        Vector(Role::kFfnNorm, "ffn_norm.weight", c.dim),
        Slice(Role::kQ, "attn_qkv.weight", 0, q, q + 2 * kv, c.dim),
        Slice(Role::kK, "attn_qkv.weight", q, kv, q + 2 * kv, c.dim),
        Slice(Role::kV, "attn_qkv.weight", q + kv, kv, q + 2 * kv, c.dim),
        Matrix(Role::kO, "attn_output.weight", c.dim, q),
        Slice(Role::kGate, "ffn_up.weight", 0, c.ffn, 2 * c.ffn, c.dim),
        Slice(Role::kUp, "ffn_up.weight", c.ffn, c.ffn, 2 * c.ffn, c.dim),
        Matrix(Role::kDown, "ffn_down.weight", c.dim, c.ffn),
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

Result<std::unique_ptr<Model>> OpenPhi3(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  SNUG_ASSIGN(c.rope.attention_factor,
              ReadFactor(file, c.arch + ".rope.scaling.attn_factor", c.rope.attention_factor));
  SNUG_ASSIGN(
      c.rope.original_context,
      ReadFactor(file, c.arch + ".rope.scaling.original_context_length", c.rope.original_context));
  c.local_rope = c.rope;
  SNUG_TRY(ReadWindows(file, 0, 0, &c));
  return std::unique_ptr<Model>(std::make_unique<Phi3>(std::move(c)));
}

}  // namespace snug
