#include "kv/coded_segments.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "kv/tiles.h"

namespace snug {
namespace {

// Rows of the tiles that have an exact row, while no prompt is read.
size_t OwnStride(const SegmentLayout& l) {
  return size_t{Tiles(uint64_t{l.codec->MostExact()} + kTile - 1)} * kTile;
}
// The same while one is.
size_t PromptStride(const SegmentLayout& l) { return size_t{Tiles(l.context)} * kTile; }

}  // namespace

uint64_t SegmentLayout::SegmentBytes(uint32_t rows) const {
  if (codec == nullptr || rows == 0) return 0;
  const auto segments = codec->Segments(head_dim);
  assert(segments.ok());  // the plan has asked
  return heads * uint64_t{(*segments)->HeadBytes(rows)};
}

uint32_t SegmentLayout::segments() const {
  return codec == nullptr ? 0 : context / codec->segment_unit();
}

uint64_t SegmentLayout::unit_bytes() const {
  if (codec == nullptr) return 0;
  const auto coder = codec->Segments(head_dim);
  assert(coder.ok());  // the plan has asked
  const uint32_t unit = codec->segment_unit();
  const uint32_t most = std::min(segments(), codec->segment_most() / unit);
  uint64_t bytes = 0;
  for (uint32_t n = 1; n <= most; ++n) {
    const uint64_t all = heads * uint64_t{(*coder)->HeadBytes(n * unit)};
    bytes = std::max(bytes, (all + n - 1) / n);
  }
  return (bytes + 63) / 64 * 64;
}

uint64_t SegmentLayout::pool_bytes() const {
  return codec == nullptr ? 0 : uint64_t{sequences} * layers * segments() * unit_bytes();
}

uint64_t SegmentLayout::sums_bytes() const {
  if (codec == nullptr) return 0;
  const uint64_t own = uint64_t{sequences} * OwnStride(*this) * (2 * layers * heads + 1);
  return (own + PromptStride(*this) * (3 * heads + 1)) * sizeof(float);
}

uint64_t SegmentLayout::heap_bytes() const {
  if (codec == nullptr) return 0;
  const uint64_t lists = uint64_t{sequences} * layers * segments();
  return lists * sizeof(CodedSegment) +
         (uint64_t{context} + codec->observes().probes.period) * sizeof(uint32_t);
}

uint64_t SegmentLayout::row_bytes() const { return heads * 2 * sizeof(float); }

Result<CodedSegments> CodedSegments::Create(const SegmentLayout& layout, Ledger& ledger) {
  CodedSegments c;
  c.layout_ = layout;
  if (layout.codec == nullptr) return c;
  SNUG_ASSIGN(c.codec_, layout.codec->Segments(layout.head_dim));
  SNUG_ASSIGN(c.pool_, Buffer::Allocate(ledger, Owner::kKv, layout.pool_bytes(), Pages::kNormal,
                                        "segments of coded keys and values"));
  SNUG_ASSIGN(c.buffer_, Buffer::Allocate(ledger, Owner::kKv, layout.sums_bytes(), Pages::kNormal,
                                          "sums of exact rows"));
  c.layer_bytes_ = layout.segments() * layout.unit_bytes();
  c.own_stride_ = OwnStride(layout);
  c.prompt_stride_ = PromptStride(layout);
  auto* at = c.buffer_.as<uint32_t>();
  const auto take = [&](size_t entries) {
    uint32_t* p = at;
    at += entries;
    return p;
  };
  const auto floats = [&](size_t entries) { return reinterpret_cast<float*>(take(entries)); };
  const size_t own = size_t{layout.sequences} * c.own_stride_;
  c.sums_ = floats(own * layout.layers * layout.heads);
  c.fresh_ = floats(own * layout.layers * layout.heads);
  c.seen_ = take(own);
  c.prompt_sums_ = floats(layout.heads * c.prompt_stride_);
  c.room_ = floats(layout.heads * c.prompt_stride_);
  c.order_ = take(layout.heads * c.prompt_stride_);
  c.prompt_seen_ = take(c.prompt_stride_);
  c.lists_.resize(size_t{layout.sequences} * layout.layers);
  for (Layer& l : c.lists_) l.segments.reserve(layout.segments());
  c.base_.assign(layout.sequences, 0);
  c.probes_ = layout.codec->observes().probes;
  c.step_probes_.reserve(c.probes_.period);
  ChooseProbes(c.probes_, c.probes_.period, &c.step_probes_);
  c.prompt_probes_.reserve(layout.context);
  return c;
}

bool CodedSegments::IsProbe(uint32_t position) const {
  return std::binary_search(step_probes_.begin(), step_probes_.end(), position % probes_.period);
}

CodedSegments::Told CodedSegments::ToldOf(uint32_t sequence, uint32_t layer) {
  if (reading()) return {prompt_sums_, prompt_stride_, prompt_seen_, prompt_.base};
  return {Sums(sequence, layer), own_stride_, Seen(sequence), base_[sequence]};
}

void CodedSegments::BeginPrompt(uint32_t sequence, uint32_t length, uint32_t tokens) {
  if (layout_.codec == nullptr) return;
  const uint32_t base = base_[sequence];
  prompt_ = {sequence, length, tokens, base};
  ChooseProbes(probes_, tokens, &prompt_probes_);
  const auto probes = static_cast<uint32_t>(prompt_probes_.size());
  for (uint32_t r = base; r < length; ++r) {
    prompt_seen_[r - base] = Seen(sequence)[r - base] + probes;
  }
  uint32_t before = 0;
  for (uint32_t i = 0; i < tokens; ++i) {
    prompt_seen_[length + i - base] = probes - before;
    if (before < probes && prompt_probes_[before] == i) ++before;
  }
}

void CodedSegments::BeginLayer(uint32_t layer) {
  const uint32_t before = prompt_.length - prompt_.base;
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    float* to = prompt_sums_ + h * prompt_stride_;
    std::copy_n(Sums(prompt_.sequence, layer) + h * own_stride_, before, to);
    std::fill(to + before, to + prompt_stride_, 0.0f);
  }
}

void CodedSegments::EndPrompt() {
  if (layout_.codec == nullptr) return;
  const uint32_t sequence = prompt_.sequence, rows = prompt_.length + prompt_.tokens;
  uint32_t& base = base_[sequence];
  base = layout_.codec->CodedKeys(rows) / kTile * kTile;
  uint32_t* seen = Seen(sequence);
  std::fill_n(seen, own_stride_, 0u);
  std::copy(prompt_seen_ + (base - prompt_.base), prompt_seen_ + (rows - prompt_.base), seen);
  prompt_ = {};
}

ColumnSums CodedSegments::Watch(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t tokens) {
  ColumnSums to;
  if (reading()) {
    const uint32_t done = rows - prompt_.length;
    const auto from = std::lower_bound(prompt_probes_.begin(), prompt_probes_.end(), done);
    const auto end = std::lower_bound(from, prompt_probes_.end(), done + tokens);
    to.first_row = from == end ? tokens : 0;
    to.sums = prompt_sums_;
    to.stride = prompt_stride_;
    to.first_tile = prompt_.base / kTile;
    to.probe = prompt_probes_.data() + (from - prompt_probes_.begin());
    to.probes = static_cast<uint32_t>(end - from);
    to.probe_base = done;
    return to;
  }
  assert(tokens == 1);
  to.first_row = IsProbe(rows) ? 0 : tokens;
  if (to.first_row == tokens) return to;
  to.sums = fresh_ + (Sums(sequence, layer) - sums_);
  to.stride = own_stride_;
  to.first_tile = base_[sequence] / kTile;
  std::fill_n(to.sums, layout_.heads * own_stride_, 0.0f);
  return to;
}

void CodedSegments::Commit(uint32_t sequence, uint32_t position) {
  if (!IsProbe(position)) return;
  const size_t n = size_t{layout_.layers} * layout_.heads * own_stride_;
  float* sums = Sums(sequence, 0);
  const float* fresh = fresh_ + (sums - sums_);
  for (size_t i = 0; i < n; ++i) sums[i] += fresh[i];
  uint32_t* seen = Seen(sequence);
  for (uint32_t r = base_[sequence]; r <= position; ++r) ++seen[r - base_[sequence]];
}

bool CodedSegments::Grow(uint32_t sequence, uint32_t layer, uint32_t rows) {
  Layer& l = At(sequence, layer);
  const uint32_t from = l.coded();
  uint32_t to = layout_.codec->CodedKeys(rows);
  if (to <= from) return false;
  if (to - from > layout_.codec->segment_most()) to = from + layout_.codec->segment_most();
  const uint64_t bytes = layout_.heads * uint64_t{codec_->HeadBytes(to - from)};
  assert(l.used + bytes <= layer_bytes_);
  const auto index = static_cast<size_t>(&l - lists_.data());
  l.segments.push_back({from, to - from, pool_.data() + index * layer_bytes_ + l.used});
  l.used += bytes;
  return true;
}

void CodedSegments::Encode(uint32_t sequence, uint32_t layer, uint32_t head, StoredRows rows) {
  const CodedSegment& s = At(sequence, layer).segments.back();
  rows.first = s.first;
  rows.rows = s.rows;
  const Told told = ToldOf(sequence, layer);
  const uint32_t skip = s.first - told.base;
  const SegmentScores scores{layout_.heads, s.rows, told.sums + skip, told.stride,
                             told.seen + skip};
  const std::span<uint32_t> order(order_ + head * prompt_stride_, s.rows);
  layout_.codec->Order(scores, head, {room_ + head * prompt_stride_, s.rows}, order);
  codec_->Encode(rows, order, const_cast<uint8_t*>(s.data) + head * codec_->HeadBytes(s.rows));
}

void CodedSegments::EndLayer(uint32_t sequence, uint32_t layer, uint32_t rows) {
  const Told told = ToldOf(sequence, layer);
  const uint32_t base = At(sequence, layer).coded() / kTile * kTile;
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    const float* from = told.sums + h * told.stride + (base - told.base);
    float* to = Sums(sequence, layer) + h * own_stride_;
    const uint32_t left = rows - base;
    if (from != to) std::copy_n(from, left, to);
    std::fill(to + left, to + own_stride_, 0.0f);
  }
}

void CodedSegments::EndToken(uint32_t sequence, uint32_t rows) {
  assert(layout_.codec->CodedKeys(rows) == rows);  // nothing is exact
  base_[sequence] = rows / kTile * kTile;
  std::fill_n(Seen(sequence), own_stride_, 0u);
}

CodedRows CodedSegments::rows(uint32_t sequence, uint32_t layer) const {
  if (layout_.codec == nullptr) return {};
  const Layer& l = lists_[sequence * layout_.layers + layer];
  if (l.segments.empty()) return {};
  return {codec_.get(),
          l.coded(),
          l.coded(),
          nullptr,
          {},
          l.segments.data(),
          static_cast<uint32_t>(l.segments.size())};
}

void CodedSegments::Clear(uint32_t sequence) {
  if (layout_.codec == nullptr) return;
  if (prompt_.sequence == sequence) prompt_ = {};
  for (uint32_t i = 0; i < layout_.layers; ++i) {
    At(sequence, i).segments.clear();
    At(sequence, i).used = 0;
  }
  base_[sequence] = 0;
  std::fill_n(Seen(sequence), own_stride_, 0u);
  std::fill_n(Sums(sequence, 0), size_t{layout_.layers} * layout_.heads * own_stride_, 0.0f);
}

void CodedSegments::Copy(uint32_t from, uint32_t to) {
  if (layout_.codec == nullptr) return;
  assert(!reading());
  const auto room = [&](uint32_t sequence, uint32_t layer) {
    return pool_.data() + (size_t{sequence} * layout_.layers + layer) * layer_bytes_;
  };
  for (uint32_t i = 0; i < layout_.layers; ++i) {
    const Layer& source = At(from, i);
    Layer& target = At(to, i);
    target.used = source.used;
    std::memcpy(room(to, i), room(from, i), source.used);
    target.segments.assign(source.segments.begin(), source.segments.end());
    for (CodedSegment& s : target.segments) s.data = room(to, i) + (s.data - room(from, i));
  }
  base_[to] = base_[from];
  std::copy_n(Seen(from), own_stride_, Seen(to));
  std::copy_n(Sums(from, 0), size_t{layout_.layers} * layout_.heads * own_stride_, Sums(to, 0));
}

uint64_t CodedSegments::held_bytes() const {
  uint64_t bytes = 0;
  for (const Layer& l : lists_) bytes += l.used;
  return bytes;
}

}  // namespace snug
