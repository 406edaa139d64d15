// GGUF v2/v3 reader (ggml, docs/gguf.md): metadata and tensor directory, of one file or of a split
// set
// "-00001-of-0000N.gguf". Hostile-input code: every count, length and offset is checked against the
// file before it is used. Arrays stay in the file and are read on demand, so an open file holds a
// few KiB plus its tensor directory.
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

struct TensorInfo {
  std::string name;
  DType type = DType::kF32;
  std::array<uint64_t, 4> dims{1, 1, 1, 1};  // innermost first: dims[0] columns, dims[1] rows
  int n_dims = 0;
  uint32_t file = 0;    // index of the split file
  uint64_t offset = 0;  // from the start of that file
  uint64_t bytes = 0;
  uint64_t cols() const { return dims[0]; }
  uint64_t rows() const { return dims[1] * dims[2] * dims[3]; }
};

struct GgufArray {  // an array left in the file
  GgufType element = GgufType::kU8;
  uint64_t count = 0;
  uint64_t offset = 0;  // of the first element
  uint64_t bytes = 0;   // of all elements
};

class GgufFile {
 public:
  // Opens `path` and, if it is one of a split set, its siblings. Errors: kBadFile / kIo naming
  // file, field, values. Unsupported tensor types are errors that name tensor and type.
  static Result<GgufFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  uint64_t file_bytes() const;  // of all splits
  const std::vector<std::string>& paths() const { return paths_; }
  const File& file(uint32_t i) const { return files_[i]; }
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
  // Calls fn(index, text) for each string, reading through a bounded buffer (64 KiB and the longest
  // string). kBadFile when the key is no array of strings.
  Status ForEachString(std::string_view key,
                       const std::function<void(uint64_t, std::string_view)>& fn) const;
  // Reads a numeric array converted to T (float, int32_t, uint32_t) into dst[count].
  Status ReadArray(std::string_view key, float* dst) const;
  Status ReadArray(std::string_view key, int32_t* dst) const;
  // Every key with its type name and value as text (long strings and arrays shortened), in file
  // order.
  struct KeyText {
    std::string key, type, value;
  };
  std::vector<KeyText> Describe(size_t max_chars = 120) const;

 private:
  struct Value;
  std::string path_;
  uint32_t version_ = 0;
  std::vector<std::string> paths_;
  std::vector<File> files_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, std::shared_ptr<const Value>, std::less<>> values_;
  std::vector<std::string> key_order_;
  friend class GgufParser;
};

}  // namespace snug
