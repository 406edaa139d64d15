#include "weights/layout.h"

#include <algorithm>
#include <cassert>

#include "format/tensor_rows.h"

namespace snug {
namespace {

// What converting a panel takes: a row of float32 and the panel in its type.
uint64_t ConversionBytes(const TensorInfo& info) {
  if (!NeedsConversion(info)) return 0;
  const uint64_t panel = kPanelRows * RowBytes(info.type, info.cols());
  return info.cols() * sizeof(float) + (panel + 63) / 64 * 64;
}

}  // namespace

uint64_t WeightLayout::total_bytes() const {
  uint64_t bytes = 0;
  for (const Part& p : parts) bytes += p.bytes;
  return bytes;
}

uint64_t WeightLayout::expert_bytes() const {
  uint64_t bytes = 0;
  for (const Part& p : experts) bytes += p.bytes;
  return bytes * expert_count;
}

uint64_t WeightLayout::max_expert_bytes() const {
  uint64_t bytes = 0;
  for (const Part& p : experts) bytes = std::max<uint64_t>(bytes, p.bytes);
  return bytes;
}

uint64_t BounceBytesOf(const Part& part) {
  uint64_t bytes = 0;
  for (const PartTensor& t : part.tensors) {
    const uint64_t rows = (uint64_t{t.rows} + kPanelRows - 1) / kPanelRows * kPanelRows;
    bytes =
        std::max(bytes, rows * ReadBytesPerRow(*t.info) + kReadOverhead + ConversionBytes(*t.info));
  }
  return (bytes + kDirectAlign - 1) / kDirectAlign * kDirectAlign;
}

bool FitsBounce(const TensorInfo& info) {
  return kPanelRows * ReadBytesPerRow(info) + kReadOverhead + ConversionBytes(info) <=
         std::min(kBounceBytes, kStreamBounceBytes);
}

std::vector<PartPiece> SplitPart(const Part& part, uint64_t bounce_bytes) {
  std::vector<PartPiece> pieces;
  for (uint32_t i = 0; i < part.tensors.size(); ++i) {
    const PartTensor& t = part.tensors[i];
    assert(FitsBounce(*t.info));
    const uint64_t room = bounce_bytes - kReadOverhead - ConversionBytes(*t.info);
    const uint64_t rows = room / ReadBytesPerRow(*t.info) / kPanelRows * kPanelRows;
    for (uint64_t r = 0; r < t.rows; r += rows) {
      pieces.push_back({i, static_cast<uint32_t>(r),
                        static_cast<uint32_t>(std::min<uint64_t>(rows, t.rows - r))});
    }
  }
  return pieces;
}

Result<const uint8_t*> ReadPiece(const std::vector<File>& files, const Part& part,
                                 const PartPiece& piece, uint32_t copy, uint8_t* bounce,
                                 uint64_t* bytes_read) {
  const PartTensor& t = part.tensors[piece.tensor];
  const uint64_t first = uint64_t{copy} * t.rows + t.first_row + piece.first_row;
  return ReadRows(files, *t.info, first, piece.rows, bounce, bytes_read);
}

void ForTypedRows(const Part& part, const PartPiece& piece, const uint8_t* raw,
                  std::span<uint8_t> bounce,
                  const std::function<void(uint32_t, uint32_t, const uint8_t*)>& fn) {
  const TensorInfo& info = *part.tensors[piece.tensor].info;
  if (!NeedsConversion(info)) return fn(piece.first_row, piece.rows, raw);
  uint8_t* panel = bounce.data() + bounce.size() - ConversionBytes(info);
  auto* row = reinterpret_cast<float*>(bounce.data() + bounce.size()) - info.cols();
  const uint64_t stored = StoredRowBytes(info);
  for (uint32_t r = 0; r < piece.rows; r += kPanelRows) {
    const uint32_t rows = std::min<uint32_t>(kPanelRows, piece.rows - r);
    ConvertRows(info, raw + r * stored, rows, row, panel);
    fn(piece.first_row + r, rows, panel);
  }
}

void PackPiece(const Part& part, const PartPiece& piece, const uint8_t* raw,
               std::span<uint8_t> bounce, uint8_t* dst) {
  const PartTensor& t = part.tensors[piece.tensor];
  const uint64_t cols = t.info->cols();
  if (!t.packed) {
    RowsToFloat(*t.info, raw, piece.rows,
                reinterpret_cast<float*>(dst + t.offset) + piece.first_row * cols);
    return;
  }
  const size_t panel = PanelBytes(t.info->type, cols);
  ForTypedRows(part, piece, raw, bounce, [&](uint32_t first, uint32_t rows, const uint8_t* data) {
    PackPanels(t.info->type, data, rows, cols, dst + t.offset + first / kPanelRows * panel);
  });
}

}  // namespace snug
