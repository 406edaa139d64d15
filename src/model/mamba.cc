// Mamba (Gu and Dao 2023) and Falcon Mamba (Zuo et al. 2024): layers of one block, a gated
// convolution and a selective scan; no attention, no feed-forward.
#include "model/blocks.h"
#include "model/metadata.h"
#include "model/registry.h"

namespace snug {
namespace {

class Mamba final : public Model {
 public:
  explicit Mamba(ModelConfig config) { config_ = std::move(config); }

  LayerTensors Tensors(uint32_t) const override {
    const ModelConfig& c = config_;
    const StateConfig& s = c.state;
    return {
        Vector(Role::kAttnNorm, "attn_norm.weight", c.dim),
        Matrix(Role::kSsmIn, "ssm_in.weight", 2 * s.inner, c.dim),
        Values(Role::kConv, "ssm_conv1d.weight", s.inner, s.conv_width),
        Vector(Role::kConvBias, "ssm_conv1d.bias", s.inner),
        Matrix(Role::kSsmX, "ssm_x.weight", s.dt_rank + 2 * s.size, s.inner),
        Matrix(Role::kSsmDt, "ssm_dt.weight", s.inner, s.dt_rank),
        Vector(Role::kSsmDtBias, "ssm_dt.bias", s.inner),
        Values(Role::kSsmA, "ssm_a", s.inner, s.size),
        Vector(Role::kSsmD, "ssm_d", s.inner),
        Matrix(Role::kSsmOut, "ssm_out.weight", c.dim, s.inner),
    };
  }

  void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const override {
    b.Norm(w.vec(Role::kAttnNorm));
    b.ProjectState(w);          // x | z
    b.Convolve(layer, w, 0);    // x
    b.SelectiveScan(layer, w);  // dt, B, C of x; y = ssm(x) silu(z)
    b.ProjectMixed(w);
    b.AddResidual(nullptr);
  }
};

}  // namespace

Result<std::unique_ptr<Model>> OpenMamba(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCoreConfig(file));
  SNUG_ASSIGN(c.state, ReadStateConfig(file, c.arch));
  SNUG_ASSIGN(c.state.dt_rank, ReadBounded(file, c.arch + ".ssm.time_step_rank", c.state.inner));
  c.state.norm_steps = file.GetBool(c.arch + ".ssm.dt_b_c_rms").value_or(false);
  c.recurrent.assign(c.layers, true);
  return std::unique_ptr<Model>(std::make_unique<Mamba>(std::move(c)));
}

}  // namespace snug
