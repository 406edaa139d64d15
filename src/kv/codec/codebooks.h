// Codebooks: for keys and values apart, 256 centroids of every sub-vector of a head's channels
// (kernel/product_codec.h). A model has a pair for each layer without a window, or one for all.
// Learnt once for a model (`snug calibrate --codebooks`, engine/codebook_training.h).
//
// The file is safetensors: float32 tensors "layers.<i>.keys" and "layers.<i>.values", or "keys" and
// "values" where one pair serves all layers, of [head_dim / dims, 256, dims]; "__metadata__" says
// what they were measured on. Values are f16's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "format/safetensors.h"
#include "kernel/product_codec.h"
#include "kv/measured_on.h"
#include "model/config.h"

namespace snug {

// What codebooks are of.
struct CodebookShape {
  uint32_t head_dim = 0, dims = 2;  // channels of a head, of a sub-vector
  bool global = false;              // one pair for all layers
  std::vector<uint32_t> layers;     // that are coded: with attention over all rows

  size_t pairs() const { return global ? 1 : layers.size(); }
  size_t book_floats() const { return size_t{head_dim} * kCentroids; }
  uint64_t bytes() const;  // that Allocate reserves
};
// The shape for a model's layers.
CodebookShape CodebookShapeOf(const ModelConfig& model, uint32_t dims, bool global);

class Codebooks {
 public:
  // All zeros.
  static Result<Codebooks> Allocate(const CodebookShape& shape, Owner owner, Ledger& ledger);
  const CodebookShape& shape() const { return shape_; }
  // Centroids [head_dim / dims][256][dims] of a pair.
  float* keys(size_t pair) { return buffer_.as<float>() + 2 * pair * shape_.book_floats(); }
  float* values(size_t pair) { return keys(pair) + shape_.book_floats(); }
  // Of one of the model's layers that are coded.
  ProductBooks OfLayer(uint32_t layer) const;

 private:
  CodebookShape shape_;
  Buffer buffer_;
};

// Errors: kIo.
Status WriteCodebooks(const std::string& path, Codebooks& books, const MeasuredOn& source);

// A file of codebooks whose shape has been read and found to fit a model.
class CodebookFile {
 public:
  // Errors: kIo, and kBadFile for what is no such file, has tensors of other types or shapes than
  // the model's heads have, or lacks a layer with attention over all rows.
  static Result<CodebookFile> Open(const std::string& path, const ModelConfig& model);
  const CodebookShape& shape() const { return shape_; }
  // kBadFile where they were measured on other weights or rotary settings.
  Status Check(const ModelConfig& model, const std::string& weights) const;
  // Reads the centroids into memory of Owner::kKv. Errors: kIo, kDoesNotFit, and kBadFile for
  // values that are not finite.
  Result<std::shared_ptr<const Codebooks>> Read(Ledger& ledger) const;

 private:
  CodebookFile() = default;
  Status ReadBook(const std::string& name, float* to) const;

  SafetensorsFile file_;
  CodebookShape shape_;
};

}  // namespace snug
