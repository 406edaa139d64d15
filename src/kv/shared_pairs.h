// What pairs of layers (share/share.h) have beside the pages of what they share: each layer's
// scales, and both layers' rows of tokens that stay apart. The shared rows themselves lie in the
// lower layer's pages, in the place of what it had stored.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "kernel/attention.h"
#include "kv/share/share.h"

namespace snug {

struct SharedLayout {
  std::shared_ptr<const ShareMethod> method;                  // null: no layer shares
  uint32_t pairs = 0;                                         // of layers
  KvType key_type = KvType::kF16, value_type = KvType::kF16;  // f16, bf16 or f32
  uint32_t heads = 0, head_dim = 0, context = 0, sequences = 1;

  uint32_t units() const { return method->by_head() ? heads : 1; }  // of a row, with own scales
  uint64_t bytes() const;        // of all, at full context, and of the room that merging takes
  uint64_t table_bytes() const;  // of heap beside
  // Bytes that one layer of a pair reads of it after `tokens` tokens, at most.
  uint64_t BytesRead(uint32_t tokens) const;
};

class SharedPairs {
 public:
  // Reserves everything (Owner::kKv), which becomes resident as it is first written.
  static Result<SharedPairs> Create(const SharedLayout& layout, Ledger& ledger);

  // Rows [from, to) of a pair that are to be merged: whole tiles. Merging goes by tasks that touch
  // different memory: Measure for all tiles, Choose for all units, Merge for all tiles, then
  // Finish. One pair at a time.
  struct Rows {
    uint32_t from = 0, to = 0;
    bool any() const { return from < to; }
  };
  Rows Due(uint32_t sequence, uint32_t pair, uint32_t tokens) const;
  // How unlike a tile's rows are; pages as the cache has them (cache.h).
  void Measure(const Rows& rows, uint32_t tile, const uint8_t* lower, const uint8_t* upper);
  // Which rows of unit number `unit` stay apart.
  void Choose(uint32_t sequence, uint32_t pair, const Rows& rows, uint32_t unit);
  // Shared rows take the places of those in `lower`.
  void Merge(uint32_t sequence, uint32_t pair, uint32_t tile, uint8_t* lower, const uint8_t* upper);
  void Finish(uint32_t sequence, uint32_t pair, const Rows& rows);
  void Clear(uint32_t sequence);
  // `to`, which is empty, becomes what `from` is.
  void Copy(uint32_t from, uint32_t to);

  // What one layer of a pair reads, without the tiles.
  SharedRows rows(uint32_t sequence, uint32_t pair, bool upper) const;
  // Bytes of it, beside the tiles.
  uint64_t BytesRead(uint32_t sequence, uint32_t pair) const;
  uint64_t held_bytes() const;

 private:
  friend struct SharedLayout;
  static constexpr size_t kSides = 2;   // keys, values
  static constexpr size_t kLayers = 2;  // of a pair: the lower, the upper
  struct Pair {
    uint32_t rows = 0;
    std::vector<ApartSoFar> apart;  // [sides, units]
    std::vector<OwnRows> own;       // [layers, sides, heads]
  };
  struct Offsets;  // of the parts of a pair's memory

  Pair& At(uint32_t sequence, uint32_t pair) { return pairs_[sequence * layout_.pairs + pair]; }
  const Pair& At(uint32_t sequence, uint32_t pair) const {
    return pairs_[sequence * layout_.pairs + pair];
  }
  static Offsets LayOut(const SharedLayout& layout);
  uint8_t* Base(uint32_t sequence, uint32_t pair) const;
  float* Scales(uint32_t sequence, uint32_t pair, size_t layer, size_t side, size_t unit) const;
  uint32_t* ApartList(uint32_t sequence, uint32_t pair, size_t side, size_t unit) const;
  // Where row `index` of those of a head that stay apart lies.
  uint8_t* OwnRow(uint32_t sequence, uint32_t pair, size_t layer, size_t side, size_t head,
                  size_t index) const;
  float* Distances(size_t side, size_t unit) const;
  KvType Type(size_t side) const { return side == 0 ? layout_.key_type : layout_.value_type; }
  // A head's tile in a page.
  size_t TileAt(size_t side, size_t head) const;
  size_t heads_per_unit() const { return layout_.heads / layout_.units(); }
  void Update(uint32_t sequence, uint32_t pair);

  SharedLayout layout_;
  Buffer buffer_;
  std::vector<Pair> pairs_;  // [sequences, pairs]
};

}  // namespace snug
