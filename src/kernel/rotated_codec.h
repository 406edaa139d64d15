// Rows whose channels are mixed before few-bit codes take them: outliers are spread by a
// Walsh-Hadamard transform, so that all channels need about the same levels (RotateKV, arXiv
// 2501.16383).
//
// Keys are coded as they were before their rotary embedding: a token's key channels of all KV heads
// are un-rotated, transformed over blocks of neighbouring heads, put in an order that a calibration
// found, and coded in groups of neighbours. Values are transformed head by head; attention sums
// them transformed and transforms the sums back.
//
// A group has codes of 2 or 4 bits, a scale s and an offset m (f16): x = s * code + m. A tile of
// keys is of all KV heads: codes [channels of all heads][64 tokens], scales [groups][64], offsets
// [groups][64]. One of values is of a head: codes [64 tokens][head_dim], then scales and offsets
// [groups][64].
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/tile_codec.h"

namespace snug {

inline constexpr size_t kMaxKeyWidth = 8192;  // channels of a token's keys, of all KV heads
inline constexpr size_t kMaxKeyGroups = 64;   // of a token's keys

struct RotatedFormat {
  size_t head_dim = 0;  // a power of two, 16 at least
  size_t kv_heads = 0;
  size_t heads = 1;  // neighbours that a transform of keys covers: a power of two
  // Channels that share a scale: a power of two that divides those of all heads; one that divides
  // head_dim.
  size_t key_group = 0;
  size_t value_group = 0;
  size_t bits = 2;      // of a code, 2 or 4
  float clip = 1;       // of a group's extremes, what codes reach
  bool centre = false;  // clipped toward the middle of the extremes, not toward zero
  size_t width() const { return kv_heads * head_dim; }
};

// Rotary embeddings as rotations of pairs of a head's channels by position times frequency, cut in
// two: by the position of a token's tile, and by its slot there. (A scale of RoPE stays in the
// coded keys.)
struct KeyRotary {
  size_t pairs = 0;              // 0: keys have no positions
  bool interleaved = false;      // pairs (2i, 2i + 1), else (i, i + pairs)
  const float* slots = nullptr;  // [2][pairs][64] cosines, sines
  const float* tiles = nullptr;  // [tiles][2][pairs]
  const float* OfTile(uint32_t tile) const { return tiles + size_t{tile} * 2 * pairs; }
};

// What the codec is told of a layer.
struct RotatedBasis {
  KeyRotary rotary;
  // [width] where each transformed channel of a token's keys is stored; null: where it is.
  const uint16_t* places = nullptr;
};

// x [n] = H x / sqrt(n), H the Hadamard matrix in Sylvester's order; n is a power of two. Applied
// twice it gives x.
void Hadamard(size_t n, float* x);

// Rotates a head [head_dim] by its tile's position (sign 1), or back (-1).
void TurnByTile(const KeyRotary& rotary, uint32_t tile, float sign, float* head);

// The keys [width] of a token of all KV heads, rotated for its position, become what is coded of
// them, in the channels' own order.
void TransformKeys(const RotatedFormat& format, const KeyRotary& rotary, uint32_t token,
                   float* keys);

// Codes n values as one group: hi and lo are the extremes, clipped; s = (hi - lo) / (2^bits - 1);
// the code of x is round(x / s) - round(lo / s), within 0 .. 2^bits - 1.
void QuantizeClipped(const RotatedFormat& format, const float* x, size_t n, uint8_t* codes,
                     uint16_t* scale, uint16_t* offset);

class RotatedCodec final : public TileCodec {
 public:
  // What `basis` refers to must outlive it; without tables only sizes are known.
  RotatedCodec(const RotatedFormat& format, const RotatedBasis& basis)
      : f_(format), basis_(basis) {}

  size_t key_tile_bytes() const override;
  size_t value_tile_bytes() const override;
  size_t key_heads() const override { return f_.kv_heads; }
  size_t key_group() const override { return 1; }
  size_t value_group() const override { return 1; }
  void EncodeKeys(KvType type, const uint8_t* from, TileAt at, size_t slot, size_t n,
                  uint8_t* to) const override;
  void EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                    uint8_t* to) const override;
  void LoadKey(const uint8_t* tile, TileAt at, size_t slot, float* k) const override;
  void LoadValue(const uint8_t* tile, size_t slot, float* v) const override;
  void Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last, TileAt next,
            float* decoded) const override;

 private:
  RotatedFormat f_;
  RotatedBasis basis_;
};

}  // namespace snug
