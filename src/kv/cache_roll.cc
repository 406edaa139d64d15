// The cache where positions roll: rows close up, and tables of windows begin anew.
#include <algorithm>
#include <cassert>

#include "kv/cache.h"
#include "kv/tiles.h"

namespace snug {

uint32_t KvLayout::reach() const {
  uint32_t widest = 0;
  for (uint32_t l = 0; l < layers; ++l) widest = std::max(widest, Attends(l) ? window[l] : 0u);
  if (!rolling || widest == 0) return context;
  // What PagesOf says, and what the largest step adds before a table is shortened by whole splits.
  const uint32_t tiles = Tiles(uint64_t{widest} + kRollback + chunk) + 1;
  return std::max(context, (tiles + static_cast<uint32_t>(kSplitTiles)) * kTile);
}

RolledLayout KvLayout::rolled() const {
  RolledLayout r;
  if (!rolling) return r;
  r.rotation = *rolling;
  r.key_type = key_type;
  r.heads = kv_heads;
  r.head_dim = head_dim;
  r.sequences = sequences;
  for (uint32_t l = 0; l < layers; ++l) {
    if (!Drops(l)) continue;
    const bool rotated = rolling->none.empty() || !rolling->none[l];
    r.slots.push_back(rotated ? keep->RowsBeforeGaps(MostRows(l)) : 0);
  }
  return r;
}

uint32_t KvCache::Taken(uint32_t sequence) const {
  if (!layout_.rolling) return length(sequence);
  uint32_t most = 0;
  for (const uint32_t layer : dropping_) most = std::max(most, rows(sequence, layer));
  return most;
}

void KvCache::CloseGaps(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows,
                        uint32_t dropped) {
  if (!layout_.rolling) return;
  const uint32_t k = kept_row_[layer];
  const uint32_t* slots = kept_.shifted(sequence, k, head).slots;
  kept_.CloseGaps(sequence, k, head, rows, dropped, [&](uint32_t row) {
    if (rolled_.Rolls(k)) rolled_.Free(sequence, k, head, slots[row]);
  });
}

void KvCache::RollKeys(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t end,
                       ThreadPool& pool) {
  const uint32_t k = kept_row_[layer];
  if (!layout_.rolling || !rolled_.Rolls(k)) return;
  rolled_.Prepare(k, end - rows);
  pool.For(layout_.kv_heads, [&](size_t h, int) {
    const auto head = static_cast<uint32_t>(h);
    const KeptRows::Shifted at = kept_.shifted(sequence, k, head);
    for (uint32_t r = 0; r < rows; ++r) {
      if (at.shifts[r] == 0) continue;
      rolled_.Turn(sequence, k, head, at.positions[r], at.positions[r] + at.shifts[r],
                   page(sequence, layer, r / kTile, head), r % kTile, at.slots + r);
    }
  });
}

uint32_t KvCache::ShortenTable(uint32_t sequence, uint32_t layer, uint32_t dead) {
  dead -= dead % static_cast<uint32_t>(kSplitTiles);
  assert(dead > 0);
  for (uint32_t g = 0; g < layout_.groups(); ++g) {
    uint8_t** pages = table(sequence, layer, g);
    for (uint32_t t = 0; t < dead; ++t) {
      if (pages[t] != nullptr) Drop(pages[t]);
    }
    std::copy(pages + dead, pages + tiles_per_layer_, pages);
    std::fill_n(pages + tiles_per_layer_ - dead, dead, nullptr);
  }
  return sequences_[sequence].rows[row_[layer]] -= dead * kTile;
}

}  // namespace snug
