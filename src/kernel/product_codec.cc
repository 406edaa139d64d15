// Coding of rows as numbers of centroids, and the slow view of them. The search for the nearest
// ones and products are product_walk.cc's.
#include "kernel/product_codec.h"

#include <cassert>

namespace snug {
namespace {

void LoadProduct(const ProductFormat& f, const float* book, const uint8_t* tile, size_t slot,
                 float* row) {
  for (size_t c = 0; c < f.head_dim; ++c) {
    const size_t m = c / f.dims;
    row[c] = book[(m * kCentroids + tile[m * kTileTokens + slot]) * f.dims + c % f.dims];
  }
}

// Codes all 64 rows of a tile; index(channel, slot) is where a value lies.
template <class Index>
void Encode(const ProductFormat& f, const float* book, KvType type, const uint8_t* from,
            const Index& index, uint8_t* to) {
  alignas(64) float points[4 * kTileTokens], distances[kTileTokens];
  static_assert(kTileTokens % kPointBlock == 0);
  for (size_t m = 0; m < f.head_dim / f.dims; ++m) {
    for (size_t c = 0; c < f.dims; ++c) {
      for (size_t t = 0; t < kTileTokens; ++t) {
        points[c * kTileTokens + t] = StoredValue(type, from, index(m * f.dims + c, t));
      }
    }
    NearestCentroids(book + m * kCentroids * f.dims, f.dims, points, kTileTokens, kTileTokens,
                     to + m * kTileTokens, distances);
  }
}

}  // namespace

void ProductCodec::EncodeKeys(KvType type, const uint8_t* from, TileAt /*at*/,
                              [[maybe_unused]] size_t slot, [[maybe_unused]] size_t n,
                              uint8_t* to) const {
  assert(slot == 0 && n == kTileTokens);
  const auto index = [&](size_t c, size_t t) { return KeyIndex(c, t, f_.head_dim); };
  Encode(f_, books_.keys, type, from, index, to);
}

void ProductCodec::EncodeValues(KvType type, const uint8_t* from, [[maybe_unused]] size_t slot,
                                [[maybe_unused]] size_t n, uint8_t* to) const {
  assert(slot == 0 && n == kTileTokens);
  Encode(f_, books_.values, type, from, ValueIndex, to);
}

void ProductCodec::LoadKey(const uint8_t* tile, TileAt /*at*/, size_t slot, float* k) const {
  LoadProduct(f_, books_.keys, tile, slot, k);
}

void ProductCodec::LoadValue(const uint8_t* tile, size_t slot, float* v) const {
  LoadProduct(f_, books_.values, tile, slot, v);
}

}  // namespace snug
