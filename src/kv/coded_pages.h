// What a codec (codec/codec.h) has taken over of sequences: pages of coded tiles, from a pool of
// their own, and how many tokens of each layer they hold. A page holds 64 tokens of one layer: the
// coded keys of all KV heads, then their coded values.
#pragma once

#include <cstdint>
#include <memory>
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
  uint64_t page_bytes() const;
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
  // Codes what one tile of a head has of it, from where attention stored it.
  void Encode(uint32_t sequence, uint32_t layer, const Added& added, uint32_t tile, uint32_t head,
              KvType type, const uint8_t* keys, const uint8_t* values);

  // What attention reads; no codec where nothing is coded.
  CodedRows rows(uint32_t sequence, uint32_t layer) const;
  void Clear(uint32_t sequence);
  uint64_t page_bytes() const { return page_bytes_; }
  uint64_t held_bytes() const { return (pages_ - free_.size()) * page_bytes_; }

 private:
  struct Layer {
    uint32_t keys = 0, values = 0;
    std::vector<uint8_t*> pages;  // by tile, or null
  };
  Layer& At(uint32_t sequence, uint32_t layer) {
    return lists_[sequence * layout_.layers.size() + layer];
  }

  CodedLayout layout_;
  std::vector<std::shared_ptr<const TileCodec>> tiles_;  // [layers]
  Buffer pool_;
  uint64_t page_bytes_ = 0;
  size_t pages_ = 0;
  std::vector<uint32_t> free_;  // page ids, a stack: the lowest ids are used first
  std::vector<Layer> lists_;    // [sequences, layers]
};

}  // namespace snug
