// A model: its hyper-parameters, its tensors by role, and its layer graph. One file per
// architecture implements it over the shared blocks (blocks.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "format/model_file.h"
#include "kernel/matmul.h"
#include "model/config.h"
#include "weights/layout.h"

namespace snug {

class Blocks;

// The roles tensors play in a layer.
enum class Role : uint8_t {
  kAttnNorm,
  kQ,
  kK,
  kV,
  kQBias,
  kKBias,
  kVBias,
  kQNorm,
  kKNorm,
  kO,
  kPostAttnNorm,
  kFfnNorm,
  kGate,
  kUp,
  kDown,
  kPostFfnNorm,
};
inline constexpr size_t kRoles = 16;

// A tensor of a layer: its role, its GGUF name after "blk.N.", and its shape.
struct LayerTensor {
  Role role;
  std::string_view name;
  uint32_t rows = 0, cols = 0;  // a vector has rows = 1
};

// One layer's weights as the graph sees them: views into the part that holds them.
struct LayerWeights {
  std::array<PackedMatrix, kRoles> matrix{};
  std::array<const float*, kRoles> vector{};
  const PackedMatrix& operator[](Role r) const { return matrix[static_cast<size_t>(r)]; }
  const float* vec(Role r) const { return vector[static_cast<size_t>(r)]; }
};

class Model {
 public:
  virtual ~Model() = default;
  // Picks the architecture by general.architecture and reads its hyper-parameters. kBadFile for
  // unknown architectures (naming those known) and inconsistent metadata.
  static Result<std::unique_ptr<Model>> Open(const ModelFile& file);
  static std::vector<std::string_view> Architectures();

  const ModelConfig& config() const { return config_; }
  // The tensors of a layer.
  virtual std::vector<LayerTensor> Tensors() const = 0;
  // One layer over the residual stream held by `b`.
  virtual void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const = 0;

 protected:
  ModelConfig config_;
};

// The layout of the model's weights in parts. kBadFile naming missing or misshapen tensors.
Result<WeightLayout> MakeLayout(const ModelFile& file, const Model& model);
// Views of the tensors of a layer's part at `base`.
LayerWeights ViewLayer(const Part& part, const uint8_t* base);

}  // namespace snug
