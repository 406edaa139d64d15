// Codecs whose rows cannot be encoded one at a time, or are multiplied in a way of their own: they
// take rows over from the tiles where attention stored them (kv_codec.cc), some time after, and
// walk their own tiles. Attention knows no codec by name.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/dtype.h"
#include "kernel/attention_internal.h"

namespace snug {

// A coded tile holds 64 tokens of one KV head, keys and values apart. Which of them are coded is
// for the caller to know (CodedRows).
class TileCodec {
 public:
  virtual ~TileCodec() = default;
  // Bytes of a tile, multiples of 64.
  virtual size_t key_tile_bytes() const = 0;
  virtual size_t value_tile_bytes() const = 0;
  // Tokens whose keys (values) are coded together: slots below are whole multiples.
  virtual size_t key_group() const = 0;
  virtual size_t value_group() const = 0;
  // Codes slots [slot, slot + n) of a tile of type `type` (f16, bf16 or f32) into those of `to`. A
  // function of these rows alone, however many are coded at once.
  virtual void EncodeKeys(KvType type, const uint8_t* from, size_t slot, size_t n,
                          uint8_t* to) const = 0;
  virtual void EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                            uint8_t* to) const = 0;
  // The slow references' view: decodes a slot to float32 [head_dim].
  virtual void LoadKey(const uint8_t* tile, size_t slot, float* k) const = 0;
  virtual void LoadValue(const uint8_t* tile, size_t slot, float* v) const = 0;
  // As WalkTiles, over tiles that have a coded row at least; rows of theirs that are not coded lie
  // in args.tiles. Products are float32 with args.exact, else as near as the codec says.
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
    const size_t key_bytes = args.coded.codec->key_tile_bytes();
    const uint8_t* page = args.coded.tiles[at.tile];
    keys = page + at.head * key_bytes;
    values = page + args.kv_heads * key_bytes + at.head * args.coded.codec->value_tile_bytes();
  }
  const uint8_t *keys, *values;
};

}  // namespace snug
