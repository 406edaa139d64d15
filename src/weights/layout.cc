#include "weights/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace snug {
namespace {

// Reads file bytes [offset, offset + bytes) into the bounce buffer and returns where they start in
// it. Direct reads need aligned positions, so they read a little more on both sides.
Result<const uint8_t*> ReadAligned(const File& file, uint64_t offset, uint64_t bytes,
                                   uint8_t* bounce, uint64_t* bytes_read) {
  const uint64_t first = file.direct() ? offset / kDirectAlign * kDirectAlign : offset;
  const uint64_t skip = offset - first;
  uint64_t want = skip + bytes;
  if (file.direct()) want = (want + kDirectAlign - 1) / kDirectAlign * kDirectAlign;
  uint64_t got = 0;
  SNUG_TRY(file.ReadAt(first, bounce, want, &got));
  if (got < skip + bytes) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: ends at {}, but a tensor reaches {}", file.path(),
                                 first + got, offset + bytes),
                     "the file was truncated; fetch it again", {{"path", file.path()}});
  }
  if (bytes_read != nullptr) *bytes_read += got;
  return bounce + skip;
}

}  // namespace

uint64_t WeightLayout::total_bytes() const {
  uint64_t bytes = 0;
  for (const Part& p : parts) bytes += p.bytes;
  return bytes;
}

uint64_t WeightLayout::max_part_bytes() const {
  uint64_t bytes = 0;
  for (size_t i = 1; i < parts.size(); ++i) bytes = std::max<uint64_t>(bytes, parts[i].bytes);
  return bytes;
}

std::vector<PartPiece> SplitPart(const Part& part, uint64_t bounce_bytes) {
  std::vector<PartPiece> pieces;
  for (uint32_t i = 0; i < part.tensors.size(); ++i) {
    const PartTensor& t = part.tensors[i];
    const uint64_t row = RowBytes(t.info->type, t.info->cols());
    const uint64_t room = bounce_bytes - 2 * kDirectAlign;
    uint64_t rows = std::max<uint64_t>(kPanelRows, room / row / kPanelRows * kPanelRows);
    for (uint64_t r = 0; r < t.rows; r += rows) {
      pieces.push_back({i, static_cast<uint32_t>(r),
                        static_cast<uint32_t>(std::min<uint64_t>(rows, t.rows - r))});
    }
  }
  return pieces;
}

Result<const uint8_t*> ReadPiece(const std::vector<File>& files, const Part& part,
                                 const PartPiece& piece, uint8_t* bounce, uint64_t* bytes_read) {
  const PartTensor& t = part.tensors[piece.tensor];
  const uint64_t row = RowBytes(t.info->type, t.info->cols());
  const uint64_t first = uint64_t{t.first_row} + piece.first_row;
  return ReadAligned(files[t.info->file], t.info->offset + first * row, piece.rows * row, bounce,
                     bytes_read);
}

void PackPiece(const Part& part, const PartPiece& piece, const uint8_t* raw, uint8_t* dst) {
  const PartTensor& t = part.tensors[piece.tensor];
  const uint64_t cols = t.info->cols();
  if (t.packed) {
    PackPanels(t.info->type, raw, piece.rows, cols,
               dst + t.offset + piece.first_row / kPanelRows * PanelBytes(t.info->type, cols));
  } else {
    Dequantize(t.info->type, raw, piece.rows * cols,
               reinterpret_cast<float*>(dst + t.offset) + piece.first_row * cols);
  }
}

}  // namespace snug
