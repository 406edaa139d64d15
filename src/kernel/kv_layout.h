// The layouts of key and value tiles, shared by the codec and the attention kernels.
//
// A tile holds 64 tokens of one KV head. Two-byte types keep pairs together as the bf16 pair
// product reads them: keys [head_dim / 2][64 tokens][2 dims], values [32 token pairs][padded dim][2
// tokens]. Q8_0 is the same with one byte per value, Q4_0 with one byte per pair (first in the low
// nibble); both follow with f16 scales [head_dim / 32][64 tokens]. F32 has keys [head_dim][64],
// values [64][padded dim].
#pragma once

#include <cstddef>

#include "kernel/attention.h"

namespace snug {

inline constexpr size_t kKvBlock = 32;  // values per scale of Q8_0 and Q4_0

// Dimensions of a value row: whole vectors of 16.
inline size_t PaddedDim(size_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Offset of the scales of a quantized tile.
inline size_t ScaleOffset(KvType type, size_t padded_dim) {
  return padded_dim * kTileTokens / (type == KvType::kQ4_0 ? 2 : 1);
}

}  // namespace snug
