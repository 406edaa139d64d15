// Rows of a stored tensor, wherever and in whatever type its file keeps them: reading gives rows as
// stored, one after another; converting gives them the tensor's type.
#pragma once

#include <cstdint>
#include <vector>

#include "format/model_file.h"

namespace snug {

// The type in which a tensor's file keeps its values.
DType StoredType(const TensorInfo& info);
// Bytes of one row as ReadRows gives it.
uint64_t StoredRowBytes(const TensorInfo& info);
// Whether rows as stored are not yet what the tensor's type says.
bool NeedsConversion(const TensorInfo& info);

// Bytes of the buffer that reading takes: a number for each row and one for each call.
uint64_t ReadBytesPerRow(const TensorInfo& info);
inline constexpr uint64_t kReadOverhead = 4 * kDirectAlign;
// Reads rows [first, first + rows) into `buffer`, aligned to kDirectAlign and of
// rows * ReadBytesPerRow + kReadOverhead bytes, and returns where in it they start. `files` are the
// model's, perhaps open for direct reads. Adds what was read to *bytes_read, which may be null.
// Errors: kIo, kBadFile naming file and offset.
Result<const uint8_t*> ReadRows(const std::vector<File>& files, const TensorInfo& info,
                                uint64_t first, uint64_t rows, uint8_t* buffer,
                                uint64_t* bytes_read);

// Float32 values of `rows` rows as stored, dst [rows, cols].
void RowsToFloat(const TensorInfo& info, const uint8_t* stored, uint64_t rows, float* dst);
// The same rows in the tensor's type, where NeedsConversion. `scratch` holds a row of float32.
void ConvertRows(const TensorInfo& info, const uint8_t* stored, uint64_t rows, float* scratch,
                 uint8_t* dst);

// Reads one row as float32 values of the tensor's type, through a buffer of RowBufferBytes.
uint64_t RowBufferBytes(const TensorInfo& info);
Status ReadRow(const std::vector<File>& files, const TensorInfo& info, uint64_t row,
               std::vector<uint8_t>& buffer, float* dst);

}  // namespace snug
