// safetensors reader and writer (Hugging Face): a JSON header of names, types, shapes and offsets,
// then the bytes. The reader checks header length, overlaps, holes and ranges before it uses them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace snug {

struct SafetensorInfo {
  std::string name, dtype;         // "F32", "I32", "BF16", ...
  std::vector<uint64_t> shape;     // outermost first
  uint64_t offset = 0, bytes = 0;  // offset from the start of the file
};

// The texts of "__metadata__".
using SafetensorsMetadata = std::map<std::string, std::string, std::less<>>;

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> Open(const std::string& path);
  const std::vector<SafetensorInfo>& tensors() const { return tensors_; }
  const SafetensorsMetadata& metadata() const { return metadata_; }
  const SafetensorInfo* Find(std::string_view name) const;
  // Reads a whole tensor of that dtype; kBadFile names the tensor when dtype or name do not match.
  Result<std::vector<float>> ReadF32(std::string_view name) const;
  Result<std::vector<int32_t>> ReadI32(std::string_view name) const;
  const File& file() const { return file_; }

 private:
  File file_;
  std::vector<SafetensorInfo> tensors_;
  SafetensorsMetadata metadata_;
};

// Writes float32 tensors row by row as they come: the header needs only the shapes. The file
// appears under its name when Finish succeeds.
class SafetensorsWriter {
 public:
  struct Spec {
    std::string name;
    std::vector<uint64_t> shape;
  };
  static Result<SafetensorsWriter> Create(const std::string& path, const std::vector<Spec>& f32,
                                          const SafetensorsMetadata& metadata = {});
  SafetensorsWriter(SafetensorsWriter&& other) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter();                        // removes the unfinished file
  Status Append(const float* data, size_t n);  // tensors in the order of the specs
  Status Finish();

 private:
  SafetensorsWriter() = default;
  std::string path_, temp_;
  int fd_ = -1;
  uint64_t expected_ = 0, written_ = 0;
};

}  // namespace snug
