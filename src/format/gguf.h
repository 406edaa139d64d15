// GGUF v2/v3 reader (ggml, docs/gguf.md): metadata and tensor directory, of one file or of a split
// set "-00001-of-0000N.gguf". Hostile-input code: every count, length and offset is checked against
// the file before it is used. Arrays stay in the file and are read on demand, so an open file holds
// a few KiB plus its tensor directory.
#pragma once

#include "format/model_file.h"

namespace snug {

class GgufFile final : public ModelFile {
 public:
  // Opens `path` and, if it is one of a split set, its siblings. Errors: kBadFile / kIo naming
  // file, field, values. Unsupported tensor types are errors that name tensor and type.
  static Result<GgufFile> Open(const std::string& path);

  std::string format() const override { return "GGUF v" + std::to_string(version_); }
  uint32_t version() const { return version_; }
  Status ForEachString(std::string_view key,
                       const std::function<void(uint64_t, std::string_view)>& fn) const override;
  Status ReadArray(std::string_view key, float* dst) const override;
  Status ReadArray(std::string_view key, int32_t* dst) const override;
  Status ReadArrayBytes(std::string_view key, uint8_t* dst) const override;

 private:
  uint32_t version_ = 0;
  friend class GgufParser;
};

}  // namespace snug
