// Codecs whose rows cannot be encoded one at a time, or are multiplied in a way of their own: they
// take rows over from the tiles where attention stored them (kv_codec.cc), some time after, and
// walk what they have coded, which is tiles in the tokens' order, or segments in an order of their
// own. Attention knows no codec by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "format/dtype.h"
#include "kernel/attention_internal.h"

namespace snug {

// What attention asks of a codec.
class RowCodec {
 public:
  virtual ~RowCodec() = default;
  // As WalkTiles, over tiles that have a coded row at least; rows of theirs that are not coded lie
  // in args.tiles. Products are float32 with args.exact, else as near as the codec says. Where rows
  // have an order of the codec's own, each is walked with one tile, whichever: every query sees all
  // of them.
  virtual void Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                    TileAt next, float* decoded) const = 0;
  // The slow references' view: coded row number `row` of a head as float32 [head_dim], its key or
  // its value.
  virtual void LoadRow(const AttentionArgs& args, uint32_t head, uint32_t row, bool value,
                       float* to) const = 0;
};

// A coded tile holds 64 tokens, keys and values apart: of one KV head, or of keys of several whose
// rows cannot be told apart. Which of them are coded is for the caller to know (CodedRows).
class TileCodec : public RowCodec {
 public:
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
  void LoadRow(const AttentionArgs& args, uint32_t head, uint32_t row, bool value,
               float* to) const final;
};

// Rows of one KV head as attention stored them: tokens [first, first + rows).
struct StoredRows {
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  const uint8_t* const* pages = nullptr;  // by tile of the sequence
  size_t keys = 0, values = 0;            // where the head's begin in a page
  uint32_t first = 0, rows = 0;
};

// A segment holds the keys and values of some tokens that follow each other, coded together, head
// after head. It is written once.
class SegmentCodec : public RowCodec {
 public:
  // Bytes of the rows of one head; a multiple of 64.
  virtual size_t HeadBytes(uint32_t rows) const = 0;
  // Codes rows in the order given, numbers of rows less `first`, to HeadBytes. A function of these
  // rows and their order alone.
  virtual void Encode(const StoredRows& rows, std::span<const uint32_t> order,
                      uint8_t* to) const = 0;
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
    const auto& codec = static_cast<const TileCodec&>(*args.coded.codec);
    const uint8_t* page = args.coded.tiles[at.tile];
    keys = page + at.head / codec.key_heads() * codec.key_tile_bytes();
    values = page + codec.key_bytes(args.kv_heads) + at.head * codec.value_tile_bytes();
  }
  const uint8_t *keys, *values;
};

inline void TileCodec::LoadRow(const AttentionArgs& args, uint32_t head, uint32_t row, bool value,
                               float* to) const {
  const TileAt at{head, static_cast<uint32_t>(row / kTileTokens)};
  const CodedTiles tiles(args, at);
  value ? LoadValue(tiles.values, row % kTileTokens, to)
        : LoadKey(tiles.keys, at, row % kTileTokens, to);
}

}  // namespace snug
