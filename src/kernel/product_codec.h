// Rows as numbers of centroids: a key or value is cut into sub-vectors of 2 or 4 neighbouring
// channels, each stored as the number of the nearest of 256 centroids of its sub-space (product
// quantization; MILLION, arXiv 2504.03661). Centroids are learnt beforehand (kv/codec/codebooks.h).
//
// A tile, of keys as of values, holds a byte for each sub-space and token: [head_dim / dims][64].
// Only whole tiles are coded.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/tile_codec.h"

namespace snug {

inline constexpr size_t kCentroids = 256;
// Points that NearestCentroids takes at once.
inline constexpr size_t kPointBlock = 64;

struct ProductFormat {
  size_t head_dim = 0;  // a multiple of 16
  size_t dims = 2;      // of a sub-vector, 2 or 4
};

// The centroids of a layer's keys and of its values, [head_dim / dims][256][dims] each.
struct ProductBooks {
  const float *keys = nullptr, *values = nullptr;
};

// Numbers of the centroids [256, dims] nearest to each of n points, a multiple of kPointBlock, and
// the squared distances; of equally near ones the first. Coordinate c of point i is points[c *
// stride + i]. A function of each point alone.
void NearestCentroids(const float* centroids, size_t dims, const float* points, size_t stride,
                      size_t n, uint8_t* codes, float* distances);

class ProductCodec final : public TileCodec {
 public:
  // `books` must outlive it; without them only sizes are known.
  ProductCodec(const ProductFormat& format, const ProductBooks& books)
      : f_(format), books_(books) {}

  size_t key_tile_bytes() const override { return f_.head_dim / f_.dims * kTileTokens; }
  size_t value_tile_bytes() const override { return key_tile_bytes(); }
  size_t key_group() const override { return kTileTokens; }
  size_t value_group() const override { return kTileTokens; }
  void EncodeKeys(KvType type, const uint8_t* from, TileAt /*at*/, size_t slot, size_t n,
                  uint8_t* to) const override;
  void EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                    uint8_t* to) const override;
  void LoadKey(const uint8_t* tile, TileAt /*at*/, size_t slot, float* k) const override;
  void LoadValue(const uint8_t* tile, size_t slot, float* v) const override;
  void Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last, TileAt next,
            float* decoded) const override;

 private:
  ProductFormat f_;
  ProductBooks books_;
};

}  // namespace snug
