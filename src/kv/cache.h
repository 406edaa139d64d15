// The paged cache. A page holds 64 tokens of one layer: the key tiles of all KV heads, then the
// value tiles. Pages come from one pool; sequences refer to them by table, share them by count, and
// layers with a window give back what lies before it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "kernel/attention.h"
#include "model/config.h"

namespace snug {

struct KvLayout {
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  uint32_t layers = 0, kv_heads = 0, head_dim = 0;
  std::vector<uint32_t> window;  // [layers]
  uint32_t context = 0, sequences = 1, chunk = 0;
  // Sequences last for one step, of at most `chunk` tokens in all, as those of encoders do.
  bool one_step = false;

  uint64_t page_bytes() const;
  // Pages a sequence of `tokens` tokens holds at most in one layer.
  uint32_t PagesOf(uint32_t layer, uint32_t tokens) const;
  uint64_t total_pages() const;  // of all layers and sequences at full context
};
// Tokens by which a sequence may be rolled back without losing what its windows need.
inline constexpr uint32_t kRollback = 64;

class KvCache {
 public:
  // Reserves the pool (Owner::kKv); pages become resident as they are first written.
  static Result<KvCache> Create(const KvLayout& layout, Ledger& ledger);
  // 2^60 where the size would be absurd, which no ledger grants.
  static uint64_t PoolBytes(const KvLayout& layout);
  // Heap that page tables take beside the pool.
  static uint64_t TableBytes(const KvLayout& layout);

  uint32_t length(uint32_t sequence) const { return sequences_[sequence].length; }
  // Makes pages for tokens [length, length + n) in every layer and gives back pages that no later
  // token can see. Never fails within the context that the layout was made for.
  void Extend(uint32_t sequence, uint32_t n);
  // The tokens that Extend made room for are now part of the sequence.
  void Commit(uint32_t sequence, uint32_t n) { sequences_[sequence].length += n; }
  // Returns false, and clears the sequence, when a window no longer holds what `length` needs.
  bool Truncate(uint32_t sequence, uint32_t length);
  void Clear(uint32_t sequence);
  // `to` (empty) shares the whole pages of `from`'s first `length` tokens, copying a last partial
  // page. Returns false where a window of `from` no longer holds them.
  bool Share(uint32_t from, uint32_t to, uint32_t length);

  // Page bases by tile index, for AttentionArgs::tiles.
  const uint8_t* const* tiles(uint32_t sequence, uint32_t layer) const;
  uint8_t* page(uint32_t sequence, uint32_t layer, uint32_t tile);
  const KvLayout& layout() const { return layout_; }
  size_t key_tile_bytes() const { return key_tile_; }
  size_t value_tile_bytes() const { return value_tile_; }
  // Bytes of pages in use now.
  uint64_t held_bytes() const;

 private:
  struct Sequence {
    uint32_t length = 0;
    std::vector<uint8_t*> pages;  // [layers, tiles_per_layer], null where none
  };
  uint8_t* Take();
  void Drop(uint8_t* page);
  uint8_t** table(uint32_t sequence, uint32_t layer);

  KvLayout layout_;
  Buffer pool_;
  uint64_t page_bytes_ = 0;
  size_t key_tile_ = 0, value_tile_ = 0;
  uint32_t tiles_per_layer_ = 0;
  std::vector<uint32_t> free_;  // page ids, a stack: the lowest ids are used first
  std::vector<uint16_t> uses_;  // [pages]
  std::vector<Sequence> sequences_;
};

}  // namespace snug
