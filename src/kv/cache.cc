#include "kv/cache.h"

#include <algorithm>
#include <cstring>

#include "kv/tiles.h"

namespace snug {
namespace {

// More than any machine has, and little enough for sums of it: what a cache of absurd size takes.
constexpr uint64_t kMaxPages = uint64_t{1} << 31;

// The oldest token that a query at `position` or later sees in a layer with `window`.
uint32_t OldestSeen(uint32_t position, uint32_t window) {
  return window == 0 || position + 1 <= window ? 0 : position + 1 - window;
}

}  // namespace

KeptLayout KvLayout::kept() const {
  KeptLayout k{keep, 0, kv_heads, query_heads, head_dim, context, sequences, rolling.has_value()};
  for (uint32_t l = 0; l < layers; ++l) k.layers += Drops(l) ? 1 : 0;
  return k;
}

uint32_t KvLayout::MostRows(uint32_t layer) const {
  uint32_t index = 0;
  for (uint32_t l = 0; l < layer; ++l) index += Drops(l) ? 1 : 0;
  return Drops(layer) ? kept().MostRows(index) : reach();
}

CodedLayout KvLayout::coded() const {
  const bool tiles = codec != nullptr && codec->segment_unit() == 0;
  CodedLayout c{
      tiles ? codec : nullptr, {}, kv_heads, head_dim, context, sequences, key_type, value_type};
  for (uint32_t l = 0; l < layers; ++l) {
    if (Codes(l)) c.layers.push_back(l);
  }
  return c;
}

SegmentLayout KvLayout::segments() const {
  const bool used = codec != nullptr && codec->segment_unit() != 0;
  SegmentLayout s{used ? codec : nullptr, 0, kv_heads, head_dim, context, sequences};
  for (uint32_t l = 0; l < layers; ++l) s.layers += Segments(l) ? 1 : 0;
  return s;
}

int KvLayout::PairOf(uint32_t layer) const {
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (layer == pairs[i] || layer == pairs[i] + 1) return static_cast<int>(i);
  }
  return -1;
}

SharedLayout KvLayout::shared() const {
  return {share,    static_cast<uint32_t>(pairs.size()),
          key_type, value_type,
          kv_heads, head_dim,
          context,  sequences};
}

uint64_t KvLayout::tile_bytes() const {
  return kv_heads * (KvTileBytes(key_type, head_dim) + KvTileBytes(value_type, head_dim));
}

PlacedLayout KvLayout::placed() const {
  PlacedLayout p;
  if (place == nullptr || read == nullptr) return p;
  p.method = place;
  p.folder = folder;
  for (uint32_t l = 0; l < layers; ++l) p.layers += Places(l) ? 1 : 0;
  p.key_type = key_type;
  p.value_type = value_type;
  p.key_rows = read->key_rows();
  p.heads = kv_heads;
  p.head_dim = head_dim;
  p.context = context;
  p.sequences = sequences;
  p.index_bytes = index_bytes();
  p.most_rows = read->budget().Units(context) * read->budget().unit;
  return p;
}

uint64_t KvLayout::page_bytes() const {
  const uint64_t index = place == nullptr ? index_bytes() : 0;
  return (tile_bytes() + kv_heads * index) / groups();
}

uint32_t KvLayout::PagesOf(uint32_t layer, uint32_t tokens) const {
  if (!Attends(layer)) return 0;
  tokens = std::min(tokens, MostRows(layer));
  const uint32_t all = Tiles(tokens);
  // Exact rows, at the worst alignment; whole tiles are coded where that is done beside the steps.
  if (Codes(layer)) {
    const uint32_t most = codec->MostExact();
    return std::min(all, codec->lag() > 0 ? Tiles(most) : Tiles(most - 1) + 1);
  }
  if (Borrows(layer)) return std::min(all, Tiles(share->MostExact()));
  if (Places(layer)) return std::min(all, 1u);
  if (window[layer] == 0) return all;
  // Window, rollback margin and the largest chunk, at the worst alignment.
  return std::min(all, Tiles(uint64_t{window[layer]} + kRollback + chunk) + 1);
}

uint64_t KvLayout::total_pages() const {
  if (one_step) return layers * (Tiles(chunk) + sequences);
  if (one_layer) return uint64_t{Tiles(context)} * groups();
  uint64_t pages = 0;
  uint32_t prompt = 0;  // more, for the layer that reads one
  for (uint32_t l = 0; l < layers; ++l) {
    const uint32_t own = PagesOf(l, reach());
    pages += own;
    if (Drops(l) || Codes(l) || Borrows(l) || Places(l))
      prompt = std::max(prompt, Tiles(context) - own);
  }
  return (pages * sequences + prompt) * groups();
}

uint64_t KvLayout::BytesRead(uint32_t depth) const {
  uint64_t bytes = 0;
  const CodedLayout coded_pages = coded();
  const SegmentLayout coded_segments = segments();
  for (uint32_t l = 0; l < layers; ++l) {
    if (!Attends(l)) continue;
    if (Reads(l) && depth > 0) {
      const ReadBudget& b = read->budget();
      const uint64_t rows = std::min<uint64_t>(depth, uint64_t{b.Units(depth)} * b.unit);
      if (rows < depth) {
        bytes += rows * tile_bytes() / kTileTokens + Tiles(depth) * kv_heads * index_bytes();
        continue;
      }
    }
    uint32_t held = window[l] == 0 ? depth : std::min(window[l], depth);
    held = std::min(held, MostRows(l));
    if (Codes(l)) {
      bytes += coded_pages.PagesOf(depth) * coded_pages.page_bytes() +
               coded_segments.SegmentBytes(codec->CodedKeys(depth));
      held -= codec->CodedValues(depth);
    }
    bytes += Tiles(held) * tile_bytes();
    if (PairOf(l) >= 0) bytes += shared().BytesRead(depth);
  }
  return bytes;
}

namespace {

uint64_t PagesBytes(uint64_t page, uint64_t pages) {
  if (pages > kMaxPages || page * pages > kMaxPoolBytes) return kMaxPoolBytes;
  return Buffer::Reserved(page * pages, Pages::kNormal);
}

// Bytes of all pages that rows are stored in.
uint64_t PagesBytes(const KvLayout& layout) {
  return PagesBytes(layout.page_bytes(), layout.total_pages());
}

}  // namespace

uint64_t KvCache::PoolBytes(const KvLayout& layout) {
  const uint64_t kept = layout.kept().bytes();
  if (kept > kMaxPoolBytes) return kMaxPoolBytes;
  const uint64_t rolled = layout.rolled().bytes();
  if (rolled > kMaxPoolBytes) return kMaxPoolBytes;
  const uint64_t shared = layout.shared().bytes();
  if (shared > kMaxPoolBytes) return kMaxPoolBytes;
  const CodedLayout coded = layout.coded();
  const SegmentLayout segments = layout.segments();
  if (segments.pool_bytes() > kMaxPoolBytes) return kMaxPoolBytes;
  const uint64_t placed = layout.placed().bytes();
  if (placed > kMaxPoolBytes) return kMaxPoolBytes;
  return PagesBytes(layout) + PagesBytes(coded.page_bytes(), coded.pages()) +
         Buffer::Reserved(coded.most_exact_bytes(), Pages::kNormal) +
         StateStore::PoolBytes(layout.states) + Buffer::Reserved(kept, Pages::kNormal) +
         Buffer::Reserved(segments.pool_bytes(), Pages::kNormal) +
         Buffer::Reserved(segments.sums_bytes(), Pages::kNormal) +
         Buffer::Reserved(shared, Pages::kNormal) + Buffer::Reserved(rolled, Pages::kNormal) +
         Buffer::Reserved(placed, Pages::kNormal);
}

uint64_t KvCache::TableBytes(const KvLayout& layout) {
  uint64_t attending = 0;
  for (uint32_t l = 0; l < layout.layers; ++l) attending += layout.Attends(l) ? 1 : 0;
  const uint64_t entries = attending * layout.groups() * Tiles(layout.reach()) * layout.sequences;
  const uint64_t pages = std::min(layout.total_pages(), kMaxPages);
  const CodedLayout codes = layout.coded();
  const uint64_t coded = std::min(codes.pages(), kMaxPages);
  const bool beside = codes.codec != nullptr && codes.codec->lag() > 0;
  const uint64_t encoder =
      beside ? TileEncoder::HeapBytes(layout.sequences, codes.layers.size()) : 0;
  return entries * sizeof(uint8_t*) + coded * (sizeof(uint8_t*) + sizeof(uint32_t)) +
         pages * (sizeof(uint32_t) + sizeof(uint16_t)) + layout.segments().heap_bytes() +
         layout.shared().table_bytes() + layout.placed().table_bytes() + encoder;
}

Result<KvCache> KvCache::Create(const KvLayout& layout, Ledger& ledger) {
  KvCache cache;
  cache.layout_ = layout;
  cache.page_bytes_ = layout.page_bytes();
  cache.key_tile_ = KvTileBytes(layout.key_type, layout.head_dim);
  cache.value_tile_ = KvTileBytes(layout.value_type, layout.head_dim);
  cache.tiles_per_layer_ = Tiles(layout.reach());
  SNUG_ASSIGN(cache.pool_, Buffer::Allocate(ledger, Owner::kKv, PagesBytes(layout), Pages::kNormal,
                                            "key and value pages"));
  const auto pages = static_cast<uint32_t>(layout.total_pages());
  cache.uses_.assign(pages, 0);
  cache.free_.resize(pages);
  for (uint32_t i = 0; i < pages; ++i) cache.free_[i] = pages - 1 - i;
  for (uint32_t l = 0; l < layout.layers; ++l) {
    cache.row_.push_back(static_cast<uint32_t>(cache.attending_.size()));
    if (layout.Attends(l)) cache.attending_.push_back(l);
    cache.kept_row_.push_back(static_cast<uint32_t>(cache.dropping_.size()));
    if (layout.Drops(l)) cache.dropping_.push_back(l);
    cache.coded_row_.push_back(static_cast<uint32_t>(cache.coding_.size()));
    if (layout.Codes(l)) cache.coding_.push_back(l);
    cache.placed_row_.push_back(static_cast<uint32_t>(cache.placing_.size()));
    if (layout.Places(l)) cache.placing_.push_back(l);
  }
  cache.sequences_.resize(layout.sequences);
  for (auto& s : cache.sequences_) {
    s.rows.assign(cache.attending_.size(), 0);
    s.pages.assign(cache.attending_.size() * layout.groups() * cache.tiles_per_layer_, nullptr);
  }
  SNUG_ASSIGN(cache.states_, StateStore::Create(layout.states, ledger));
  SNUG_ASSIGN(cache.kept_, KeptRows::Create(layout.kept(), ledger));
  SNUG_ASSIGN(cache.rolled_, RolledKeys::Create(layout.rolled(), ledger));
  SNUG_ASSIGN(cache.coded_, CodedPages::Create(layout.coded(), ledger));
  SNUG_ASSIGN(cache.segments_, CodedSegments::Create(layout.segments(), ledger));
  SNUG_ASSIGN(cache.shared_, SharedPairs::Create(layout.shared(), ledger));
  SNUG_ASSIGN(cache.placed_, PlacedRows::Create(layout.placed(), ledger));
  cache.added_.resize(cache.coding_.size());
  cache.StartEncoder();
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

uint8_t** KvCache::table(uint32_t sequence, uint32_t layer, uint32_t group) {
  const size_t list = size_t{row_[layer]} * layout_.groups() + group;
  return sequences_[sequence].pages.data() + list * tiles_per_layer_;
}

const uint8_t* const* KvCache::tiles(uint32_t sequence, uint32_t layer) const {
  return const_cast<KvCache*>(this)->table(sequence, layer);
}

uint8_t* KvCache::page(uint32_t sequence, uint32_t layer, uint32_t tile, uint32_t group) {
  return table(sequence, layer, group)[tile];
}

uint64_t KvCache::held_bytes() const {
  uint64_t kept = 0;  // tokens and sums of rows
  for (const Sequence& s : sequences_) {
    for (const uint32_t l : dropping_) kept += s.rows[row_[l]];
  }
  kept *= layout_.kv_heads * layout_.kept().row_bytes();
  for (uint32_t s = 0; s < sequences_.size(); ++s) {
    for (const uint32_t l : coding_) {
      if (!layout_.Segments(l)) continue;
      kept += (rows(s, l) - coded(s, l).keys) * layout_.segments().row_bytes();
    }
  }
  return (uses_.size() - free_.size()) * page_bytes_ + states_.held_bytes() + kept +
         rolled_.held_bytes() + coded_.held_bytes() + segments_.held_bytes() +
         shared_.held_bytes() + placed_.held_bytes();
}

void KvCache::IndexRows(uint32_t sequence, uint32_t layer, uint32_t tile, uint32_t first,
                        uint32_t last) {
  const uint32_t groups = layout_.groups(), heads = layout_.kv_heads / groups;
  const RowMethod& read = *layout_.read;
  for (uint32_t h = 0; h < layout_.kv_heads; ++h) {
    uint8_t* base = page(sequence, layer, tile, h / heads);
    const KeyTile keys{layout_.key_type, layout_.head_dim, base + h % heads * key_tile_,
                       layout_.KeyRows(layer)};
    uint8_t* indexes = layout_.Places(layer) ? placed_.Index(sequence, placed_row_[layer], tile)
                                             : base + heads * (key_tile_ + value_tile_);
    read.Index(keys, layer, h, first, last, indexes + h % heads * layout_.index_bytes());
  }
}

void KvCache::ExtendLayer(uint32_t sequence, uint32_t layer, uint32_t n) {
  uint32_t held = rows(sequence, layer);
  assert(n > 0);
  const auto unseen = [&] {
    const uint32_t earliest = held > kRollback ? held - kRollback : 0;
    return OldestSeen(earliest, layout_.window[layer]) / kTile;
  };
  if (held + n > tiles_per_layer_ * kTile) held = ShortenTable(sequence, layer, unseen());
  assert(held + n <= tiles_per_layer_ * kTile);
  const uint32_t dead = unseen();
  for (uint32_t g = 0; g < layout_.groups(); ++g) {
    uint8_t** pages = table(sequence, layer, g);
    for (uint32_t t = dead; t-- > 0 && pages[t] != nullptr;) {
      Drop(pages[t]);
      pages[t] = nullptr;
    }
    for (uint32_t t = held / kTile; t < Tiles(held + n); ++t) {
      if (pages[t] == nullptr) pages[t] = Take();
    }
  }
}

void KvCache::Extend(uint32_t sequence, uint32_t n) {
  for (uint32_t l : attending_) ExtendLayer(sequence, l, n);
  states_.Extend(sequence);
}

void KvCache::CommitLayer(uint32_t sequence, uint32_t layer, uint32_t n) {
  sequences_[sequence].rows[row_[layer]] += n;
}

void KvCache::Commit(uint32_t sequence, uint32_t n) {
  for (uint32_t l : attending_) CommitLayer(sequence, l, n);
  sequences_[sequence].length += n;
  states_.Commit(sequence, n);
}

uint32_t KvCache::Held(uint32_t sequence, uint32_t length) const {
  // What stays, and what is coded or shared, depends on what comes after; rows elsewhere are not
  // read back for it.
  if (layout_.keep != nullptr || layout_.codec != nullptr || layout_.share != nullptr ||
      layout_.place != nullptr) {
    return 0;
  }
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
  if (length == 0) {
    Clear(sequence);
    return 0;
  }
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
  std::fill(sequences_[sequence].rows.begin(), sequences_[sequence].rows.end(), length);
  return length;
}

void KvCache::Clear(uint32_t sequence) {
  if (encoder_ != nullptr) encoder_->Discard(sequence);
  Sequence& s = sequences_[sequence];
  for (uint8_t*& page : s.pages) {
    if (page != nullptr) Drop(page);
    page = nullptr;
  }
  states_.Clear(sequence);
  kept_.Clear(sequence);
  rolled_.Clear(sequence);
  coded_.Clear(sequence);
  segments_.Clear(sequence);
  shared_.Clear(sequence);
  placed_.Clear(sequence);
  std::fill(s.rows.begin(), s.rows.end(), 0u);
  s.length = 0;
}

void KvCache::Copy(uint32_t from, uint32_t to) {
  assert(from != to && layout_.place == nullptr);
  Clear(to);
  if (encoder_ != nullptr) encoder_->Discard(from);
  const Sequence& source = sequences_[from];
  Sequence& target = sequences_[to];
  for (size_t i = 0; i < source.pages.size(); ++i) {
    if (source.pages[i] == nullptr) continue;
    target.pages[i] = Take();
    std::memcpy(target.pages[i], source.pages[i], page_bytes_);
  }
  target.rows = source.rows;
  target.length = source.length;
  states_.Share(from, to, source.length);
  kept_.Copy(from, to);
  rolled_.Copy(from, to);
  coded_.Copy(from, to);
  segments_.Copy(from, to);
  shared_.Copy(from, to);
  BeginCoding(from);
  BeginCoding(to);
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
  std::fill(sequences_[to].rows.begin(), sequences_[to].rows.end(), length);
  return length;
}

}  // namespace snug
