// A model on disk as the rest of the house sees it, whatever its format: metadata under GGUF's keys
// and tensors under GGUF's names (ggml, docs/gguf.md).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "format/dtype.h"

namespace snug {

// Types of metadata values, numbered as GGUF numbers them.
enum class GgufType : uint8_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// Where a tensor's values lie in its files when they are not simply its rows, one after another, in
// the type the tensor has. tensor_rows.h reads them.
struct TensorSource {
  // Rows of the tensor: value (r, c) lies at offset + r * row_step + c * col_step.
  struct Run {
    uint32_t file = 0;
    uint64_t offset = 0, rows = 0, row_step = 0, col_step = 0;  // in bytes
  };
  enum class Value : uint8_t { kAsStored, kPlusOne, kMinusExp };  // x, x + 1, -e^x

  DType type = DType::kF32;  // as stored; the tensor's own may differ
  Value value = Value::kAsStored;
  std::vector<Run> runs{};      // in the order of the tensor's rows
  std::vector<float> values{};  // or its float32 values themselves, where no file holds them
};

struct TensorInfo {
  std::string name;
  DType type = DType::kF32;
  std::array<uint64_t, 4> dims{1, 1, 1, 1};  // innermost first: dims[0] columns, dims[1] rows
  int n_dims = 0;
  uint32_t file = 0;                           // index of the file that holds it
  uint64_t offset = 0;                         // from the start of that file
  uint64_t bytes = 0;                          // as stored
  std::shared_ptr<const TensorSource> source;  // null: rows at `offset`
  uint64_t cols() const { return dims[0]; }
  uint64_t rows() const { return dims[1] * dims[2] * dims[3]; }
};

struct GgufArray {
  GgufType element = GgufType::kU8;
  uint64_t count = 0;
  uint64_t offset = 0;  // of the first element, where the array was left in a file
  uint64_t bytes = 0;   // of all elements; a string takes 8 more than its text
};

class ModelFile {
 public:
  // Opens a model by its path: a GGUF file, the first of a split set, or a Hugging Face folder.
  // Errors: kBadFile / kIo naming file, field, values.
  static Result<std::unique_ptr<ModelFile>> Open(const std::string& path);
  virtual ~ModelFile() = default;

  const std::string& path() const { return path_; }
  virtual std::string format() const = 0;  // for people: "GGUF v3"
  uint64_t file_bytes() const;             // of all files that hold tensors
  const std::vector<std::string>& paths() const { return paths_; }
  const std::vector<File>& files() const { return files_; }  // open, in the order of paths()
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* Find(std::string_view name) const;

  // Metadata. Get* of a missing key is nullopt; a key of a wrong type is nullopt too, except that
  // integer widths convert where the value fits. Need* turns absence into kBadFile naming the key.
  bool Has(std::string_view key) const;
  std::optional<uint64_t> GetUint(std::string_view key) const;
  std::optional<int64_t> GetInt(std::string_view key) const;
  std::optional<double> GetFloat(std::string_view key) const;
  std::optional<bool> GetBool(std::string_view key) const;
  std::optional<std::string> GetString(std::string_view key) const;
  Result<uint64_t> NeedUint(std::string_view key) const;
  Result<double> NeedFloat(std::string_view key) const;
  Result<std::string> NeedString(std::string_view key) const;
  const GgufArray* GetArray(std::string_view key) const;
  // A value as it is kept.
  struct Value {
    GgufType type = GgufType::kU8;
    uint64_t bits = 0;  // integers (sign-extended), bools, the bit pattern of a double for floats
    std::string text;   // strings
    GgufArray array;    // arrays
  };
  const Value* GetValue(std::string_view key) const;
  const std::vector<std::string>& keys() const { return key_order_; }  // in file order
  // Calls fn(index, text) for each string in bounded memory (64 KiB and the longest string).
  // kBadFile when the key is no array of strings.
  virtual Status ForEachString(std::string_view key,
                               const std::function<void(uint64_t, std::string_view)>& fn) const = 0;
  // Reads a numeric array converted to T (float, int32_t) into dst[count].
  virtual Status ReadArray(std::string_view key, float* dst) const = 0;
  virtual Status ReadArray(std::string_view key, int32_t* dst) const = 0;
  // Reads an array's elements as GGUF stores them, into dst[GgufArray::bytes].
  virtual Status ReadArrayBytes(std::string_view key, uint8_t* dst) const = 0;
  // Gives every tensor the type that `type_of` says: what is read of it is then encoded anew. Only
  // for types that Quantize encodes, where the tensor's rows are whole blocks.
  void Retype(const std::function<DType(const TensorInfo&)>& type_of);

  // Every key with its type name and value as text (long strings and arrays shortened), in file
  // order.
  struct KeyText {
    std::string key, type, value;
  };
  std::vector<KeyText> Describe(size_t max_chars = 120) const;

  // Where the vocabulary lies in a file of its own instead of in tokenizer.ggml.* arrays: the paths
  // of Hugging Face's tokenizer.json, and of a SentencePiece model. The ids and flags of special
  // tokens are metadata in any case.
  const std::optional<std::string>& tokenizer_json() const { return tokenizer_json_; }
  const std::optional<std::string>& tokenizer_model() const { return tokenizer_model_; }
  // There, the text of a special token ("bos", "eos", "unknown", "padding"), where it is known.
  std::optional<std::string> SpecialText(std::string_view name) const {
    const auto it = special_texts_.find(name);
    return it == special_texts_.end() ? std::nullopt : std::optional(it->second);
  }

 protected:
  ModelFile() = default;
  ModelFile(ModelFile&&) = default;
  ModelFile& operator=(ModelFile&&) = default;
  // False when the key exists already.
  bool AddValue(const std::string& key, Value value);
  bool AddTensor(TensorInfo tensor);
  // The error of an absent or mistyped key.
  Error Missing(std::string_view key, const char* kind) const;

  std::string path_;
  std::vector<std::string> paths_;
  std::vector<File> files_;
  std::vector<TensorInfo> tensors_;
  std::optional<std::string> tokenizer_json_, tokenizer_model_;
  std::map<std::string, std::string, std::less<>> special_texts_;

 private:
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, Value, std::less<>> values_;
  std::vector<std::string> key_order_;
};

// Bytes of a scalar of that type, 0 for strings and arrays.
uint32_t GgufScalarBytes(GgufType type);
const char* GgufTypeName(GgufType type);

}  // namespace snug
