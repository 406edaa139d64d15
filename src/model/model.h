// A model: its hyper-parameters, its tensors by role, and its layer graph. One file per
// architecture implements it over the shared blocks (blocks.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "format/model_file.h"
#include "model/config.h"
#include "model/tensors.h"
#include "weights/layout.h"

namespace snug {

class Blocks;

class Model {
 public:
  virtual ~Model() = default;
  // Picks the architecture by general.architecture and reads its hyper-parameters. kBadFile for
  // unknown architectures (naming those known) and inconsistent metadata.
  static Result<std::unique_ptr<Model>> Open(const ModelFile& file);
  static std::vector<std::string_view> Architectures();

  const ModelConfig& config() const { return config_; }
  // The tensors that belong to no layer, apart from embedding and head: by default the output norm,
  // and Llama 3's rotary divisors where the file has them.
  virtual LayerTensors Globals() const;
  virtual LayerTensors Tensors(uint32_t layer) const = 0;
  // What becomes of the token embeddings, in the residual stream, before the first layer.
  virtual void Input(Blocks& /*b*/, const LayerWeights& /*globals*/) const {}
  // One layer over the residual stream held by `b`.
  virtual void Layer(Blocks& b, uint32_t layer, const LayerWeights& w) const = 0;
  // Layer up to its queries, keys and values, rotated and stored; of layers that attend.
  virtual void Keys(Blocks& b, uint32_t layer, const LayerWeights& w) const;

 protected:
  ModelConfig config_;
};

// The layout of the model's weights in parts. kBadFile naming missing or misshapen tensors.
Result<WeightLayout> MakeLayout(const ModelFile& file, const Model& model);

}  // namespace snug
