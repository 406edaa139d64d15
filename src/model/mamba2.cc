// Mamba-2 (Dao and Gu 2024): heads of channels with a scalar decay, B and C shared by the heads of
// a group, one projection for all, and a gated RMSNorm before the output.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Mamba2 final : public Model {
 public:
  explicit Mamba2(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t) const override {
    const ModelConfig& c = config_;
    const StateConfig& s = c.state;
    return {
        Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
        Matrix(Role::kSsmIn, "ssm_in.weight", s.projected(), c.dim),
        Values(Role::kConv, "ssm_conv1d.weight", s.conv_channels(), s.conv_width),
        Vector(Role::kConvBias, "ssm_conv1d.bias", s.conv_channels()),
        Vector(Role::kSsmDtBias, "ssm_dt.bias", s.heads),
        Values(Role::kSsmA, "ssm_a", s.heads, 1),
        Values(Role::kSsmD, "ssm_d", s.heads, 1),
        Values(Role::kSsmNorm, "ssm_norm.weight", s.groups, s.inner / s.groups),
        Matrix(Role::kSsmOut, "ssm_out.weight", c.dim, s.inner),
    };
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Norm(w.vec(Role::kAttnNorm));
    b.ProjectState(w);  // z | xBC | dt
    b.Convolve(layer, w, config_.state.inner);
    b.SsdScan(layer, w);  // norm(ssd(x, B, C, dt) silu(z))
    b.ProjectMixed(w);
    b.AddResidual(nullptr);
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenMamba2(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCoreConfig(file));
  SNUG_ASSIGN(c.state, ReadStateConfig(file, c.arch));
  SNUG_TRY(ReadStateHeads(file, c.arch, &c.state));
  c.state.gates = 1;
  c.recurrent.assign(c.layers, true);
  return std::unique_ptr<Model>(std::make_unique<Mamba2>(std::move(c)));
}

}  // namespace snug
