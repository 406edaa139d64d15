// Codecs whose rows cannot be encoded one at a time, or are multiplied in a way of their own: they
// take rows over from the tiles where attention stored them (kv_codec.cc), some time after, and
// walk their own tiles. Attention knows no codec by name.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/dtype.h"
#include "kernel/attention_internal.h"

namespace snug {

// A coded tile holds 64 tokens, keys and values apart: of one KV head, or of keys of several whose
// rows cannot be told apart. Which of them are coded is for the caller to know (CodedRows).
class TileCodec {
 public:
  virtual ~TileCodec() = default;
  // Bytes of a tile, multiples of 64.
  virtual size_t key_tile_bytes() const = 0;
  virtual size_t value_tile_bytes() const = 0;
  // KV heads that a row of keys spans: its tile is coded, at the first of them, from the tiles of
  // all, which follow each other, and is walked by each.
  virtual size_t key_heads() const { return 1; }
  // Of a page's keys, of `heads` KV heads.
  size_t key_bytes(size_t heads) const { return heads / key_heads() * key_tile_bytes(); }
  // Tokens whose keys (values) are coded together: slots below are whole multiples.
  virtual size_t key_group() const = 0;
  virtual size_t value_group() const = 0;
  // Codes slots [slot, slot + n) of a tile of type `type` (f16, bf16 or f32) into those of `to`. A
  // function of these rows alone, and of where keys are, however many are coded at once.
  virtual void EncodeKeys(KvType type, const uint8_t* from, TileAt at, size_t slot, size_t n,
                          uint8_t* to) const = 0;
  virtual void EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                            uint8_t* to) const = 0;
  // The slow references' view: decodes a slot to float32 [head_dim].
  virtual void LoadKey(const uint8_t* tile, TileAt at, size_t slot, float* k) const = 0;
  virtual void LoadValue(const uint8_t* tile, size_t slot, float* v) const = 0;
  // As WalkTiles, over tiles that have a coded row at least; rows of theirs that are not coded lie
  // in args.tiles. Products are float32.
  virtual void Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                    TileAt next, float* decoded) const = 0;
};

// Value `index` (kv_layout.h) of a tile of f16, bf16 or f32.
inline float StoredValue(KvType type, const uint8_t* tile, size_t index) {
  if (type == KvType::kF32) return reinterpret_cast<const float*>(tile)[index];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(tile)[index];
  return type == KvType::kF16 ? HalfToFloat(bits) : BFloatToFloat(bits);
}

// The coded keys and values of one tile of a KV head.
struct CodedTiles {
  CodedTiles(const AttentionArgs& args, TileAt at) {
    const TileCodec& codec = *args.coded.codec;
    const uint8_t* page = args.coded.tiles[at.tile];
    keys = page + at.head / codec.key_heads() * codec.key_tile_bytes();
    values = page + codec.key_bytes(args.kv_heads) + at.head * codec.value_tile_bytes();
  }
  const uint8_t *keys, *values;
};

}  // namespace snug
