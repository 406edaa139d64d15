#include "kv/coded_pages.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernel/kv_layout.h"
#include "kv/tiles.h"

namespace snug {

uint64_t CodedLayout::page_bytes() const {
  if (codec == nullptr || layers.empty()) return 0;
  const auto tiles = codec->Tiles(heads, head_dim, layers.front());
  assert(tiles.ok());  // the plan has asked
  return (*tiles)->key_bytes(heads) + heads * (*tiles)->value_tile_bytes();
}

uint64_t CodedLayout::exact_row_bytes(KvType type) const {
  return uint64_t{heads} * head_dim * (type == KvType::kF32 ? sizeof(float) : sizeof(uint16_t));
}

uint64_t CodedLayout::exact_bytes() const {
  if (codec == nullptr) return 0;
  return codec->Extremes() * (exact_row_bytes(key_type) + exact_row_bytes(value_type));
}

uint64_t CodedLayout::most_exact_bytes() const {
  return uint64_t{sequences} * layers.size() * exact_bytes();
}

uint32_t CodedLayout::PagesOf(uint32_t tokens) const {
  if (codec == nullptr) return 0;
  return Tiles(std::max(codec->CodedKeys(tokens), codec->CodedValues(tokens)));
}

uint64_t CodedLayout::pages() const {
  return uint64_t{sequences} * layers.size() * PagesOf(context);
}

Result<CodedPages> CodedPages::Create(const CodedLayout& layout, Ledger& ledger) {
  CodedPages p;
  p.layout_ = layout;
  if (layout.codec == nullptr) return p;
  for (const uint32_t layer : layout.layers) {
    SNUG_ASSIGN(auto tiles, layout.codec->Tiles(layout.heads, layout.head_dim, layer));
    p.tiles_.push_back(std::move(tiles));
  }
  p.page_bytes_ = layout.page_bytes();
  p.pages_ = layout.pages();
  SNUG_ASSIGN(p.pool_, Buffer::Allocate(ledger, Owner::kKv, p.pages_ * p.page_bytes_,
                                        Pages::kNormal, "pages of coded keys and values"));
  SNUG_ASSIGN(p.exact_, Buffer::Allocate(ledger, Owner::kKv, layout.most_exact_bytes(),
                                         Pages::kNormal, "rows that stay exact"));
  p.free_.resize(p.pages_);
  for (size_t i = 0; i < p.pages_; ++i) p.free_[i] = static_cast<uint32_t>(p.pages_ - 1 - i);
  p.lists_.resize(layout.sequences * layout.layers.size());
  for (Layer& l : p.lists_) {
    l.pages.assign(layout.PagesOf(layout.context), nullptr);
    l.exact.reserve(layout.codec->Extremes());
  }
  return p;
}

uint32_t CodedPages::Added::first_tile() const {
  const uint32_t key = key_from < key_to ? key_from : UINT32_MAX;
  return std::min(key, value_from < value_to ? value_from : UINT32_MAX) / kTile;
}

uint32_t CodedPages::Added::end_tile() const {
  return Tiles(std::max(key_from < key_to ? key_to : 0, value_from < value_to ? value_to : 0));
}

uint8_t* CodedPages::Take() {
  assert(!free_.empty());
  uint8_t* page = pool_.data() + free_.back() * page_bytes_;
  free_.pop_back();
  return page;
}

CodedPages::Added CodedPages::Grow(uint32_t sequence, uint32_t layer, uint32_t tokens) {
  Layer& l = At(sequence, layer);
  const Added added{l.keys, layout_.codec->CodedKeys(tokens), l.values,
                    layout_.codec->CodedValues(tokens)};
  assert(added.key_to >= l.keys && added.value_to >= l.values);
  MakePages(sequence, layer, added.first_tile(), added.end_tile());
  l.keys = added.key_to;
  l.values = added.value_to;
  return added;
}

void CodedPages::MakePages(uint32_t sequence, uint32_t layer, uint32_t first, uint32_t end) {
  Layer& l = At(sequence, layer);
  for (uint32_t t = first; t < end; ++t) {
    if (l.pages[t] == nullptr) l.pages[t] = Take();
  }
}

void CodedPages::EncodeTile(const TileCodec& codec, const Added& added, TileAt at, uint32_t heads,
                            KvType type, const uint8_t* keys, const uint8_t* values,
                            uint8_t* page) {
  const auto slots = [&](uint32_t from, uint32_t to, const auto& encode) {
    from = std::max(from, at.tile * kTile);
    to = std::min(to, (at.tile + 1) * kTile);
    if (from < to) encode(from - at.tile * kTile, to - from);
  };
  slots(added.key_from, added.key_to, [&](size_t slot, size_t n) {
    if (at.head % codec.key_heads() != 0) return;
    codec.EncodeKeys(type, keys, at, slot, n,
                     page + at.head / codec.key_heads() * codec.key_tile_bytes());
  });
  slots(added.value_from, added.value_to, [&](size_t slot, size_t n) {
    codec.EncodeValues(type, values, slot, n,
                       page + codec.key_bytes(heads) + at.head * codec.value_tile_bytes());
  });
}

uint8_t* CodedPages::ExactKeys(uint32_t sequence, uint32_t layer) const {
  auto& buffer = const_cast<Buffer&>(exact_);
  return buffer.data() + (sequence * layout_.layers.size() + layer) * layout_.exact_bytes();
}

uint8_t* CodedPages::ExactValues(uint32_t sequence, uint32_t layer) const {
  return ExactKeys(sequence, layer) +
         layout_.codec->Extremes() * layout_.exact_row_bytes(layout_.key_type);
}

void CodedPages::KeepExact(uint32_t sequence, uint32_t layer, std::span<const uint32_t> tokens) {
  assert(tokens.size() <= layout_.codec->Extremes());
  At(sequence, layer).exact.assign(tokens.begin(), tokens.end());
}

std::span<const uint32_t> CodedPages::exact(uint32_t sequence, uint32_t layer) const {
  return const_cast<CodedPages*>(this)->At(sequence, layer).exact;
}

void CodedPages::StoreExact(uint32_t sequence, uint32_t layer, size_t i, size_t slot,
                            const uint8_t* keys, const uint8_t* values) {
  const size_t d = layout_.head_dim, width = layout_.heads * d;
  const auto store = [&](KvType type, const uint8_t* from, const auto& index, uint8_t* to) {
    const size_t bytes = layout_.exact_row_bytes(type) / width, tile = KvTileBytes(type, d);
    to += i * width * bytes;
    for (size_t c = 0; c < width; ++c) {
      std::memcpy(to + c * bytes, from + c / d * tile + index(c % d) * bytes, bytes);
    }
  };
  store(
      layout_.key_type, keys, [&](size_t c) { return KeyIndex(c, slot, d); },
      ExactKeys(sequence, layer));
  store(
      layout_.value_type, values, [&](size_t c) { return ValueIndex(c, slot); },
      ExactValues(sequence, layer));
}

uint64_t CodedPages::held_bytes() const {
  if (layout_.codec == nullptr) return 0;
  uint64_t exact = 0;
  for (const Layer& l : lists_) exact += l.exact.size();
  return (pages_ - free_.size()) * page_bytes_ +
         exact * (layout_.exact_row_bytes(layout_.key_type) +
                  layout_.exact_row_bytes(layout_.value_type));
}

CodedRows CodedPages::rows(uint32_t sequence, uint32_t layer) const {
  if (layout_.codec == nullptr) return {};
  const Layer& l = const_cast<CodedPages*>(this)->At(sequence, layer);
  if (l.keys == 0 && l.values == 0) return {};
  CodedRows rows{tiles_[layer].get(), l.keys, l.values, l.pages.data(), {}};
  if (!l.exact.empty()) {
    rows.exact = {static_cast<uint32_t>(l.exact.size()), l.exact.data(), ExactKeys(sequence, layer),
                  ExactValues(sequence, layer)};
  }
  return rows;
}

void CodedPages::Clear(uint32_t sequence) {
  for (uint32_t i = 0; layout_.codec != nullptr && i < layout_.layers.size(); ++i) {
    Layer& l = At(sequence, i);
    for (size_t t = l.pages.size(); t-- > 0;) {
      if (l.pages[t] == nullptr) continue;
      free_.push_back(static_cast<uint32_t>((l.pages[t] - pool_.data()) / page_bytes_));
      l.pages[t] = nullptr;
    }
    l.exact.clear();
    l.keys = l.values = 0;
  }
}

void CodedPages::Copy(uint32_t from, uint32_t to) {
  for (uint32_t i = 0; layout_.codec != nullptr && i < layout_.layers.size(); ++i) {
    const Layer& source = At(from, i);
    Layer& target = At(to, i);
    for (size_t t = 0; t < source.pages.size(); ++t) {
      if (source.pages[t] == nullptr) continue;
      target.pages[t] = Take();
      std::memcpy(target.pages[t], source.pages[t], page_bytes_);
    }
    target.keys = source.keys;
    target.values = source.values;
    target.exact.assign(source.exact.begin(), source.exact.end());
    if (!source.exact.empty()) {
      std::memcpy(ExactKeys(to, i), ExactKeys(from, i), layout_.exact_bytes());
    }
  }
}

}  // namespace snug
