#include "kv/kept_rows.h"

#include <algorithm>
#include <cassert>

namespace snug {
namespace {

size_t WholeTiles(size_t rows) { return (rows + kTileTokens - 1) / kTileTokens * kTileTokens; }

// Arrays of four-byte entries that rows need.
uint64_t OwnArrays(const Observations& o) { return 1 + (o.carried ? 1 : 0) + (o.decode ? 1 : 0); }
constexpr uint64_t kSharedArrays = 5;  // positions, sums, dropped, order, scores

}  // namespace

uint32_t KeptLayout::MostRows() const {
  return static_cast<uint32_t>(
      std::min<uint64_t>(context, uint64_t{method->RowsAtMost(context)} + 1));
}

uint64_t KeptLayout::row_bytes() const {
  return method == nullptr ? 0 : OwnArrays(method->observes()) * sizeof(uint32_t);
}

uint64_t KeptLayout::bytes() const {
  if (method == nullptr) return 0;
  const uint64_t lists = uint64_t{sequences} * layers * heads;
  const uint64_t own = lists * (WholeTiles(MostRows()) * row_bytes() + sizeof(uint32_t));
  return own + kSharedArrays * heads * WholeTiles(context) * sizeof(uint32_t);
}

Result<KeptRows> KeptRows::Create(const KeptLayout& layout, Ledger& ledger) {
  KeptRows r;
  r.layout_ = layout;
  if (layout.method == nullptr) return r;
  r.observes_ = layout.method->observes();
  SNUG_ASSIGN(r.buffer_, Buffer::Allocate(ledger, Owner::kKv, layout.bytes(), Pages::kNormal,
                                          "tokens and sums of kept rows"));
  const size_t lists = size_t{layout.sequences} * layout.layers * layout.heads;
  auto* at = r.buffer_.as<uint32_t>();
  const auto take = [&](size_t entries) {
    uint32_t* p = at;
    at += entries;
    return p;
  };
  const auto floats = [&](size_t entries) { return reinterpret_cast<float*>(take(entries)); };
  r.own_.stride = WholeTiles(layout.MostRows());
  r.own_.dropped_stride = 1;
  const size_t own = lists * r.own_.stride;
  r.own_.positions = take(own);
  if (r.observes_.carried) r.own_.sums = floats(own);
  if (r.observes_.decode) r.own_.fresh = floats(own);
  r.own_.dropped = take(lists);
  r.shared_.stride = r.shared_.dropped_stride = WholeTiles(layout.context);
  const size_t shared = layout.heads * r.shared_.stride;
  r.shared_.positions = take(shared);
  r.shared_.sums = floats(shared);
  r.shared_.dropped = take(shared);
  r.order_ = take(shared);
  r.scores_ = floats(shared);
  r.stay_.assign(layout.sequences, layout.method->RowsAtMost(0));
  r.answer_begin_.assign(layout.sequences, 0);
  return r;
}

KeptRows::Arrays KeptRows::Own(uint32_t sequence, uint32_t layer) const {
  Arrays a = own_;
  const size_t list = (size_t{sequence} * layout_.layers + layer) * layout_.heads;
  a.positions += list * a.stride;
  a.dropped += list;
  if (a.sums != nullptr) a.sums += list * a.stride;
  if (a.fresh != nullptr) a.fresh += list * a.stride;
  return a;
}

KeptRows::Arrays KeptRows::At(uint32_t sequence, uint32_t layer) const {
  return prompt_.tokens != 0 ? shared_ : Own(sequence, layer);
}

ScoreNoise KeptRows::NoiseOf(uint32_t layer, uint32_t position, uint32_t answered) const {
  const Observations::Noise& n = observes_.noise;
  if (!n.on) return {};
  ScoreNoise noise;
  const double part = std::min(1.0, static_cast<double>(answered) / n.tokens);
  noise.temperature = static_cast<float>(n.first + (n.last - n.first) * part);
  noise.gumbel = n.gumbel;
  noise.seed = (n.seed + 1) * 0x9e3779b97f4a7c15u ^ uint64_t { layer } << 48;
  noise.first_position = position;
  return noise;
}

ColumnSums KeptRows::Watch(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t position,
                           uint32_t tokens) {
  if (prompt_.tokens != 0) {
    const uint32_t first = prompt_.tokens - std::min(prompt_.tokens, observes_.prompt_queries);
    const uint32_t done = rows - prompt_.rows_before;
    ColumnSums to{std::min(tokens, first - std::min(first, done)), shared_.sums, shared_.stride,
                  NoiseOf(layer, position, 0)};
    to.noise.positions = shared_.positions;
    return to;
  }
  if (!observes_.decode) return {tokens, nullptr, 0, {}};
  const Arrays a = Own(sequence, layer);
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    std::fill_n(a.fresh + h * a.stride, WholeTiles(rows + tokens), 0.0f);
    for (uint32_t t = 0; t < tokens; ++t) a.positions[h * a.stride + rows + t] = position + t;
  }
  ColumnSums to{0, a.fresh, a.stride,
                NoiseOf(layer, position, position + 1 - answer_begin_[sequence])};
  to.noise.positions = a.positions;
  return to;
}

void KeptRows::BeginPrompt(uint32_t sequence, uint32_t length, uint32_t tokens) {
  prompt_ = {sequence, length, tokens, 0};
}

void KeptRows::BeginLayer(uint32_t layer, uint32_t rows) {
  prompt_.rows_before = rows;
  const Arrays own = Own(prompt_.sequence, layer);
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    uint32_t* positions = shared_.positions + h * shared_.stride;
    std::copy_n(own.positions + h * own.stride, rows, positions);
    for (uint32_t t = 0; t < prompt_.tokens; ++t) positions[rows + t] = prompt_.length + t;
    float* sums = shared_.sums + h * shared_.stride;
    std::fill_n(sums, WholeTiles(rows + prompt_.tokens), 0.0f);
    if (own.sums != nullptr) std::copy_n(own.sums + h * own.stride, rows, sums);
  }
}

void KeptRows::EndLayer(uint32_t layer, uint32_t rows) {
  const Arrays own = Own(prompt_.sequence, layer);
  assert(rows <= own.stride);
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    std::copy_n(shared_.positions + h * shared_.stride, rows, own.positions + h * own.stride);
    if (own.sums == nullptr) continue;
    std::copy_n(shared_.sums + h * shared_.stride, rows, own.sums + h * own.stride);
  }
}

void KeptRows::EndPrompt() {
  const uint32_t end = prompt_.length + prompt_.tokens;
  if (layout_.method != nullptr) {
    stay_[prompt_.sequence] = layout_.method->RowsAtMost(end);
    answer_begin_[prompt_.sequence] = end;
  }
  prompt_ = {};
}

void KeptRows::Clear(uint32_t sequence) {
  if (prompt_.sequence == sequence) prompt_ = {};
  if (layout_.method == nullptr) return;
  stay_[sequence] = layout_.method->RowsAtMost(0);
  answer_begin_[sequence] = 0;
}

void KeptRows::Append(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t position) {
  const Arrays a = Own(sequence, layer);
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    a.positions[h * a.stride + rows] = position;
    if (a.sums == nullptr) continue;
    float* sums = a.sums + h * a.stride;
    const float* fresh = a.fresh + h * a.stride;
    sums[rows] = 0;
    for (uint32_t r = 0; r <= rows; ++r) sums[r] += fresh[r];
  }
}

uint32_t KeptRows::Stay(uint32_t sequence) const {
  if (prompt_.tokens == 0) return stay_[sequence];
  return layout_.method->RowsAfterPrompt(prompt_.length + prompt_.tokens);
}

void KeptRows::Choose(uint32_t sequence, uint32_t layer, uint32_t model_layer, uint32_t head,
                      uint32_t rows, uint32_t stay, uint32_t length) {
  const Arrays a = At(sequence, layer);
  assert(rows > stay && rows - stay <= a.dropped_stride);
  KeepLayer view;
  view.layer = model_layer;
  view.heads = layout_.heads;
  view.rows = rows;
  view.length = length;
  view.positions = a.positions;
  view.sums = a.sums != nullptr ? a.sums : a.fresh;
  view.stride = a.stride;
  const std::span<uint32_t> dropped(a.dropped + head * a.dropped_stride, rows - stay);
  KeepRoom room;
  if (prompt_.tokens != 0) {
    room = {{order_ + head * a.stride, rows}, {scores_ + head * a.stride, rows}};
  }
  layout_.method->Drop(view, head, dropped, room);
}

std::span<const uint32_t> KeptRows::dropped(uint32_t sequence, uint32_t layer, uint32_t head,
                                            uint32_t n) const {
  const Arrays a = At(sequence, layer);
  return {a.dropped + head * a.dropped_stride, n};
}

void KeptRows::Move(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t from, uint32_t to) {
  const Arrays a = At(sequence, layer);
  const size_t base = head * a.stride;
  a.positions[base + to] = a.positions[base + from];
  if (a.sums != nullptr) a.sums[base + to] = a.sums[base + from];
}

std::span<const uint32_t> KeptRows::positions(uint32_t sequence, uint32_t layer, uint32_t head,
                                              uint32_t rows) const {
  const Arrays a = Own(sequence, layer);
  return {a.positions + head * a.stride, rows};
}

}  // namespace snug
