// What the two halves of attention share: the per-target walk over tiles (attention.cc) and the
// division into tasks (attention_tasks.cc).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/attention.h"
#include "kernel/kv_layout.h"

namespace snug {

// The running softmax of one query row over one split: maximum (in units of log 2), sum, and
// weighted values.
struct RowState {
  int64_t position = 0;
  float max = 0, sum = 0;
  float* out = nullptr;  // [padded dim]
};

// Query rows of one KV head, prepared.
struct Block {
  size_t rows = 0, head_dim = 0, padded_dim = 0;
  int64_t window = 0;
  float softcap = 0;
  const uint8_t* queries = nullptr;  // [rows, head_dim], bf16 or float32
  RowState* state = nullptr;         // [rows]
};

// Whether products run in float32: with `exact`, for float32 caches, and where the target lacks
// bf16.
bool UsesFloat(const AttentionArgs& args);
// One query row [head_dim], scaled and converted for the kernel.
void PrepareQuery(const AttentionArgs& args, const float* q, uint8_t* out);
// A tile of one KV head.
struct TileAt {
  uint32_t head = 0, tile = 0;
};
// Floats that WalkTiles decodes into: a tile of keys, one of values, and the scales of both.
inline size_t DecodedFloats(size_t head_dim) {
  return kTileTokens * (2 * PaddedDim(head_dim) + 3 * (head_dim / kKvBlock));
}
// Runs the rows of `block` over tiles [first.tile, last) of a KV head. `next` is what will be
// walked afterwards, fetched meanwhile. `decoded`: see DecodedFloats.
void WalkTiles(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
               TileAt next, float* decoded);
// Joins one split's state into the running total of a row, in split order.
void JoinPart(const float* part, float part_max, float part_sum, size_t dims, float* max,
              float* sum, float* total);

}  // namespace snug
