// Rows that live elsewhere (place/place.h).
#include "kv/cache.h"
#include "kv/tiles.h"

namespace snug {

Status KvCache::FetchLayer(uint32_t sequence, uint32_t layer) {
  if (!layout_.Places(layer)) return {};
  const uint32_t tiles = placed_.tiles(sequence, placed_row_[layer]);
  uint8_t** pages = table(sequence, layer);
  for (uint32_t t = 0; t < tiles; ++t) {
    if (pages[t] == nullptr) pages[t] = Take();
  }
  return placed_.Read(sequence, placed_row_[layer], pages);
}

Status KvCache::PlaceLayer(uint32_t sequence, uint32_t layer) {
  if (!layout_.Places(layer)) return {};
  const uint32_t whole = rows(sequence, layer) / kTile;
  uint8_t** pages = table(sequence, layer);
  SNUG_TRY(placed_.Write(sequence, placed_row_[layer], whole, pages));
  for (uint32_t t = whole; t-- > 0 && pages[t] != nullptr;) {
    Drop(pages[t]);
    pages[t] = nullptr;
  }
  return {};
}

Status KvCache::PlaceRows(uint32_t sequence) {
  for (const uint32_t layer : placing_) SNUG_TRY(PlaceLayer(sequence, layer));
  return {};
}

PlacedLayer KvCache::placed(uint32_t sequence, uint32_t layer) {
  if (!layout_.Places(layer)) return {};
  return {&placed_, sequence, placed_row_[layer]};
}

}  // namespace snug
