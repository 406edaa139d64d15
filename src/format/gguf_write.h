// Writes GGUF v3 (ggml, docs/gguf.md): a header from another model's metadata, changed where asked,
// then tensors row by row as they come.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "format/model_file.h"
#include "format/output_file.h"

namespace snug {

struct GgufTensorSpec {
  std::string name;
  DType type = DType::kF32;
  std::array<uint64_t, 4> dims{1, 1, 1, 1};
  int n_dims = 0;
  uint64_t bytes() const { return RowBytes(type, dims[0]) * dims[1] * dims[2] * dims[3]; }
};

// Collects the header: keys in the order they are added, then tensors.
class GgufHeader {
 public:
  void AddUint(std::string_view key, uint32_t value);
  void AddFloat(std::string_view key, float value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStrings(std::string_view key, const std::vector<std::string>& values);
  void AddInts(std::string_view key, const std::vector<int32_t>& values);
  void AddFloats(std::string_view key, const std::vector<float>& values);
  // A key of another model as it is there.
  Status Copy(const ModelFile& file, const std::string& key);
  void AddTensor(const GgufTensorSpec& spec);

  uint64_t tensors() const { return offsets_.size(); }
  // Where a tensor's data starts, from the start of the data.
  uint64_t offset(size_t tensor) const { return offsets_[tensor]; }
  uint64_t data_bytes() const { return data_bytes_; }
  // The header with the padding before the data.
  std::string Finish() const;

  static constexpr uint64_t kAlignment = 32;

 private:
  void Key(std::string_view key, GgufType type);
  void Text(std::string_view text);
  template <class T>
  void Put(std::string& to, T value);

  std::string keys_, infos_;
  uint64_t n_keys_ = 0, data_bytes_ = 0;
  std::vector<uint64_t> offsets_;
};

}  // namespace snug
