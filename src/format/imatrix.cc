#include "format/imatrix.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/file.h"
#include "format/gguf.h"
#include "format/gguf_write.h"
#include "format/tensor_rows.h"

namespace snug {
namespace {

constexpr char kType[] = "general.type", kImatrix[] = "imatrix";
constexpr char kDatasets[] = "imatrix.datasets", kChunks[] = "imatrix.chunk_count",
               kChunkSize[] = "imatrix.chunk_size";
constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";

Error Bad(const std::string& path, const std::string& message) {
  return MakeError(Code::kBadFile, fmt::format("{}: {}", path, message),
                   "make one with snug calibrate, or with llama-imatrix as GGUF", {{"path", path}});
}

Result<std::vector<float>> Values(const GgufFile& file, const TensorInfo& t) {
  if (t.type != DType::kF32)
    return Bad(file.path(), fmt::format("{} is {}, expected F32", t.name, Info(t.type).name));
  std::vector<float> values(t.bytes / sizeof(float));
  SNUG_TRY(file.files()[t.file].ReadAt(t.offset, values.data(), t.bytes));
  for (const float v : values)
    if (!std::isfinite(v) || v < 0) return Bad(file.path(), fmt::format("{} holds {}", t.name, v));
  return values;
}

}  // namespace

Result<Imatrix> ReadImatrix(const std::string& path) {
  SNUG_ASSIGN(const GgufFile file, GgufFile::Open(path));
  if (file.GetString(kType) != kImatrix) return Bad(path, "is no importance matrix");
  Imatrix m;
  m.chunks = static_cast<uint32_t>(file.GetUint(kChunks).value_or(0));
  m.chunk_size = static_cast<uint32_t>(file.GetUint(kChunkSize).value_or(0));
  if (file.GetArray(kDatasets) != nullptr) {
    SNUG_TRY(file.ForEachString(
        kDatasets, [&](uint64_t, std::string_view text) { m.datasets.emplace_back(text); }));
  }
  for (const TensorInfo& t : file.tensors()) {
    if (!t.name.ends_with(kSums)) continue;
    const std::string name = t.name.substr(0, t.name.size() - kSums.size());
    const TensorInfo* counts = file.Find(name + std::string(kCounts));
    if (counts == nullptr || counts->cols() * counts->rows() != t.rows())
      return Bad(path, fmt::format("{} has no counts that go with it", t.name));
    ImatrixEntry entry;
    SNUG_ASSIGN(entry.sums, Values(file, t));
    SNUG_ASSIGN(entry.counts, Values(file, *counts));
    m.entries.emplace(name, std::move(entry));
  }
  if (m.entries.empty()) return Bad(path, "holds no matrix");
  return m;
}

Status WriteImatrix(const std::string& path, const Imatrix& m) {
  GgufHeader header;
  header.AddString(kType, kImatrix);
  header.AddStrings(kDatasets, m.datasets);
  header.AddUint(kChunks, m.chunks);
  header.AddUint(kChunkSize, m.chunk_size);
  for (const auto& [name, e] : m.entries) {
    const uint64_t experts = e.counts.size();
    header.AddTensor(
        {name + std::string(kSums), DType::kF32, {e.sums.size() / experts, experts, 1, 1}, 2});
    header.AddTensor({name + std::string(kCounts), DType::kF32, {1, experts, 1, 1}, 2});
  }
  std::string bytes = header.Finish();
  const auto append = [&](const std::vector<float>& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    bytes.resize((bytes.size() + GgufHeader::kAlignment - 1) / GgufHeader::kAlignment *
                 GgufHeader::kAlignment);
  };
  for (const auto& [name, e] : m.entries) {
    append(e.sums);
    append(e.counts);
  }
  return WriteFileAtomically(path, bytes.data(), bytes.size());
}

Importance ImportanceOf(const Imatrix& m) {
  Importance importance;
  for (const auto& [name, e] : m.entries) {
    std::vector<float> means = e.sums;
    const size_t cols = means.size() / e.counts.size();
    for (size_t i = 0; i < means.size(); ++i) {
      const float count = e.counts[i / cols];
      means[i] = count > 0 ? means[i] / count : 0;
    }
    importance.emplace(name, std::move(means));
  }
  return importance;
}

uint64_t BytesOf(const Imatrix& m) {
  uint64_t bytes = 0;
  for (const auto& [name, e] : m.entries)
    bytes += (e.sums.size() + e.counts.size()) * sizeof(float) + name.size();
  return bytes;
}

}  // namespace snug
