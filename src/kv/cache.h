// What sequences remember. Layers with attention have pages: a page holds 64 tokens of one layer,
// the key tiles of a group of KV heads, then the value tiles, then
// what a read method (read/read.h) knows of the keys. Pages come from one pool; sequences
// refer to them by table, share them by count, and layers with a window give back what lies before
// it. Recurrent layers have states (states.h) and no pages.
//
// Where every row stays, a group has all heads and a token's row is its position. Where a keep
// method (keep/keep.h) drops or merges rows, each head has pages of its own; rows of layers without
// a window then lie in any order, the newest last, and kept_rows.h knows which tokens they are.
// Where positions roll (rolled_keys.h), a sequence goes on past the context that the layout is for.
// Where a codec (codec/codec.h) takes rows over, pages of layers without a window have the newest
// rows, and coded_pages.h or coded_segments.h has those before. Where layers share rows in pairs
// (share/share.h), the lower layer's pages have the shared rows in the place of its own, and the
// upper layer has pages of the newest rows; shared_pairs.h has the rest. Where rows live elsewhere
// (place/place.h), pages have the newest ones, and placed_rows.h has those before and the indexes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "kernel/attention.h"
#include "kv/codec/codec.h"
#include "kv/coded_pages.h"
#include "kv/coded_segments.h"
#include "kv/encoder.h"
#include "kv/keep/keep.h"
#include "kv/kept_rows.h"
#include "kv/place/place.h"
#include "kv/placed_rows.h"
#include "kv/read/read.h"
#include "kv/rolled_keys.h"
#include "kv/share/share.h"
#include "kv/shared_pairs.h"
#include "kv/states.h"
#include "model/config.h"

namespace snug {

struct KvLayout {
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  uint32_t layers = 0, kv_heads = 0, head_dim = 0;
  uint32_t query_heads = 1;      // of each KV head
  std::vector<uint32_t> window;  // [layers]
  std::vector<bool> attends;     // [layers]; empty: every layer does
  StateLayout states;            // of the layers that do not
  uint32_t context = 0, sequences = 1, chunk = 0;
  // Sequences last for one step, of at most `chunk` tokens in all, as those of encoders do.
  bool one_step = false;
  // Layers hold rows one at a time, as those of a prompt do of which nothing is kept.
  bool one_layer = false;
  // Which rows stay, of layers without a window; null: all do.
  std::shared_ptr<const KeepMethod> keep;
  // Rows that stay close up: positions roll. Only where a method drops rows, and merges none.
  std::optional<KeyRotation> rolling;
  // What takes rows over, of layers without a window; null: nothing.
  std::shared_ptr<const KvCodec> codec;
  std::function<void()> encode_delay;  // test hook, see TileEncoder
  // Which rows a decoded token reads, of layers without a window; null: all.
  std::shared_ptr<const RowMethod> read;
  // How layers share rows, and which: the lower layer of each pair, of layers without a window.
  std::shared_ptr<const ShareMethod> share;
  std::vector<uint32_t> pairs;
  // Where the rows live that decoded tokens choose from, and its folder; null: in pages.
  std::shared_ptr<const PlaceMethod> place;
  std::string folder;

  bool Attends(uint32_t layer) const { return attends.empty() || attends[layer]; }
  bool Drops(uint32_t layer) const {
    return keep != nullptr && Attends(layer) && window[layer] == 0;
  }
  bool Codes(uint32_t layer) const {
    return codec != nullptr && Attends(layer) && window[layer] == 0;
  }
  bool Reads(uint32_t layer) const {
    return read != nullptr && Attends(layer) && window[layer] == 0 && read->Reads(layer);
  }
  // Whether keys lie as values do (AttentionArgs::key_rows).
  bool KeyRows(uint32_t layer) const { return Reads(layer) && !Codes(layer) && read->key_rows(); }
  bool Segments(uint32_t layer) const { return Codes(layer) && codec->segment_unit() != 0; }
  // Whether attention may be asked what the layer's rows get.
  bool Observes(uint32_t layer) const { return Drops(layer) || Segments(layer); }
  // Whether rows leave the layer's pages for another place.
  bool Places(uint32_t layer) const { return place != nullptr && Reads(layer); }
  // The pair that a layer is of, or -1.
  int PairOf(uint32_t layer) const;
  // Whether a layer's shared rows lie in the pages of the one below.
  bool Borrows(uint32_t layer) const {
    const int pair = PairOf(layer);
    return pair >= 0 && pairs[static_cast<size_t>(pair)] != layer;
  }
  // Of a tile of a head, in the pages of all layers (a pool has pages of one size) or, where rows
  // live elsewhere, beside them.
  uint64_t index_bytes() const { return read == nullptr ? 0 : read->IndexBytes(head_dim); }
  uint32_t groups() const { return keep == nullptr ? 1 : kv_heads; }  // of heads, with own pages
  KeptLayout kept() const;
  // Rows of a head at most, at full context.
  uint32_t MostRows(uint32_t layer) const;
  // Rows of a layer that tables have room for: the context, or, where sequences go on past it,
  // what the widest window needs if that is more.
  uint32_t reach() const;
  RolledLayout rolled() const;
  CodedLayout coded() const;
  SegmentLayout segments() const;
  SharedLayout shared() const;
  PlacedLayout placed() const;
  uint64_t page_bytes() const;
  uint64_t tile_bytes() const;  // keys and values of 64 tokens of a layer
  // Pages of each group that a sequence of `tokens` tokens holds at most in one layer.
  uint32_t PagesOf(uint32_t layer, uint32_t tokens) const;
  // Of all layers and sequences at full context; where rows are dropped, coded or shared, and one
  // layer reads a prompt that fills it.
  uint64_t total_pages() const;
  // Bytes of pages that a token reads after `depth` others.
  uint64_t BytesRead(uint32_t depth) const;
};
// Tokens by which a sequence may be rolled back without losing what its windows need.
inline constexpr uint32_t kRollback = 64;

class KvCache {
 public:
  // Reserves pages and states (Owner::kKv); they become resident as they are first written.
  static Result<KvCache> Create(const KvLayout& layout, Ledger& ledger);
  // 2^60 where the size would be absurd, which no ledger grants.
  static uint64_t PoolBytes(const KvLayout& layout);
  // Heap that page tables take beside the pool.
  static uint64_t TableBytes(const KvLayout& layout);

  uint32_t length(uint32_t sequence) const { return sequences_[sequence].length; }
  // Rows that a layer with attention holds: the sequence's length, or those that stayed. Where
  // positions roll, those of a layer with a window may begin after some that it no longer sees.
  uint32_t rows(uint32_t sequence, uint32_t layer) const {
    return sequences_[sequence].rows[row_[layer]];
  }
  // Of the context, what the sequence takes: its length, or, where positions roll, the rows of the
  // layer that holds most of those that drop some.
  uint32_t Taken(uint32_t sequence) const;
  // Makes pages for tokens [length, length + n) in every layer and gives back pages that no later
  // token can see. Never fails within the context that the layout was made for.
  void Extend(uint32_t sequence, uint32_t n);
  // The tokens that Extend made room for are now part of the sequence.
  void Commit(uint32_t sequence, uint32_t n);
  // The most of the sequence's first `length` tokens that it can go on from: all of them, fewer
  // where states are held only there, none where a window no longer has what they need.
  uint32_t Held(uint32_t sequence, uint32_t length) const;
  // Goes back to Held(sequence, length) and returns it.
  uint32_t Truncate(uint32_t sequence, uint32_t length);
  void Clear(uint32_t sequence);
  // `to` (empty) starts with Held(from, length) tokens of `from`, which it returns: whole pages and
  // states are shared, a last partial page is copied.
  uint32_t Share(uint32_t from, uint32_t to, uint32_t length);
  // `to` becomes what `from` is, with pages of its own: both go on as if each were alone. Not while
  // a prompt is read.
  void Copy(uint32_t from, uint32_t to);

  // --- where a method drops rows (layout().keep), a codec takes them over (layout().codec), layers
  // share them (layout().share) or they live elsewhere (layout().place): a prompt goes layer by
  // layer, which happens to each layer's (pair's) rows before the next one's begin.
  // Nothing of such a sequence can be rolled back or shared; a prompt that is not ended leaves it
  // to be cleared. `text`: how the prompt ends (KeepMethod::reads_end).
  void BeginPrompt(uint32_t sequence, uint32_t tokens, std::string_view text = {});
  void BeginLayer(uint32_t sequence, uint32_t layer);
  void ExtendLayer(uint32_t sequence, uint32_t layer, uint32_t n);
  void CommitLayer(uint32_t sequence, uint32_t layer, uint32_t n);
  // Of a layer that is coded, before its rows are: the rows of these tokens of the prompt,
  // ascending (at most the codec's Extremes()), stay exact.
  void KeepExact(uint32_t sequence, uint32_t layer, std::span<const uint32_t> tokens);
  void EndLayer(uint32_t sequence, uint32_t layer, ThreadPool& pool);
  void EndPrompt(uint32_t sequence);
  // After Commit of one token: drops or merges what does not stay.
  void DropRows(uint32_t sequence, ThreadPool& pool);
  // After Commit of one token: the codec takes over what has grown old, or what was coded beside
  // the steps since it had (KvCodec::lag).
  void EncodeRows(uint32_t sequence, ThreadPool& pool);
  // After Commit of one token: layers share what has grown old.
  void ShareRows(uint32_t sequence, ThreadPool& pool);
  // Before BeginLayer: a layer's rows that live elsewhere come back into pages. kIo.
  Status FetchLayer(uint32_t sequence, uint32_t layer);
  // After EndLayer: whole tiles leave for where they live. kIo, with nothing lost.
  Status PlaceLayer(uint32_t sequence, uint32_t layer);
  // The same for all layers, before Extend by one token.
  Status PlaceRows(uint32_t sequence);
  // The layer's rows and indexes, where they are not in its pages.
  PlacedLayer placed(uint32_t sequence, uint32_t layer);
  const PlacedStats& placed_stats() const { return placed_.stats(); }
  // What attention is to observe in a step of `tokens` rows, the first of which is token number
  // `position`; first_row is `tokens` for nothing.
  ColumnSums Watch(uint32_t sequence, uint32_t layer, uint32_t position, uint32_t tokens);
  // The tokens that a head's rows are; of merged ones one each.
  std::span<const uint32_t> positions(uint32_t sequence, uint32_t layer, uint32_t head) const;
  // How many tokens a row stands for.
  uint32_t members(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t row) const;
  // What joins the scores of a layer's rows, for AttentionArgs::bias; null: nothing.
  KeptRows::Bias bias(uint32_t sequence, uint32_t layer) const;
  // What keeps the sequence's rows (KeepMethod::ForPrompt), of a cache that has such a method.
  const KeepMethod& keeper(uint32_t sequence) const { return kept_.method(sequence); }

  // Page bases by group and tile index, for AttentionArgs::tiles; groups lie table_stride() apart.
  const uint8_t* const* tiles(uint32_t sequence, uint32_t layer) const;
  // What the codec has in their place, for AttentionArgs::coded.
  CodedRows coded(uint32_t sequence, uint32_t layer) const;
  // What the layer shares with another one in their place, for AttentionArgs::shared, and the bytes
  // that reading it takes beside its tiles.
  SharedRows shared(uint32_t sequence, uint32_t layer) const;
  uint64_t shared_bytes_read(uint32_t sequence, uint32_t layer) const;
  size_t table_stride() const { return tiles_per_layer_; }
  uint8_t* page(uint32_t sequence, uint32_t layer, uint32_t tile, uint32_t group = 0);
  // Rows [first, last) of a tile have been stored: the read method notes what it wants to know.
  void IndexRows(uint32_t sequence, uint32_t layer, uint32_t tile, uint32_t first, uint32_t last);
  const KvLayout& layout() const { return layout_; }
  size_t key_tile_bytes() const { return key_tile_; }
  size_t value_tile_bytes() const { return value_tile_; }
  // Bytes of what the codec has of a layer.
  uint64_t coded_bytes(uint32_t sequence, uint32_t layer) const;
  StateStore& states() { return states_; }
  // Bytes of pages and states in use now.
  uint64_t held_bytes() const;

 private:
  struct Sequence {
    uint32_t length = 0;
    std::vector<uint32_t> rows;   // [layers with attention]
    std::vector<uint8_t*> pages;  // [layers with attention, groups, tiles_per_layer] or null
  };
  uint8_t* Take();
  void Drop(uint8_t* page);
  uint8_t** table(uint32_t sequence, uint32_t layer, uint32_t group = 0);
  friend class CachedRows;
  // Of a head's `rows` rows, the `stay` that were not chosen to be dropped become the first.
  void Compact(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows, uint32_t stay);
  // At a prompt's end, of all heads; returns how many rows stay.
  uint32_t DropFromPrompt(uint32_t sequence, uint32_t layer, ThreadPool& pool);
  // Where positions roll: rows of a head close up, of which `dropped` were chosen to be dropped,
  // before they are; then their keys are rotated for their places in a sequence of `end` tokens.
  void CloseGaps(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows, uint32_t dropped);
  void RollKeys(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t end, ThreadPool& pool);
  // The table of a layer with a window begins `dead` tiles later, less what is not a whole split,
  // at which attention's sums part: no bit of them changes. Returns its rows.
  uint32_t ShortenTable(uint32_t sequence, uint32_t layer, uint32_t dead);
  // Row `from` takes the place of row `to`.
  void MoveRow(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t from, uint32_t to);
  // Has the method merge the layer's rows; returns how many are left.
  uint32_t Merge(uint32_t sequence, uint32_t layer, uint32_t stay, ThreadPool& pool);
  // The layer now holds `rows` rows; pages beyond them go back to the pool.
  void FreePages(uint32_t sequence, uint32_t layer, uint32_t rows);
  // The codec takes over what it is due of the layer's rows.
  void EncodeLayer(uint32_t sequence, uint32_t layer, ThreadPool& pool);
  // Stores the rows that stay exact, which are where attention has them.
  void StoreExact(uint32_t sequence, uint32_t layer);
  void EncodeTile(uint32_t sequence, uint32_t layer, const CodedPages::Added& added, uint32_t tile,
                  uint32_t head);
  // The codec codes the segments that it is due of the layer's rows; false where there are none.
  bool EncodeSegments(uint32_t sequence, uint32_t layer, ThreadPool& pool);
  // A pair merges what it is due, of rows that both of its layers hold.
  void SharePair(uint32_t sequence, uint32_t pair, ThreadPool& pool);
  // Where the codec codes beside the steps: makes what does, has it begin what will be read coded
  // `lag` tokens later, and takes over what is read from now on.
  void StartEncoder();
  void BeginCoding(uint32_t sequence);
  void TakeOver(uint32_t sequence, ThreadPool& pool);
  // Pages all of whose rows are coded go back to the pool.
  void FreeCoded(uint32_t sequence, uint32_t layer);

  KvLayout layout_;
  Buffer pool_;
  uint64_t page_bytes_ = 0;
  size_t key_tile_ = 0, value_tile_ = 0;
  uint32_t tiles_per_layer_ = 0;
  std::vector<uint32_t> attending_;  // the layers with attention
  std::vector<uint32_t> row_;        // [layers] their rows of the tables
  std::vector<uint32_t> free_;       // page ids, a stack: the lowest ids are used first
  std::vector<uint16_t> uses_;       // [pages]
  std::vector<Sequence> sequences_;
  StateStore states_;
  KeptRows kept_;
  RolledKeys rolled_;
  std::vector<uint32_t> dropping_;  // the layers that drop rows
  std::vector<uint32_t> kept_row_;  // [layers] their number among those
  uint32_t followed_ = 0;           // rows that each head of the last of them dropped of a prompt
  CodedPages coded_;
  CodedSegments segments_;
  std::vector<uint32_t> coding_;          // the layers that are coded
  std::vector<uint32_t> coded_row_;       // [layers] their number among those
  std::vector<CodedPages::Added> added_;  // [coding_] of EncodeRows
  SharedPairs shared_;
  PlacedRows placed_;
  std::vector<uint32_t> placing_;         // the layers whose rows live elsewhere
  std::vector<uint32_t> placed_row_;      // [layers] their number among those
  std::unique_ptr<TileEncoder> encoder_;  // the last: it ends before what it reads and writes does
};

}  // namespace snug
