#include "kv/cache.h"

#include <algorithm>
#include <cstring>

namespace snug {
namespace {

constexpr uint32_t kTile = kTileTokens;
// More than any machine has, and little enough for sums of it: what a cache of absurd size takes.
constexpr uint64_t kMaxPoolBytes = uint64_t{1} << 60;
constexpr uint64_t kMaxPages = uint64_t{1} << 31;

uint32_t Tiles(uint64_t tokens) { return static_cast<uint32_t>((tokens + kTile - 1) / kTile); }

// The oldest token that a query at `position` or later sees in a layer with `window`.
uint32_t OldestSeen(uint32_t position, uint32_t window) {
  return window == 0 || position + 1 <= window ? 0 : position + 1 - window;
}

}  // namespace

uint64_t KvLayout::page_bytes() const {
  return uint64_t{kv_heads} * (KvTileBytes(key_type, head_dim) + KvTileBytes(value_type, head_dim));
}

uint32_t KvLayout::PagesOf(uint32_t layer, uint32_t tokens) const {
  if (!Attends(layer)) return 0;
  const uint32_t all = Tiles(tokens);
  if (window[layer] == 0) return all;
  // Window, rollback margin and the largest chunk, at the worst alignment.
  return std::min(all, Tiles(uint64_t{window[layer]} + kRollback + chunk) + 1);
}

uint64_t KvLayout::total_pages() const {
  if (one_step) return layers * (Tiles(chunk) + sequences);
  uint64_t pages = 0;
  for (uint32_t l = 0; l < layers; ++l) pages += PagesOf(l, context);
  return pages * sequences;
}

namespace {

// Bytes of all pages.
uint64_t PagesBytes(const KvLayout& layout) {
  const uint64_t page = layout.page_bytes(), pages = layout.total_pages();
  if (pages > kMaxPages || page * pages > kMaxPoolBytes) return kMaxPoolBytes;
  return Buffer::Reserved(page * pages, Pages::kNormal);
}

}  // namespace

uint64_t KvCache::PoolBytes(const KvLayout& layout) {
  return PagesBytes(layout) + StateStore::PoolBytes(layout.states);
}

uint64_t KvCache::TableBytes(const KvLayout& layout) {
  uint64_t attending = 0;
  for (uint32_t l = 0; l < layout.layers; ++l) attending += layout.Attends(l) ? 1 : 0;
  const uint64_t entries = attending * Tiles(layout.context) * layout.sequences;
  const uint64_t pages = std::min(layout.total_pages(), kMaxPages);
  return entries * sizeof(uint8_t*) + pages * (sizeof(uint32_t) + sizeof(uint16_t));
}

Result<KvCache> KvCache::Create(const KvLayout& layout, Ledger& ledger) {
  KvCache cache;
  cache.layout_ = layout;
  cache.page_bytes_ = layout.page_bytes();
  cache.key_tile_ = KvTileBytes(layout.key_type, layout.head_dim);
  cache.value_tile_ = KvTileBytes(layout.value_type, layout.head_dim);
  cache.tiles_per_layer_ = Tiles(layout.context);
  SNUG_ASSIGN(cache.pool_, Buffer::Allocate(ledger, Owner::kKv, PagesBytes(layout), Pages::kNormal,
                                            "key and value pages"));
  const auto pages = static_cast<uint32_t>(layout.total_pages());
  cache.uses_.assign(pages, 0);
  cache.free_.resize(pages);
  for (uint32_t i = 0; i < pages; ++i) cache.free_[i] = pages - 1 - i;
  for (uint32_t l = 0; l < layout.layers; ++l) {
    cache.row_.push_back(static_cast<uint32_t>(cache.attending_.size()));
    if (layout.Attends(l)) cache.attending_.push_back(l);
  }
  cache.sequences_.resize(layout.sequences);
  for (auto& s : cache.sequences_) {
    s.pages.assign(cache.attending_.size() * cache.tiles_per_layer_, nullptr);
  }
  SNUG_ASSIGN(cache.states_, StateStore::Create(layout.states, ledger));
  return cache;
}

uint8_t* KvCache::Take() {
  assert(!free_.empty());
  const uint32_t id = free_.back();
  free_.pop_back();
  uses_[id] = 1;
  return pool_.data() + id * page_bytes_;
}

void KvCache::Drop(uint8_t* page) {
  const auto id = static_cast<uint32_t>((page - pool_.data()) / page_bytes_);
  if (--uses_[id] == 0) free_.push_back(id);
}

uint8_t** KvCache::table(uint32_t sequence, uint32_t layer) {
  return sequences_[sequence].pages.data() + size_t{row_[layer]} * tiles_per_layer_;
}

const uint8_t* const* KvCache::tiles(uint32_t sequence, uint32_t layer) const {
  return const_cast<KvCache*>(this)->table(sequence, layer);
}

uint8_t* KvCache::page(uint32_t sequence, uint32_t layer, uint32_t tile) {
  return table(sequence, layer)[tile];
}

uint64_t KvCache::held_bytes() const {
  return (uses_.size() - free_.size()) * page_bytes_ + states_.held_bytes();
}

void KvCache::Extend(uint32_t sequence, uint32_t n) {
  const uint32_t length = sequences_[sequence].length;
  assert(n > 0 && length + n <= layout_.context);
  const uint32_t earliest = length > kRollback ? length - kRollback : 0;
  for (uint32_t l : attending_) {
    uint8_t** pages = table(sequence, l);
    const uint32_t dead = OldestSeen(earliest, layout_.window[l]) / kTile;
    for (uint32_t t = dead; t-- > 0 && pages[t] != nullptr;) {
      Drop(pages[t]);
      pages[t] = nullptr;
    }
    for (uint32_t t = length / kTile; t < Tiles(length + n); ++t) {
      if (pages[t] == nullptr) pages[t] = Take();
    }
  }
  states_.Extend(sequence);
}

void KvCache::Commit(uint32_t sequence, uint32_t n) {
  sequences_[sequence].length += n;
  states_.Commit(sequence, n);
}

uint32_t KvCache::Held(uint32_t sequence, uint32_t length) const {
  length = states_.Held(sequence, std::min(length, sequences_[sequence].length));
  for (uint32_t l : attending_) {
    const uint8_t* const* pages = tiles(sequence, l);
    const uint32_t first = OldestSeen(length, layout_.window[l]) / kTile;
    for (uint32_t t = first; t < Tiles(length); ++t) {
      if (pages[t] == nullptr) return 0;
    }
  }
  return length;
}

uint32_t KvCache::Truncate(uint32_t sequence, uint32_t length) {
  length = Held(sequence, length);
  for (uint32_t l : attending_) {
    uint8_t** pages = table(sequence, l);
    for (uint32_t t = Tiles(length); t < tiles_per_layer_; ++t) {
      if (pages[t] == nullptr) continue;
      Drop(pages[t]);
      pages[t] = nullptr;
    }
    // A shared page must not be written through: the partial one becomes our own.
    if (length % kTile != 0) {
      uint8_t*& last = pages[length / kTile];
      if (uses_[static_cast<size_t>((last - pool_.data()) / page_bytes_)] > 1) {
        uint8_t* own = Take();
        std::memcpy(own, last, page_bytes_);
        Drop(last);
        last = own;
      }
    }
  }
  states_.Restore(sequence, length);
  sequences_[sequence].length = length;
  return length;
}

void KvCache::Clear(uint32_t sequence) {
  Sequence& s = sequences_[sequence];
  for (uint8_t*& page : s.pages) {
    if (page != nullptr) Drop(page);
    page = nullptr;
  }
  states_.Clear(sequence);
  s.length = 0;
}

uint32_t KvCache::Share(uint32_t from, uint32_t to, uint32_t length) {
  assert(from != to && sequences_[to].length == 0);
  length = Held(from, length);
  for (uint32_t l : attending_) {
    uint8_t** source = table(from, l);
    uint8_t** target = table(to, l);
    const uint32_t first = OldestSeen(length, layout_.window[l]) / kTile;
    for (uint32_t t = first; t < Tiles(length); ++t) {
      if ((t + 1) * kTile <= length) {
        target[t] = source[t];
        ++uses_[static_cast<size_t>((source[t] - pool_.data()) / page_bytes_)];
      } else {
        target[t] = Take();
        std::memcpy(target[t], source[t], page_bytes_);
      }
    }
  }
  states_.Share(from, to, length);
  sequences_[to].length = length;
  return length;
}

}  // namespace snug
