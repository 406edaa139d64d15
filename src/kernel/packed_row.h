// A token's encoded key or value apart from a tile: its elements in order (two codes of Q4_0 a
// byte, the first in the low nibble), then its blocks' f16 scales. Moving a row there and back
// changes no bit of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/attention.h"

namespace snug {

size_t PackedBytes(KvType type, size_t head_dim);
// The key of slot 0..63 of a tile; `by_rows`: of one that lies as values do
// (AttentionArgs::key_rows).
void PackKey(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, bool by_rows,
             uint8_t* packed);
void PackValue(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, uint8_t* packed);
void UnpackKey(KvType type, const uint8_t* packed, size_t head_dim, size_t slot, bool by_rows,
               uint8_t* tile);
void UnpackValue(KvType type, const uint8_t* packed, size_t head_dim, size_t slot, uint8_t* tile);
// Values of two bytes (f16, bf16) for slot `slot`, an even one, and the one after it.
void UnpackValues(const uint8_t* first, const uint8_t* second, size_t head_dim, size_t slot,
                  uint8_t* tile);

}  // namespace snug
