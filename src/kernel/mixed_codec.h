// Segments whose rows are in classes, of fewer and of more bits (ZipCache, He et al. 2024,
// arXiv 2405.14256). Keys go by channel: a class has a scale and a zero for each, x = s * code + z.
// Values go by token, after each channel was divided by a factor f that all rows of the segment
// share (channel-separable token-wise quantization): x = f * (s * code + z). Parameters are f16.
//
// What a head has of a segment: the factors [head_dim], then each class that has rows, that of
// fewer bits first: the keys' scales and zeros [head_dim], codes of keys in blocks of 64 rows (the
// last one of those that are left), each a row of codes for each channel; the values' scales and
// zeros [rows, whole 16s], codes of values, a row for each token. Codes lie in order, the first in
// the lowest bits of its bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/tile_codec.h"

namespace snug {

struct MixedFormat {
  size_t head_dim = 0;                 // a multiple of 16
  size_t low_bits = 2, high_bits = 4;  // 2, 4, 8, or 16: f16 as they are
  double low_share = 0.4;              // of rows that have the fewer bits
  double raw_share = 0;                // of rows that are f16 as they are
  // Of a segment's rows, as they are ordered, the first so many have the fewer bits, the last so
  // many are f16.
  uint32_t LowRows(uint32_t rows) const;
  uint32_t RawRows(uint32_t rows) const;
};

// Where the rows of a class lie in a head's part of a segment.
struct MixedClass {
  size_t bits = 0, head_dim = 0;
  uint32_t first = 0, rows = 0;     // rows of the segment
  size_t key_scales = 0, keys = 0;  // offsets: zeros follow scales
  size_t value_scales = 0, values = 0, end = 0;
  size_t padded_rows() const { return (size_t{rows} + 15) / 16 * 16; }
  // Codes of a block's channel, of the block of 64 rows that begins with row `at` of the class.
  size_t BlockRows(uint32_t at) const { return rows - at < kTileTokens ? rows - at : kTileTokens; }
  size_t KeyRowBytes(uint32_t at) const { return (BlockRows(at) * bits + 7) / 8; }
  size_t KeyBlock(uint32_t at) const { return keys + at * bits / 8 * head_dim; }
  size_t ValueRowBytes() const { return head_dim * bits / 8; }
};

class MixedCodec final : public SegmentCodec {
 public:
  explicit MixedCodec(const MixedFormat& format) : f_(format) {}
  const MixedFormat& format() const { return f_; }
  // The classes of a segment of so many rows, of fewer bits, of more, and f16.
  struct Classes {
    MixedClass of[3];
  };
  Classes ClassesOf(uint32_t rows) const;

  size_t HeadBytes(uint32_t rows) const override;
  void Encode(const StoredRows& rows, std::span<const uint32_t> order, uint8_t* to) const override;
  void LoadRow(const AttentionArgs& args, uint32_t head, uint32_t row, bool value,
               float* to) const override;
  // A block of 64 rows goes with the tile where its first row would lie.
  void Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last, TileAt next,
            float* decoded) const override;

 private:
  void EncodeKeys(const StoredRows& rows, std::span<const uint32_t> order, const MixedClass& c,
                  uint8_t* to) const;
  void EncodeValues(const StoredRows& rows, std::span<const uint32_t> order, const MixedClass& c,
                    uint8_t* to) const;
  MixedFormat f_;
};

}  // namespace snug
