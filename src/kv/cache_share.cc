// The cache where pairs of layers share rows: a pair of a prompt at once, then whole tiles as
// tokens come.
#include <cassert>

#include "kv/cache.h"
#include "kv/tiles.h"

namespace snug {

SharedRows KvCache::shared(uint32_t sequence, uint32_t layer) const {
  const int pair = layout_.PairOf(layer);
  if (pair < 0) return {};
  const uint32_t lower = layout_.pairs[static_cast<size_t>(pair)];
  SharedRows rows = shared_.rows(sequence, static_cast<uint32_t>(pair), layer != lower);
  rows.tiles = tiles(sequence, lower);
  return rows;
}

uint64_t KvCache::shared_bytes_read(uint32_t sequence, uint32_t layer) const {
  const int pair = layout_.PairOf(layer);
  return pair < 0 ? 0 : shared_.BytesRead(sequence, static_cast<uint32_t>(pair));
}

void KvCache::SharePair(uint32_t sequence, uint32_t pair, ThreadPool& pool) {
  const uint32_t lower = layout_.pairs[pair], upper = lower + 1;
  assert(rows(sequence, lower) == rows(sequence, upper));
  const SharedPairs::Rows due = shared_.Due(sequence, pair, rows(sequence, upper));
  if (!due.any()) return;
  const uint32_t first = due.from / kTile, count = due.to / kTile - first;
  uint8_t** low = table(sequence, lower);
  uint8_t** up = table(sequence, upper);
  pool.For(count, [&](size_t i, int) {
    const auto t = static_cast<uint32_t>(first + i);
    shared_.Measure(due, t, low[t], up[t]);
  });
  pool.For(layout_.shared().units(), [&](size_t unit, int) {
    shared_.Choose(sequence, pair, due, static_cast<uint32_t>(unit));
  });
  pool.For(count, [&](size_t i, int) {
    const auto t = static_cast<uint32_t>(first + i);
    shared_.Merge(sequence, pair, t, low[t], up[t]);
  });
  shared_.Finish(sequence, pair, due);
  for (uint32_t t = first + count; t-- > first;) {
    Drop(up[t]);
    up[t] = nullptr;
  }
}

void KvCache::ShareRows(uint32_t sequence, ThreadPool& pool) {
  for (uint32_t i = 0; i < layout_.pairs.size(); ++i) SharePair(sequence, i, pool);
}

}  // namespace snug
