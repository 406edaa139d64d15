// A Hugging Face folder as a model file: config.json, safetensors in one file or in shards, the
// tokenizer's files. Its hyper-parameters appear under GGUF's keys and its tensors under GGUF's
// names; hf_architectures.cc says which is which. Weights stay as the folder has them (F32, F16,
// BF16): where GGUF's converter would move rows or change values, TensorSource says how to read
// them. Hostile-input code.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "format/model_file.h"

namespace snug {

class HfFolder final : public ModelFile {
 public:
  // Errors: kBadFile / kIo naming the file, and the key or tensor.
  static Result<HfFolder> Open(const std::string& path);

  std::string format() const override { return "Hugging Face folder"; }
  Status ForEachString(std::string_view key,
                       const std::function<void(uint64_t, std::string_view)>& fn) const override;
  Status ReadArray(std::string_view key, float* dst) const override;
  Status ReadArray(std::string_view key, int32_t* dst) const override;
  Status ReadArrayBytes(std::string_view key, uint8_t* dst) const override;

  // --- for the parts of the reader, while the folder is being opened. A key that is set already
  // keeps its value.
  void SetUint(const std::string& key, uint64_t value);
  void SetFloat(const std::string& key, double value);
  void SetBool(const std::string& key, bool value);
  void SetString(const std::string& key, std::string value);
  void SetStrings(const std::string& key, std::vector<std::string> values);
  void SetInts(const std::string& key, std::vector<int32_t> values);
  // A tensor that no file holds: float32 values computed from the configuration.
  void AddComputed(const std::string& name, std::vector<float> values);
  Status Add(TensorInfo tensor);  // kBadFile where two have one name
  uint32_t AddFile(const std::string& path, File file);
  void SetTokenizer(std::optional<std::string> json, std::optional<std::string> model);
  void SetSpecialText(const std::string& name, std::string text);
  // "FOLDER/file: message", kBadFile.
  Error Bad(std::string_view file, const std::string& message, std::string next = {}) const;

 private:
  using ArrayValues = std::variant<std::vector<std::string>, std::vector<int32_t>>;
  void SetArray(const std::string& key, GgufArray array, ArrayValues values);

  std::map<std::string, ArrayValues, std::less<>> arrays_;
};

}  // namespace snug
