// The cache where a codec takes rows over: a layer of a prompt at once, then with every token.
#include <algorithm>
#include <cassert>

#include "kv/cache.h"

namespace snug {

CodedRows KvCache::coded(uint32_t sequence, uint32_t layer) const {
  if (!layout_.Codes(layer)) return {};
  const uint32_t k = coded_row_[layer];
  return layout_.Segments(layer) ? segments_.rows(sequence, k) : coded_.rows(sequence, k);
}

uint64_t KvCache::coded_bytes(uint32_t sequence, uint32_t layer) const {
  if (layout_.Segments(layer)) return segments_.bytes(sequence, coded_row_[layer]);
  return coded(sequence, layer).end() * coded_.page_bytes();
}

void KvCache::KeepExact(uint32_t sequence, uint32_t layer, std::span<const uint32_t> tokens) {
  if (layout_.Codes(layer) && !layout_.Segments(layer))
    coded_.KeepExact(sequence, coded_row_[layer], tokens);
}

void KvCache::StoreExact(uint32_t sequence, uint32_t layer) {
  const std::span<const uint32_t> tokens = coded_.exact(sequence, coded_row_[layer]);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint8_t* page = table(sequence, layer)[tokens[i] / kTileTokens];
    if (page == nullptr) return;  // an earlier prompt's
    coded_.StoreExact(sequence, coded_row_[layer], i, tokens[i] % kTileTokens, page,
                      page + layout_.kv_heads * key_tile_);
  }
}

void KvCache::EncodeTile(uint32_t sequence, uint32_t layer, const CodedPages::Added& added,
                         uint32_t tile, uint32_t head) {
  const uint8_t* exact = table(sequence, layer)[tile];
  coded_.Encode(sequence, coded_row_[layer], added, {head, tile}, layout_.key_type,
                exact + head * key_tile_,
                exact + layout_.kv_heads * key_tile_ + head * value_tile_);
}

void KvCache::FreeCoded(uint32_t sequence, uint32_t layer) {
  const CodedRows rows = coded(sequence, layer);
  uint8_t** pages = table(sequence, layer);
  for (uint32_t t = std::min(rows.keys, rows.values) / kTileTokens; t-- > 0;) {
    if (pages[t] == nullptr) return;
    Drop(pages[t]);
    pages[t] = nullptr;
  }
}

bool KvCache::EncodeSegments(uint32_t sequence, uint32_t layer, ThreadPool& pool) {
  const uint32_t k = coded_row_[layer];
  bool any = false;
  while (segments_.Grow(sequence, k, rows(sequence, layer))) {
    any = true;
    pool.For(layout_.kv_heads, [&](size_t head, int) {
      const StoredRows stored{layout_.key_type, layout_.value_type, table(sequence, layer),
                              head * key_tile_, layout_.kv_heads * key_tile_ + head * value_tile_};
      segments_.Encode(sequence, k, static_cast<uint32_t>(head), stored);
    });
  }
  if (any) FreeCoded(sequence, layer);
  return any;
}

void KvCache::EncodeLayer(uint32_t sequence, uint32_t layer, ThreadPool& pool) {
  if (layout_.Segments(layer)) {
    EncodeSegments(sequence, layer, pool);
    return segments_.EndLayer(sequence, coded_row_[layer], rows(sequence, layer));
  }
  StoreExact(sequence, layer);
  const CodedPages::Added added = coded_.Grow(sequence, coded_row_[layer], rows(sequence, layer));
  if (!added.any()) return;
  const uint32_t first = added.first_tile(), heads = layout_.kv_heads;
  pool.For(size_t{added.end_tile() - first} * heads, [&](size_t task, int) {
    const auto t = static_cast<uint32_t>(task);
    EncodeTile(sequence, layer, added, first + t / heads, t % heads);
  });
  FreeCoded(sequence, layer);
}

void KvCache::EncodeRows(uint32_t sequence, ThreadPool& pool) {
  bool any = false;
  if (layout_.codec->segment_unit() != 0) {
    const uint32_t held = length(sequence);
    segments_.Commit(sequence, held - 1);
    for (const uint32_t layer : coding_) {
      if (!EncodeSegments(sequence, layer, pool)) continue;
      segments_.EndLayer(sequence, coded_row_[layer], held);
      any = true;
    }
    if (any) segments_.EndToken(sequence, held);
    return;
  }
  if (encoder_ != nullptr) {
    TakeOver(sequence, pool);
    return BeginCoding(sequence);
  }
  for (size_t i = 0; i < coding_.size(); ++i) {
    added_[i] = coded_.Grow(sequence, static_cast<uint32_t>(i), rows(sequence, coding_[i]));
    any = any || added_[i].any();
  }
  if (!any) return;
  const uint32_t heads = layout_.kv_heads;
  pool.For(coding_.size() * heads, [&](size_t task, int) {
    const CodedPages::Added& added = added_[task / heads];
    if (!added.any()) return;
    for (uint32_t t = added.first_tile(); t < added.end_tile(); ++t) {
      EncodeTile(sequence, coding_[task / heads], added, t, static_cast<uint32_t>(task % heads));
    }
  });
  for (const uint32_t layer : coding_) FreeCoded(sequence, layer);
}

void KvCache::StartEncoder() {
  if (layout_.coded().codec == nullptr || layout_.codec->lag() == 0 || coding_.empty()) return;
  assert(layout_.codec->Extremes() == 0 && layout_.key_type == layout_.value_type);
  std::vector<TileEncoder::Layer> layers;
  for (uint32_t s = 0; s < sequences_.size(); ++s) {
    for (const uint32_t l : coding_) {
      const TileCodec& codec = coded_.codec(coded_row_[l]);
      assert(codec.key_group() == kTileTokens && codec.value_group() == kTileTokens);
      layers.push_back({&codec, tiles(s, l), coded_.pages(s, coded_row_[l])});
    }
  }
  const TileEncoder::Options options{static_cast<uint32_t>(sequences_.size()),
                                     static_cast<uint32_t>(coding_.size()),
                                     layout_.kv_heads,
                                     layout_.key_type,
                                     key_tile_,
                                     value_tile_,
                                     layout_.encode_delay};
  encoder_ = std::make_unique<TileEncoder>(options, std::move(layers));
}

void KvCache::BeginCoding(uint32_t sequence) {
  if (encoder_ == nullptr) return;
  const KvCodec& codec = *layout_.codec;
  const uint32_t held = length(sequence);
  // What no token of the context would read coded need not be.
  const uint32_t due = codec.CodedKeys(std::min(held + codec.lag(), layout_.context));
  assert(due <= held && due == codec.CodedValues(std::min(held + codec.lag(), layout_.context)));
  const uint32_t end = due / kTileTokens;
  const uint32_t first = std::max<uint32_t>(encoder_->begun(sequence),  //
                                            codec.CodedKeys(held) / kTileTokens);
  if (first >= end) return;
  for (const uint32_t layer : coding_) {
    coded_.MakePages(sequence, coded_row_[layer], first, end);
  }
  encoder_->Begin(sequence, first, end);
}

void KvCache::TakeOver(uint32_t sequence, ThreadPool& pool) {
  const uint32_t held = length(sequence), due = layout_.codec->CodedKeys(held);
  if (due == coded(sequence, coding_.front()).keys) return;
  assert(due / kTileTokens <= encoder_->begun(sequence));
  encoder_->Finish(sequence, due / kTileTokens, pool);
  for (const uint32_t layer : coding_) {
    coded_.Grow(sequence, coded_row_[layer], held);
    FreeCoded(sequence, layer);
  }
}

}  // namespace snug
