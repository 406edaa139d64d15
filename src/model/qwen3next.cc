// Qwen3-Next (Qwen Team 2025): layers with the gated delta rule (Yang, Kautz and Hatamizadeh 2024)
// and every few one with gated attention, whose rotary embedding covers a part of each head; all
// have many small experts and a shared one with a gate of its own.
#include <fmt/format.h>

#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Qwen3Next final : public Model {
 public:
  explicit Qwen3Next(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t layer) const override {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
                  Vector(Role::kFfnNorm, "post_attention_norm.weight", c.dim)},
                 c.recurrent[layer] ? DeltaTensors() : GatedAttentionTensors(),
                 ExpertTensors(c),
                 SharedExpertTensors(c)});
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Norm(w.vec(Role::kAttnNorm));
    if (config_.recurrent[layer]) {
      b.ProjectDelta(w);  // q k v | z | beta and decay
      b.Convolve(layer, w, 0);
      b.DeltaRule(layer, w);  // norm(delta(q, k, v, beta, decay)) silu(z)
      b.ProjectMixed(w);
    } else {
      b.ProjectQkv(w);
      b.RotateAndStore(layer, w);
      b.Attend(layer);
      b.GateAttended();
      b.ProjectOut(w);
    }
    b.AddResidual(nullptr);

    b.Norm(w.vec(Role::kFfnNorm));
    b.RoutedFfn(layer, w);
    b.AddResidual(nullptr);
  }

 private:
  LayerTensors DeltaTensors() const {
    const ModelConfig& c = config_;
    const StateConfig& s = c.state;
    return {
        Matrix(Role::kSsmIn, "attn_qkv.weight", s.conv_channels(), c.dim),
        Matrix(Role::kSsmGate, "attn_gate.weight", s.inner, c.dim),
        Matrix(Role::kSsmGates, "ssm_ba.weight", s.heads * s.gates, c.dim),
        Values(Role::kConv, "ssm_conv1d.weight", s.conv_channels(), s.conv_width),
        Vector(Role::kSsmDtBias, "ssm_dt.bias", s.heads),
        Vector(Role::kSsmA, "ssm_a", s.heads),
        Vector(Role::kSsmNorm, "ssm_norm.weight", s.head_dim()),
        Matrix(Role::kSsmOut, "ssm_out.weight", c.dim, s.inner),
    };
  }

  LayerTensors GatedAttentionTensors() const {
    const ModelConfig& c = config_;
    return Join({{Vector(Role::kQNorm, "attn_q_norm.weight", c.head_dim),
                  Vector(Role::kKNorm, "attn_k_norm.weight", c.head_dim)},
                 AttentionTensors(c)});
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenQwen3Next(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCommonConfig(file));
  c.router.normalize = true;
  SNUG_TRY(ReadExperts(file, &c));
  SNUG_TRY(ReadSharedExpert(file, &c));
  c.attention_gate = true;
  SNUG_ASSIGN(c.state, ReadStateConfig(file, c.arch));
  SNUG_TRY(ReadStateHeads(file, c.arch, &c.state));
  c.state.gates = 2;
  SNUG_TRY(ReadRecurrentLayers(file, 4, &c));
  if (file.Find("blk.0.ssm_in.weight") != nullptr) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: tensor blk.0.ssm_in.weight joins queries, keys, values and gates, as an "
                    "early converter wrote them",
                    file.path()),
        "convert the model anew: its tensors are then attn_qkv and attn_gate",
        {{"tensor", "blk.0.ssm_in.weight"}});
  }
  return std::unique_ptr<Model>(std::make_unique<Qwen3Next>(std::move(c)));
}

}  // namespace snug
