// What a codec (codec/codec.h) has taken over of sequences: pages of coded tiles, from a pool of
// their own, and how many tokens of each layer they hold. A page holds 64 tokens of one layer: the
// coded keys of all KV heads, then their coded values. Rows that stay exact beside them lie apart,
// as they were stored.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "kernel/attention.h"
#include "kv/codec/codec.h"

namespace snug {

struct CodedLayout {
  std::shared_ptr<const KvCodec> codec;  // null: every row stays as it was stored
  std::vector<uint32_t> layers;          // of the model, whose rows are coded
  uint32_t heads = 0, head_dim = 0, context = 0, sequences = 1;
  KvType key_type = KvType::kF16, value_type = KvType::kF16;  // as rows were stored
  uint64_t page_bytes() const;
  // Of all heads' keys (values) of a token that stays exact, and of all such tokens of a layer.
  uint64_t exact_row_bytes(KvType type) const;
  uint64_t exact_bytes() const;
  uint64_t most_exact_bytes() const;        // of all layers and sequences
  uint32_t PagesOf(uint32_t tokens) const;  // of a layer of a sequence of so many tokens
  uint64_t pages() const;                   // of all, at full context
};

// Layers are counted among those that are coded.
class CodedPages {
 public:
  // Reserves the pool (Owner::kKv); pages become resident as they are first written.
  static Result<CodedPages> Create(const CodedLayout& layout, Ledger& ledger);

  // The tokens that a call to Grow adds: [from, to) of keys and of values.
  struct Added {
    uint32_t key_from = 0, key_to = 0, value_from = 0, value_to = 0;
    bool any() const { return key_from < key_to || value_from < value_to; }
    uint32_t first_tile() const;
    uint32_t end_tile() const;
  };
  // Makes pages for what the codec takes over of a layer that now holds `tokens` tokens.
  Added Grow(uint32_t sequence, uint32_t layer, uint32_t tokens);
  // Makes those of tiles [first, end) which have none yet.
  void MakePages(uint32_t sequence, uint32_t layer, uint32_t first, uint32_t end);
  // Codes what one tile of a head has of it, from where attention stored it.
  void Encode(uint32_t sequence, uint32_t layer, const Added& added, TileAt at, KvType type,
              const uint8_t* keys, const uint8_t* values) {
    EncodeTile(*tiles_[layer], added, at, layout_.heads, type, keys, values,
               At(sequence, layer).pages[at.tile]);
  }
  // The same, to a page of `heads` KV heads.
  static void EncodeTile(const TileCodec& codec, const Added& added, TileAt at, uint32_t heads,
                         KvType type, const uint8_t* keys, const uint8_t* values, uint8_t* page);

  // The rows of these tokens of a layer, ascending and at most Extremes(), stay exact; they are to
  // be stored before they are coded.
  void KeepExact(uint32_t sequence, uint32_t layer, std::span<const uint32_t> tokens);
  std::span<const uint32_t> exact(uint32_t sequence, uint32_t layer) const;
  // Stores number `i` of them: slot `slot` of all heads' tiles, which follow each other from `keys`
  // and from `values` on.
  void StoreExact(uint32_t sequence, uint32_t layer, size_t i, size_t slot, const uint8_t* keys,
                  const uint8_t* values);

  // What attention reads; no codec where nothing is coded.
  CodedRows rows(uint32_t sequence, uint32_t layer) const;
  void Clear(uint32_t sequence);
  // `to`, which is empty, becomes what `from` is.
  void Copy(uint32_t from, uint32_t to);
  const TileCodec& codec(uint32_t layer) const { return *tiles_[layer]; }
  // By tile, or null; the table stays where it is.
  uint8_t* const* pages(uint32_t sequence, uint32_t layer) {
    return At(sequence, layer).pages.data();
  }
  uint64_t page_bytes() const { return page_bytes_; }
  uint64_t held_bytes() const;

 private:
  struct Layer {
    uint32_t keys = 0, values = 0;
    std::vector<uint8_t*> pages;  // by tile, or null
    std::vector<uint32_t> exact;  // tokens; capacity: Extremes()
  };
  Layer& At(uint32_t sequence, uint32_t layer) {
    return lists_[sequence * layout_.layers.size() + layer];
  }

  uint8_t* Take();

  CodedLayout layout_;
  std::vector<std::shared_ptr<const TileCodec>> tiles_;  // [layers]
  // [sequences, layers] of exact_bytes(): keys [Extremes(), heads, head_dim], then values.
  uint8_t* ExactKeys(uint32_t sequence, uint32_t layer) const;
  uint8_t* ExactValues(uint32_t sequence, uint32_t layer) const;
  Buffer pool_, exact_;
  uint64_t page_bytes_ = 0;
  size_t pages_ = 0;
  std::vector<uint32_t> free_;  // page ids, a stack: the lowest ids are used first
  std::vector<Layer> lists_;    // [sequences, layers]
};

}  // namespace snug
