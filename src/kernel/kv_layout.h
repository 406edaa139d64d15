// The layouts of key and value tiles, shared by the codec and the attention kernels.
//
// A tile holds 64 tokens of one KV head as rows of pairs, which is what the bf16 pair product
// reads: keys have a row for two dimensions, [64 tokens][2 dims], values one for two tokens,
// [padded dim][2 tokens]. Rows lie in columns of 32 values (a line of the two-byte types), column
// by column, since products take all rows of a column in turn: [values / 32][rows][32]. Q4_0 has
// one byte per pair (first in the low nibble), F8_E4M3 and Q8_0 one per value; Q8_0 and Q4_0 follow
// with f16 scales [head_dim / 32][64 tokens].
#pragma once

#include <cstddef>

#include "kernel/attention.h"

namespace snug {

inline constexpr size_t kKvBlock = 32;  // values per scale of Q8_0 and Q4_0

// Dimensions of a value row: whole vectors of 16.
inline size_t PaddedDim(size_t head_dim) { return (head_dim + 15) / 16 * 16; }

inline constexpr size_t kColumn = 32;

// Where value i of row `row` of `rows` lies, counted in values.
inline size_t PairIndex(size_t rows, size_t row, size_t i) {
  return (i / kColumn * rows + row) * kColumn + i % kColumn;
}

// Where value d of a slot lies: keys pair dimensions, values pair tokens.
inline size_t KeyIndex(size_t d, size_t slot, size_t head_dim) {
  return PairIndex(head_dim / 2, d / 2, 2 * slot + d % 2);
}
inline size_t ValueIndex(size_t d, size_t slot) {
  return PairIndex(kTileTokens / 2, slot / 2, 2 * d + slot % 2);
}

// Offset of the scales of a quantized tile.
inline size_t ScaleOffset(KvType type, size_t padded_dim) {
  return padded_dim * kTileTokens / (type == KvType::kQ4_0 ? 2 : 1);
}

}  // namespace snug
