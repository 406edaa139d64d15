// gpt-oss (OpenAI 2025): a sliding window in every other layer, a learned sink beside the keys of
// each head, biases throughout, YaRN, and a mixture of experts with a clamped SwiGLU, weighed by a
// softmax over the chosen ones.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

constexpr uint32_t kGptOssWindow = 128;
constexpr uint32_t kGptOssPattern = 2;  // every second layer attends to everything

class GptOss final : public Model {
 public:
  explicit GptOss(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t /*layer*/) const override {
    const ModelConfig& c = config_;
    // The norm ahead of the experts goes by the name of one behind attention.
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
                  Vector(Role::kSinks, "attn_sinks.weight", c.heads),
                  Vector(Role::kFfnNorm, "post_attention_norm.weight", c.dim)},
                 AttentionTensors(c),
                 ExpertTensors(c)});
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Norm(w.vec(Role::kAttnNorm));
    b.ProjectQkv(w);
    b.RotateAndStore(layer, w);
    b.Attend(layer, w.vec(Role::kSinks));
    b.ProjectOut(w);
    b.AddResidual(nullptr);

    b.Norm(w.vec(Role::kFfnNorm));
    b.RoutedFfn(layer, w);
    b.AddResidual(nullptr);
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenGptOss(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.activation = Activation::kClampedSwiglu;
  c.router.normalize = true;
  c.rope.truncate = file.GetBool(c.arch + ".rope.scaling.yarn_truncate").value_or(false);
  c.local_rope = c.rope;
  SNUG_TRY(ReadExperts(file, &c));
  SNUG_TRY(ReadWindows(file, kGptOssWindow, kGptOssPattern, &c));
  return std::unique_ptr<Model>(std::make_unique<GptOss>(std::move(c)));
}

}  // namespace snug
