// What the two halves of attention share: the per-target walk over tiles (attention.cc) and the
// division into tasks (attention_tasks.cc).
#pragma once

#include <algorithm>
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
  int64_t first = 0;                 // positions before it are not seen
};

// Whether products run in float32: with `exact`, for float32 caches, coded and shared rows, and
// where the target lacks bf16.
bool UsesFloat(const AttentionArgs& args);
// One query row [head_dim], scaled and converted for the kernel.
void PrepareQuery(const AttentionArgs& args, const float* q, uint8_t* out);
// A tile of one KV head.
struct TileAt {
  uint32_t head = 0, tile = 0;
};
// Its keys and values.
struct HeadTiles {
  HeadTiles() = default;
  HeadTiles(const AttentionArgs& args, TileAt at) {
    const uint32_t heads = args.page_heads == 0 ? args.kv_heads : args.page_heads;
    const uint32_t group = at.head / heads, head = at.head % heads;
    const size_t key_bytes = KvTileBytes(args.key_type, args.head_dim);
    const size_t value_bytes = KvTileBytes(args.value_type, args.head_dim);
    const uint8_t* page = args.tiles[group * args.table_stride + at.tile];
    keys = page + head * key_bytes;
    values = page + heads * key_bytes + head * value_bytes;
    if (args.ordered_keys != nullptr) keys = args.ordered_keys;
  }
  const uint8_t *keys = nullptr, *values = nullptr;
};
// Floats that WalkTiles decodes into: a tile of keys, one of values, and the scales of both; and
// after them a tile of keys for InOrder.
inline size_t DecodedFloats(size_t head_dim) {
  return kTileTokens * (3 * PaddedDim(head_dim) + 3 * (head_dim / kKvBlock));
}
// Arguments for a tile alone whose keys lie as values do: its keys are put in order behind what the
// kernel decodes.
AttentionArgs InOrder(const AttentionArgs& args, TileAt at, float* decoded);
// The shared keys and values of a tile of one KV head.
struct SharedTiles {
  SharedTiles(const AttentionArgs& args, TileAt at) {
    const size_t key_bytes = KvTileBytes(args.key_type, args.head_dim);
    const size_t value_bytes = KvTileBytes(args.value_type, args.head_dim);
    const uint8_t* page = args.shared.tiles[at.tile];
    keys = page + at.head * key_bytes;
    values = page + args.kv_heads * key_bytes + at.head * value_bytes;
  }
  const uint8_t *keys, *values;
};
// Runs the rows of `block` over tiles [first.tile, last) of a KV head. `next` is what will be
// walked afterwards, fetched meanwhile. `decoded`: see DecodedFloats.
void WalkTiles(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
               TileAt next, float* decoded);
// The same over tiles of shared rows. Products are float32.
void WalkShared(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                TileAt next);
// How rows of a block become weights that are summed: 2 ^ ((score - log_sum + z) / temperature -
// noise_sum). Rows of [rows].
struct Weighing {
  const float* log_sums = nullptr;
  const float* noise_sums = nullptr;    // null without noise
  const uint32_t* row_keys = nullptr;   // of the noise; null: z = 0
  const uint32_t* positions = nullptr;  // of the tile's 64 tokens, where there is noise
  float inverse_temperature = 1;
  size_t head_stride = 0;  // of sums by query head; 0: their means
};
// Adds the weights of a tile's 64 tokens to `sums` [64]: for each token of the call the mean over
// the rows of its heads, or each head's own to sums [heads of the KV head, head_stride].
void SumColumns(const AttentionArgs& args, const Block& block, TileAt at, const Weighing& weighing,
                float* decoded, float* sums);
// Adds the weights of each row to `sums` [rows].
void SumRows(const AttentionArgs& args, const Block& block, TileAt at, const Weighing& weighing,
             float* decoded, float* sums);

// Rows (query heads of tokens) that share a decoded tile: their state stays in the L2 cache.
inline constexpr size_t kBlockRows = 192;
inline size_t BlockTokens(size_t heads_per_kv) {
  return std::max<size_t>(1, kBlockRows / heads_per_kv);
}

// A thread's scratch, laid out.
struct Scratch {
  float* decoded;    // [DecodedFloats]
  uint8_t* queries;  // [rows, head_dim] float32 at most
  RowState* state;   // [rows]
  float* part;       // [rows, padded dim] of the current split
  float* total;      // [rows, padded dim]
  float* max;        // [rows]
  float* sum;        // [rows]
  size_t bytes;
};
Scratch LayOut(uint8_t* base, size_t head_dim, size_t heads_per_kv);
// Tokens [first, first + n) of KV head `head`, prepared into scratch; of a ColumnSums with probes
// numbers of those.
Block Prepare(const AttentionArgs& args, uint32_t head, uint32_t first, uint32_t n,
              const Scratch& scratch, const ColumnSums* probes = nullptr);
// The row of the call that is number `i` of those that count.
inline uint32_t ObservedRow(const ColumnSums* sums, uint32_t i) {
  return sums == nullptr || sums->probe == nullptr ? i : sums->probe[i] - sums->probe_base;
}
// Begins the block's running softmaxes.
void Reset(const Block& block);
// Leaves the block's state as the partial results of `split`, its first row being token `first`.
void KeepPartials(const AttentionArgs& args, const Block& block, uint32_t head, uint32_t split,
                  uint32_t first, float* partial);

// Joins one split's state into the running total of a row, in split order.
void JoinPart(const float* part, float part_max, float part_sum, size_t dims, float* max,
              float* sum, float* total);

}  // namespace snug
