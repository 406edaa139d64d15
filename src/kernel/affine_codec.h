// Rows as few-bit codes of affine groups, x = scale * code + zero: keys in groups of tokens within
// a channel, values in groups of channels within a token (KIVI, Liu et al. 2024, arXiv 2402.02750).
// Scales and zeros are f16.
//
// A tile holds rows of codes: keys have a row for each channel, of 64 tokens; values one for each
// token, of head_dim channels. Rows lie in columns of 16 values, column by column, and a column in
// blocks of 16 rows of 2-bit codes, or 8 of 4-bit codes, [rows / 16][16 values][4 bytes]: byte j of
// a value has its codes of rows j, 4 + j, .. of the block, the first in the lowest bits, so that a
// mask leaves four rows of each value beside one another. Then come the scales and then the zeros,
// of keys [64 / group][head_dim], of values [head_dim / group][64].
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/tile_codec.h"

namespace snug {

struct AffineFormat {
  size_t head_dim = 0;
  size_t group = 32;                    // 16, 32 or 64; divides head_dim
  size_t key_bits = 2, value_bits = 2;  // 2 or 4
};

inline constexpr size_t kAffineBlockBytes = 64;
constexpr size_t AffineBlockRows(size_t bits) { return 32 / bits; }

// One group as codes: z = min, s = (max - min) / (2^bits - 1), both rounded to f16 (as bits) before
// codes are chosen; ties go to the even code. A constant group has s = 0 and codes 0. Values are
// finite.
void QuantizeAffine(const float* x, size_t n, size_t bits, uint8_t* codes, uint16_t* scale,
                    uint16_t* zero);

class AffineCodec final : public TileCodec {
 public:
  // The format must hold what its comments say.
  explicit AffineCodec(const AffineFormat& format) : f_(format) {}
  const AffineFormat& format() const { return f_; }

  size_t key_tile_bytes() const override { return TileBytes(f_.key_bits); }
  size_t value_tile_bytes() const override { return TileBytes(f_.value_bits); }
  size_t key_group() const override { return f_.group; }
  size_t value_group() const override { return 1; }
  void EncodeKeys(KvType type, const uint8_t* from, TileAt /*at*/, size_t slot, size_t n,
                  uint8_t* to) const override;
  void EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                    uint8_t* to) const override;
  void LoadKey(const uint8_t* tile, TileAt /*at*/, size_t slot, float* k) const override;
  void LoadValue(const uint8_t* tile, size_t slot, float* v) const override;
  void Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last, TileAt next,
            float* decoded) const override;

 private:
  size_t TileBytes(size_t bits) const {
    const size_t values = f_.head_dim * kTileTokens;
    return values * bits / 8 + values / f_.group * 2 * sizeof(uint16_t);
  }
  AffineFormat f_;
};

}  // namespace snug
