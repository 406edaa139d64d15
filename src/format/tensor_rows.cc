#include "format/tensor_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "format/quantize.h"

namespace snug {
namespace {

using Run = TensorSource::Run;

bool Contiguous(const Run& run, uint64_t element) { return run.col_step == element; }

// Reads file bytes [offset, offset + bytes) into the buffer and returns where they start in it.
// Direct reads need aligned positions, so they read a little more on both sides.
Result<uint8_t*> ReadAligned(const File& file, uint64_t offset, uint64_t bytes, uint8_t* buffer,
                             uint64_t* bytes_read) {
  const uint64_t first = file.direct() ? offset / kDirectAlign * kDirectAlign : offset;
  const uint64_t skip = offset - first;
  uint64_t want = skip + bytes;
  if (file.direct()) want = (want + kDirectAlign - 1) / kDirectAlign * kDirectAlign;
  uint64_t got = 0;
  SNUG_TRY(file.ReadAt(first, buffer, want, &got));
  if (got < skip + bytes) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: ends at {}, but a tensor reaches {}", file.path(),
                                 first + got, offset + bytes),
                     "the file was truncated; fetch it again", {{"path", file.path()}});
  }
  if (bytes_read != nullptr) *bytes_read += got;
  return buffer + skip;
}

uint8_t* AlignedUp(uint8_t* p) {
  return p + (kDirectAlign - reinterpret_cast<uintptr_t>(p) % kDirectAlign) % kDirectAlign;
}

// Reads rows [first, first + rows) of a run. They are left in *out, or, when *out is not null,
// moved there. What is at and behind `buffer` is free for use.
Status ReadRun(const File& file, const Run& run, uint64_t first, uint64_t rows, uint64_t cols,
               uint64_t element, uint64_t row_bytes, uint8_t* buffer, uint8_t** out,
               uint64_t* bytes_read) {
  const uint64_t at = run.offset + first * run.row_step;
  if (Contiguous(run, element)) {
    const uint64_t span = (rows - 1) * run.row_step + row_bytes;
    SNUG_ASSIGN(uint8_t * data, ReadAligned(file, at, span, AlignedUp(buffer), bytes_read));
    if (*out == nullptr) *out = data;
    if (run.row_step == row_bytes) {
      if (*out != data) std::memmove(*out, data, rows * row_bytes);
      return {};
    }
    for (uint64_t r = 0; r < rows; ++r)
      std::memmove(*out + r * row_bytes, data + r * run.row_step, row_bytes);
    return {};
  }
  // Values apart: read line by line along the shorter step and spread each line.
  if (*out == nullptr) *out = buffer;
  uint8_t* line = AlignedUp(*out + rows * row_bytes);
  const bool by_row = run.col_step <= run.row_step;
  const uint64_t lines = by_row ? rows : cols, values = by_row ? cols : rows;
  const uint64_t line_step = by_row ? run.row_step : run.col_step;
  const uint64_t value_step = by_row ? run.col_step : run.row_step;
  for (uint64_t l = 0; l < lines; ++l) {
    SNUG_ASSIGN(const uint8_t* data,
                ReadAligned(file, at + l * line_step, (values - 1) * value_step + element, line,
                            bytes_read));
    uint8_t* to = *out + (by_row ? l * row_bytes : l * element);
    const uint64_t to_step = by_row ? element : row_bytes;
    for (uint64_t v = 0; v < values; ++v)
      std::memcpy(to + v * to_step, data + v * value_step, element);
  }
  return {};
}

void Apply(TensorSource::Value value, float* x, uint64_t n) {
  switch (value) {
    case TensorSource::Value::kAsStored:
      return;
    case TensorSource::Value::kPlusOne:
      for (uint64_t i = 0; i < n; ++i) x[i] += 1.0f;
      return;
    case TensorSource::Value::kMinusExp:
      for (uint64_t i = 0; i < n; ++i) x[i] = -std::exp(x[i]);
      return;
  }
}

}  // namespace

DType StoredType(const TensorInfo& info) {
  return info.source == nullptr ? info.type : info.source->type;
}

uint64_t StoredRowBytes(const TensorInfo& info) { return RowBytes(StoredType(info), info.cols()); }

bool NeedsConversion(const TensorInfo& info) {
  return info.source != nullptr &&
         (info.source->type != info.type || info.source->value != TensorSource::Value::kAsStored);
}

uint64_t ReadBytesPerRow(const TensorInfo& info) {
  const uint64_t row = StoredRowBytes(info);
  if (info.source == nullptr) return row;
  uint64_t most = row;
  const uint64_t element = Info(info.source->type).bytes;
  for (const Run& run : info.source->runs)
    most = std::max(most, run.row_step + (Contiguous(run, element) ? 0 : row));
  return most;
}

Result<const uint8_t*> ReadRows(const std::vector<File>& files, const TensorInfo& info,
                                uint64_t first, uint64_t rows, uint8_t* buffer,
                                uint64_t* bytes_read) {
  assert(rows > 0 && first + rows <= info.rows());
  const uint64_t row = StoredRowBytes(info);
  if (info.source == nullptr) {
    SNUG_ASSIGN(const uint8_t* data, ReadAligned(files[info.file], info.offset + first * row,
                                                 rows * row, AlignedUp(buffer), bytes_read));
    return data;
  }
  const TensorSource& source = *info.source;
  if (!source.values.empty()) {
    std::memcpy(buffer, source.values.data() + first * info.cols(), rows * row);
    return static_cast<const uint8_t*>(buffer);
  }
  uint8_t* start = nullptr;
  uint64_t done = 0, skipped = 0;  // rows read; rows of the runs before
  for (const Run& run : source.runs) {
    if (first + done < skipped + run.rows) {
      const uint64_t at = first + done - skipped;
      const uint64_t n = std::min(rows - done, run.rows - at);
      uint8_t* out = start == nullptr ? nullptr : start + done * row;
      SNUG_TRY(ReadRun(files[run.file], run, at, n, info.cols(), Info(source.type).bytes, row,
                       out == nullptr ? buffer : out, &out, bytes_read));
      if (start == nullptr) start = out;
      done += n;
      if (done == rows) break;
    }
    skipped += run.rows;
  }
  assert(done == rows);
  return static_cast<const uint8_t*>(start);
}

void RowsToFloat(const TensorInfo& info, const uint8_t* stored, uint64_t rows, float* dst) {
  Dequantize(StoredType(info), stored, rows * info.cols(), dst);
  if (info.source != nullptr) Apply(info.source->value, dst, rows * info.cols());
}

void ConvertRows(const TensorInfo& info, const uint8_t* stored, uint64_t rows, float* scratch,
                 uint8_t* dst) {
  const uint64_t from = StoredRowBytes(info), to = RowBytes(info.type, info.cols());
  for (uint64_t r = 0; r < rows; ++r) {
    RowsToFloat(info, stored + r * from, 1, scratch);
    Quantize(info.type, scratch, info.cols(), nullptr, dst + r * to);
  }
}

uint64_t RowBufferBytes(const TensorInfo& info) {
  return ReadBytesPerRow(info) + kReadOverhead + RowBytes(info.type, info.cols());
}

Status ReadRow(const std::vector<File>& files, const TensorInfo& info, uint64_t row,
               std::vector<uint8_t>& buffer, float* dst) {
  assert(buffer.size() >= RowBufferBytes(info));
  SNUG_ASSIGN(const uint8_t* stored, ReadRows(files, info, row, 1, buffer.data(), nullptr));
  if (!NeedsConversion(info)) {
    Dequantize(info.type, stored, info.cols(), dst);
    return {};
  }
  uint8_t* typed = buffer.data() + buffer.size() - RowBytes(info.type, info.cols());
  ConvertRows(info, stored, 1, dst, typed);
  Dequantize(info.type, typed, info.cols(), dst);
  return {};
}

}  // namespace snug
