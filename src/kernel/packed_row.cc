#include "kernel/packed_row.h"

#include <cstring>

#include "kernel/kv_layout.h"

namespace snug {
namespace {

struct KeyOrder {
  size_t slot, head_dim;
  size_t operator()(size_t d) const { return KeyIndex(d, slot, head_dim); }
};
struct ValueOrder {
  size_t slot;
  size_t operator()(size_t d) const { return ValueIndex(d, slot); }
};

uint8_t Nibble(const uint8_t* codes, size_t at) { return codes[at / 2] >> (at % 2 * 4) & 15; }
void SetNibble(uint8_t* codes, size_t at, uint8_t code) {
  uint8_t& byte = codes[at / 2];
  byte = static_cast<uint8_t>(at % 2 != 0 ? (byte & 0x0f) | code << 4 : (byte & 0xf0) | code);
}

// Elements of a row between a tile, where `place` says they lie, and a packed one; packed ones have
// any alignment.
template <class Element, bool kPack, class Place, class Tile, class Packed>
void MoveElements(const Place& place, size_t head_dim, Tile* tile, Packed* packed) {
  for (size_t d = 0; d < head_dim; ++d) {
    auto* in_tile = tile + place(d) * sizeof(Element);
    auto* in_row = packed + d * sizeof(Element);
    if constexpr (kPack) {
      std::memcpy(in_row, in_tile, sizeof(Element));
    } else {
      std::memcpy(in_tile, in_row, sizeof(Element));
    }
  }
}

template <bool kPack, class Place, class Tile, class Packed>
void Move(KvType type, const Place& place, size_t head_dim, size_t slot, Tile* tile,
          Packed* packed) {
  size_t bytes = head_dim;
  switch (type) {
    case KvType::kF32:
      return MoveElements<float, kPack>(place, head_dim, tile, packed);
    case KvType::kF16:
    case KvType::kBF16:
      return MoveElements<uint16_t, kPack>(place, head_dim, tile, packed);
    case KvType::kF8E4M3:
      return MoveElements<uint8_t, kPack>(place, head_dim, tile, packed);
    case KvType::kQ8_0:
      MoveElements<uint8_t, kPack>(place, head_dim, tile, packed);
      break;
    case KvType::kQ4_0:
      for (size_t d = 0; d < head_dim; ++d) {
        if constexpr (kPack) {
          SetNibble(packed, d, Nibble(tile, place(d)));
        } else {
          SetNibble(tile, place(d), Nibble(packed, d));
        }
      }
      bytes = head_dim / 2;
      break;
  }
  const auto block = [slot](size_t d) { return d * kTileTokens + slot; };
  MoveElements<uint16_t, kPack>(block, head_dim / kKvBlock,
                                tile + ScaleOffset(type, PaddedDim(head_dim)), packed + bytes);
}

// A key's pairs of two-byte elements are words 16 tokens apart (KeyIndex).
void UnpackKeyPairs(const uint8_t* packed, size_t head_dim, size_t slot, uint8_t* tile) {
  constexpr size_t kWords = kColumn / 2;
  auto* word =
      reinterpret_cast<uint32_t*>(tile) + slot / kWords * (head_dim / 2) * kWords + slot % kWords;
  for (size_t d = 0; d < head_dim / 2; ++d, word += kWords) {
    std::memcpy(word, packed + d * sizeof(uint32_t), sizeof(uint32_t));
  }
}

}  // namespace

size_t PackedBytes(KvType type, size_t head_dim) {
  const size_t scales = head_dim / kKvBlock * sizeof(uint16_t);
  switch (type) {
    case KvType::kF32:
      return head_dim * sizeof(float);
    case KvType::kF16:
    case KvType::kBF16:
      return head_dim * sizeof(uint16_t);
    case KvType::kF8E4M3:
      return head_dim;
    case KvType::kQ8_0:
      return head_dim + scales;
    case KvType::kQ4_0:
      break;
  }
  return head_dim / 2 + scales;
}

void PackKey(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, bool by_rows,
             uint8_t* packed) {
  if (by_rows) return PackValue(type, tile, head_dim, slot, packed);
  Move<true>(type, KeyOrder{slot, head_dim}, head_dim, slot, tile, packed);
}

void PackValue(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, uint8_t* packed) {
  Move<true>(type, ValueOrder{slot}, head_dim, slot, tile, packed);
}

void UnpackKey(KvType type, const uint8_t* packed, size_t head_dim, size_t slot, bool by_rows,
               uint8_t* tile) {
  if (by_rows) return UnpackValue(type, packed, head_dim, slot, tile);
  if (type == KvType::kF16 || type == KvType::kBF16) {
    return UnpackKeyPairs(packed, head_dim, slot, tile);
  }
  Move<false>(type, KeyOrder{slot, head_dim}, head_dim, slot, tile, packed);
}

void UnpackValue(KvType type, const uint8_t* packed, size_t head_dim, size_t slot, uint8_t* tile) {
  Move<false>(type, ValueOrder{slot}, head_dim, slot, tile, packed);
}

void UnpackValues(const uint8_t* first, const uint8_t* second, size_t head_dim, size_t slot,
                  uint8_t* tile) {
  for (size_t d = 0; d < head_dim; ++d) {
    uint16_t pair[2];
    std::memcpy(&pair[0], first + d * sizeof(uint16_t), sizeof(uint16_t));
    std::memcpy(&pair[1], second + d * sizeof(uint16_t), sizeof(uint16_t));
    std::memcpy(tile + ValueIndex(d, slot) * sizeof(uint16_t), pair, sizeof(pair));
  }
}

}  // namespace snug
