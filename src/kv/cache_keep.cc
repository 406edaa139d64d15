// Prompts layer by layer, and the cache where a keep method drops rows.
#include <algorithm>
#include <cassert>

#include "kv/cache.h"

namespace snug {

void KvCache::BeginPrompt(uint32_t sequence, uint32_t tokens) {
  kept_.BeginPrompt(sequence, length(sequence), tokens);
}

void KvCache::BeginLayer(uint32_t sequence, uint32_t layer) {
  if (layout_.Drops(layer)) kept_.BeginLayer(kept_row_[layer], rows(sequence, layer));
}

void KvCache::EndLayer(uint32_t sequence, uint32_t layer, ThreadPool& pool) {
  if (layout_.Codes(layer)) EncodeLayer(sequence, layer, pool);
  if (!layout_.Drops(layer)) return;
  const uint32_t held = rows(sequence, layer), stay = std::min(held, kept_.Stay(sequence));
  if (stay < held) {
    const uint32_t end = length(sequence) + kept_.prompt_tokens();
    pool.For(layout_.kv_heads, [&](size_t head, int) {
      kept_.Choose(sequence, kept_row_[layer], layer, static_cast<uint32_t>(head), held, stay, end);
    });
    pool.For(layout_.kv_heads, [&](size_t head, int) {
      Compact(sequence, layer, static_cast<uint32_t>(head), held, stay);
    });
    FreePages(sequence, layer, stay);
  }
  kept_.EndLayer(kept_row_[layer], stay);
}

void KvCache::EndPrompt(uint32_t sequence) {
  sequences_[sequence].length += kept_.prompt_tokens();
  kept_.EndPrompt();
}

void KvCache::DropRows(uint32_t sequence, ThreadPool& pool) {
  const uint32_t end = length(sequence), limit = kept_.Stay(sequence);
  pool.For(dropping_.size(), [&](size_t kept, int) {
    const uint32_t layer = dropping_[kept], held = rows(sequence, layer);
    const auto k = static_cast<uint32_t>(kept);
    kept_.Append(sequence, k, held - 1, end - 1);
    if (held <= limit) return;
    for (uint32_t h = 0; h < layout_.kv_heads; ++h) {
      kept_.Choose(sequence, k, layer, h, held, limit, end);
    }
    for (uint32_t h = 0; h < layout_.kv_heads; ++h) Compact(sequence, layer, h, held, limit);
  });
  for (const uint32_t layer : dropping_) {
    if (rows(sequence, layer) > limit) FreePages(sequence, layer, limit);
  }
}

void KvCache::Compact(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows,
                      uint32_t stay) {
  const std::span<const uint32_t> dropped =
      kept_.dropped(sequence, kept_row_[layer], head, rows - stay);
  const size_t dim = layout_.head_dim;
  uint8_t* const* pages = table(sequence, layer, head);
  // Rows from `stay` on that are not dropped take the places of those before it that are.
  auto later = std::lower_bound(dropped.begin(), dropped.end(), stay);
  uint32_t from = stay;
  for (const uint32_t to : dropped) {
    if (to >= stay) break;
    for (; later != dropped.end() && *later == from; ++later) ++from;
    const uint8_t* source = pages[from / kTileTokens];
    uint8_t* target = pages[to / kTileTokens];
    CopyKey(layout_.key_type, source, from % kTileTokens, dim, target, to % kTileTokens);
    CopyValue(layout_.value_type, source + key_tile_, from % kTileTokens, dim, target + key_tile_,
              to % kTileTokens);
    kept_.Move(sequence, kept_row_[layer], head, from, to);
    ++from;
  }
}

void KvCache::FreePages(uint32_t sequence, uint32_t layer, uint32_t rows) {
  sequences_[sequence].rows[row_[layer]] = rows;
  const size_t first = (rows + kTileTokens - 1) / kTileTokens;
  for (uint32_t g = 0; g < layout_.groups(); ++g) {
    uint8_t** pages = table(sequence, layer, g);
    for (size_t t = first; t < tiles_per_layer_ && pages[t] != nullptr; ++t) {
      Drop(pages[t]);
      pages[t] = nullptr;
    }
  }
}

ColumnSums KvCache::Watch(uint32_t sequence, uint32_t layer, uint32_t position, uint32_t tokens) {
  if (!layout_.Drops(layer)) return {tokens, nullptr, 0, {}};
  return kept_.Watch(sequence, kept_row_[layer], rows(sequence, layer), position, tokens);
}

std::span<const uint32_t> KvCache::positions(uint32_t sequence, uint32_t layer,
                                             uint32_t head) const {
  return kept_.positions(sequence, kept_row_[layer], head, rows(sequence, layer));
}

}  // namespace snug
