#include "format/fingerprint.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "format/tensor_rows.h"

namespace snug {

Result<std::string> WeightsFingerprint(const ModelFile& file) {
  uint64_t hash = 0;
  const auto add = [&](const void* data, size_t bytes) {
    hash = XXH3_64bits_withSeed(data, bytes, hash);
  };
  std::vector<uint8_t> buffer;
  std::vector<float> row;
  for (const TensorInfo& t : file.tensors()) {
    add(t.name.data(), t.name.size());
    add(t.dims.data(), sizeof(t.dims));
    if (t.rows() == 0 || t.cols() == 0) continue;
    buffer.resize(RowBufferBytes(t));
    row.resize(t.cols());
    for (const uint64_t r : {uint64_t{0}, t.rows() / 2, t.rows() - 1}) {
      SNUG_TRY(ReadRow(file.files(), t, r, buffer, row.data()));
      add(row.data(), row.size() * sizeof(float));
    }
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace snug
