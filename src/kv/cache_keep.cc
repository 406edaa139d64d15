// Prompts layer by layer, and the cache where a keep method drops rows.
#include <algorithm>
#include <cassert>

#include "kv/cache.h"

namespace snug {

void KvCache::BeginPrompt(uint32_t sequence, uint32_t tokens, std::string_view text) {
  // Rows that are due are coded with the prompt's.
  if (encoder_ != nullptr) encoder_->Discard(sequence);
  kept_.BeginPrompt(sequence, length(sequence), tokens, text);
  segments_.BeginPrompt(sequence, length(sequence), tokens);
}

void KvCache::BeginLayer(uint32_t sequence, uint32_t layer) {
  if (layout_.Drops(layer)) kept_.BeginLayer(kept_row_[layer], rows(sequence, layer));
  if (layout_.Segments(layer)) segments_.BeginLayer(coded_row_[layer]);
}

void KvCache::EndLayer(uint32_t sequence, uint32_t layer, ThreadPool& pool) {
  if (layout_.Codes(layer)) EncodeLayer(sequence, layer, pool);
  if (layout_.Borrows(layer)) {
    SharePair(sequence, static_cast<uint32_t>(layout_.PairOf(layer)), pool);
  }
  if (!layout_.Drops(layer)) return;
  const uint32_t held = rows(sequence, layer);
  uint32_t stay = std::min(held, kept_.Stay(sequence, kept_row_[layer]));
  if (layout_.keep->merging() == nullptr) {
    stay = DropFromPrompt(sequence, layer, pool);
  } else if (stay < held) {
    stay = Merge(sequence, layer, stay, pool);
  }
  if (stay < held) FreePages(sequence, layer, stay);
  kept_.EndLayer(kept_row_[layer], stay);
}

uint32_t KvCache::DropFromPrompt(uint32_t sequence, uint32_t layer, ThreadPool& pool) {
  const uint32_t k = kept_row_[layer], held = rows(sequence, layer);
  const uint32_t end = length(sequence) + kept_.prompt_tokens();
  // Rows of a layer that follows lie as those of the one before did, whose choice is still there.
  if (!kept_.Follows(k)) {
    followed_ = 0;
    if (kept_.Stay(sequence, k) < held) {
      pool.For(layout_.kv_heads, [&](size_t head, int) {
        const auto h = static_cast<uint32_t>(head);
        const uint32_t n = kept_.Choose(sequence, k, layer, h, held, end);
        if (h == 0) followed_ = n;
      });
    }
  }
  const uint32_t stay = held - followed_;
  if (followed_ == 0) return stay;
  pool.For(layout_.kv_heads, [&](size_t head, int) {
    CloseGaps(sequence, layer, static_cast<uint32_t>(head), held, followed_);
    Compact(sequence, layer, static_cast<uint32_t>(head), held, stay);
  });
  RollKeys(sequence, layer, stay, end, pool);
  return stay;
}

void KvCache::EndPrompt(uint32_t sequence) {
  sequences_[sequence].length += kept_.prompt_tokens();
  kept_.EndPrompt();
  segments_.EndPrompt();
  BeginCoding(sequence);
}

void KvCache::DropRows(uint32_t sequence, ThreadPool& pool) {
  const uint32_t end = length(sequence);
  pool.For(dropping_.size(), [&](size_t kept, int) {
    const uint32_t layer = dropping_[kept], held = rows(sequence, layer);
    const auto k = static_cast<uint32_t>(kept);
    kept_.Append(sequence, k, held - 1, end - 1);
    const uint32_t limit = kept_.Stay(sequence, k);
    if (held <= limit || layout_.keep->merging() != nullptr) return;
    for (uint32_t h = 0; h < layout_.kv_heads; ++h) kept_.Choose(sequence, k, layer, h, held, end);
    for (uint32_t h = 0; h < layout_.kv_heads; ++h) {
      CloseGaps(sequence, layer, h, held, held - limit);
      Compact(sequence, layer, h, held, limit);
    }
  });
  for (const uint32_t layer : dropping_) {
    const uint32_t limit = kept_.Stay(sequence, kept_row_[layer]);
    if (rows(sequence, layer) <= limit) continue;
    const bool merges = layout_.keep->merging() != nullptr;
    RollKeys(sequence, layer, limit, end, pool);
    FreePages(sequence, layer, merges ? Merge(sequence, layer, 0, pool) : limit);
  }
}

void KvCache::Compact(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows,
                      uint32_t stay) {
  const std::span<const uint32_t> dropped =
      kept_.dropped(sequence, kept_row_[layer], head, rows - stay);
  // Rows from `stay` on that are not dropped take the places of those before it that are.
  auto later = std::lower_bound(dropped.begin(), dropped.end(), stay);
  uint32_t from = stay;
  for (const uint32_t to : dropped) {
    if (to >= stay) break;
    for (; later != dropped.end() && *later == from; ++later) ++from;
    MoveRow(sequence, layer, head, from, to);
    ++from;
  }
}

void KvCache::MoveRow(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t from,
                      uint32_t to) {
  const uint8_t* source = page(sequence, layer, from / kTileTokens, head);
  uint8_t* target = page(sequence, layer, to / kTileTokens, head);
  const size_t dim = layout_.head_dim;
  CopyKey(layout_.key_type, source, from % kTileTokens, dim, target, to % kTileTokens);
  CopyValue(layout_.value_type, source + key_tile_, from % kTileTokens, dim, target + key_tile_,
            to % kTileTokens);
  kept_.Move(sequence, kept_row_[layer], head, from, to);
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
  if (layout_.Segments(layer)) {
    return segments_.Watch(sequence, coded_row_[layer], rows(sequence, layer), tokens);
  }
  if (!layout_.Drops(layer)) return {tokens, nullptr, 0, {}};
  return kept_.Watch(sequence, kept_row_[layer], rows(sequence, layer), position, tokens);
}

std::span<const uint32_t> KvCache::positions(uint32_t sequence, uint32_t layer,
                                             uint32_t head) const {
  return kept_.positions(sequence, kept_row_[layer], head, rows(sequence, layer));
}

uint32_t KvCache::members(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t row) const {
  return kept_.members(sequence, kept_row_[layer], head, row);
}

KeptRows::Bias KvCache::bias(uint32_t sequence, uint32_t layer) const {
  if (!layout_.Drops(layer) || layout_.keep->merging() == nullptr) return {};
  return kept_.bias(sequence, kept_row_[layer]);
}

}  // namespace snug
