// BERT (Devlin et al. 2019), an encoder: learned positions and token types beside the tokens,
// attention over the whole text, LayerNorm after each sum, GELU, and biases throughout.
#include <fmt/format.h>

#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Bert final : public Model {
 public:
  explicit Bert(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Globals() const override {
    const ModelConfig& c = config_;
    return {
        Values(Role::kPositions, "position_embd.weight", c.trained_context, c.dim),
        Values(Role::kTokenTypes, "token_types.weight", c.token_types, c.dim),
        Vector(Role::kInputNorm, "token_embd_norm.weight", c.dim),
        Vector(Role::kInputNormBias, "token_embd_norm.bias", c.dim),
    };
  }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    return Join({AttentionTensors(c),
                 {
                     Vector(Role::kPostAttnNorm, "attn_output_norm.weight", c.dim),
                     Vector(Role::kPostAttnNormBias, "attn_output_norm.bias", c.dim),
                     Matrix(Role::kUp, "ffn_up.weight", c.ffn, c.dim),
                     Vector(Role::kUpBias, "ffn_up.bias", c.ffn),
                     Matrix(Role::kDown, "ffn_down.weight", c.dim, c.ffn),
                     Vector(Role::kDownBias, "ffn_down.bias", c.dim),
                     Vector(Role::kPostFfnNorm, "layer_output_norm.weight", c.dim),
                     Vector(Role::kPostFfnNormBias, "layer_output_norm.bias", c.dim),
                 }});
  }

  void Input(Blocks& b, const LayerWeights& globals) const override { b.EmbedPositions(globals); }

  void Layer(Blocks& b, uint32_t /*layer*/, const LayerWeights& w) const override {
    // An encoder's cache holds one layer at a time.
    b.ProjectQkv(w);
    b.RotateAndStore(0, w);
    b.Attend(0);
    b.ProjectOut(w);
    b.AddNorm(w.vec(Role::kPostAttnNorm), w.vec(Role::kPostAttnNormBias));

    b.Ffn(w);
    b.AddNorm(w.vec(Role::kPostFfnNorm), w.vec(Role::kPostFfnNormBias));
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenBert(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  const std::string prefix = c.arch + ".";
  c.encoder = true;
  c.tied = false;
  c.rope = c.local_rope = RopeConfig{};  // positions are learned
  const double eps = file.GetFloat(prefix + "attention.layer_norm_epsilon").value_or(1e-12);
  const bool causal = file.GetBool(prefix + "attention.causal").value_or(false);
  const TensorInfo* types = file.Find("token_types.weight");
  c.token_types = types == nullptr ? 1 : static_cast<uint32_t>(types->rows());
  // As ggml numbers kinds of pooling; 0 leaves the choice to the user.
  const uint64_t pooling = file.GetUint(prefix + "pooling_type").value_or(0);
  if (causal || !(eps > 0) || pooling > 2) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: attention.causal = {}, attention.layer_norm_epsilon = {} and "
                                 "pooling_type = {} are not a BERT's",
                                 file.path(), causal, eps, pooling),
                     "supported: bidirectional encoders with mean (1) or first-token (2) pooling");
  }
  c.eps = static_cast<float>(eps);
  c.pooling = pooling == 2 ? Pooling::kCls : Pooling::kMean;
  c.normalize = file.GetBool(prefix + "normalize_embeddings").value_or(false);
  return std::unique_ptr<Model>(std::make_unique<Bert>(std::move(c)));
}

}  // namespace snug
