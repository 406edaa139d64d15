// How a model's tensors are packed into parts, the units that are pinned or streamed: globals, one
// part per layer, then the head in row blocks. The layout follows from metadata alone.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "format/model_file.h"
#include "kernel/matmul.h"

namespace snug {

// A tensor, or a block of its rows, at `offset` of its part.
struct PartTensor {
  const TensorInfo* info = nullptr;  // owned by the ModelFile, which outlives the layout
  uint32_t first_row = 0, rows = 0;  // first_row is a multiple of kPanelRows
  bool packed = true;  // a matrix in panels; else its values as float32 (norms, biases)
  uint8_t role = 0;    // what the model uses it for; opaque here
  size_t offset = 0, bytes = 0;
};

struct Part {
  std::string name;  // "globals", "layer 3", "head 0"
  std::vector<PartTensor> tensors;
  size_t bytes = 0;         // in memory, a multiple of 64
  uint64_t file_bytes = 0;  // read from the file
};

// Parts in the order a forward pass uses them. Part 0 (globals) is always resident.
struct WeightLayout {
  std::vector<Part> parts;
  size_t first_head = 0;  // index of the first head part; parts.size() - first_head head parts
  // Experts, apart from the parts: of each layer the part of its first expert (bytes = 0 where the
  // layer has none). The others are copies of it whose rows lie further on in the file.
  std::vector<Part> experts;  // [layers], or empty
  uint32_t expert_count = 0;  // of a layer
  uint64_t total_bytes() const;
  uint64_t expert_bytes() const;      // of all experts of all layers
  uint64_t max_expert_bytes() const;  // of one
};

// Bounce buffers: row panels are read into one and packed from it, so that packing never holds two
// copies of a tensor. Those of the stream place are large enough for the disk's sequential rate.
inline constexpr uint64_t kBounceBytes = 8 * kMiB, kStreamBounceBytes = 4 * kMiB;
// Whether a panel of the tensor's rows can be read and packed through any bounce buffer.
bool FitsBounce(const TensorInfo& info);

// The least bounce buffer that takes every tensor of the part in one piece.
uint64_t BounceBytesOf(const Part& part);

// A run of rows of one tensor of a part: what one read brings and one call packs.
struct PartPiece {
  uint32_t tensor = 0;               // index into Part::tensors
  uint32_t first_row = 0, rows = 0;  // of the part's rows; first_row is a multiple of kPanelRows
};
// The pieces of a part that fit a bounce buffer.
std::vector<PartPiece> SplitPart(const Part& part, uint64_t bounce_bytes);
// Reads one piece's rows as stored into the bounce buffer and returns where they start in it.
// `copy` chooses among experts: each tensor's rows are taken `copy` times its rows further on.
// `files`, those of the model, may be open for direct reads. Adds what was read to *bytes_read,
// which may be null. Errors: kIo, kBadFile naming file and offset.
Result<const uint8_t*> ReadPiece(const std::vector<File>& files, const Part& part,
                                 const PartPiece& piece, uint32_t copy, uint8_t* bounce,
                                 uint64_t* bytes_read);
// Calls fn(first_row, rows, data) with a piece's rows in the tensor's type, panel by panel where
// they need conversion; the bounce buffer that ReadPiece filled has room for a panel beside them.
void ForTypedRows(const Part& part, const PartPiece& piece, const uint8_t* raw,
                  std::span<uint8_t> bounce,
                  const std::function<void(uint32_t, uint32_t, const uint8_t*)>& fn);
// Packs a piece's rows into the part at dst.
void PackPiece(const Part& part, const PartPiece& piece, const uint8_t* raw,
               std::span<uint8_t> bounce, uint8_t* dst);

}  // namespace snug
