#include "kv/kept_rows.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace snug {
namespace {

size_t WholeTiles(size_t rows) { return (rows + kTileTokens - 1) / kTileTokens * kTileTokens; }

// Arrays of four-byte entries that rows need.
uint64_t OwnArrays(const KeptLayout& l) {
  const Observations o = l.method->observes();
  const uint64_t sums = (o.carried ? 1 : 0) + (o.decode ? 1 : 0);
  return 1 + sums + (l.method->merging() != nullptr ? 2 : 0) + (l.rolling ? 2 : 0);
}

// The same of the layer that reads a prompt: positions, then members and bias, or sums and the room
// to choose in; and what rows that close up need.
uint64_t SharedArrays(const KeptLayout& l) {
  if (l.method->merging() != nullptr) return 3;
  return 4 + (l.method->observes().by_query_head ? l.query_heads : 1) + (l.rolling ? 2 : 0);
}

size_t MergeFloats(const KeptLayout& l) {
  const Merging* merging = l.method->merging();
  return merging == nullptr ? 0 : merging->Floats(l.head_dim);
}

}  // namespace

uint32_t KeptLayout::MostRows(uint32_t layer) const {
  const uint64_t rows = method->RowsAtMost(context, {layer, layers});
  return static_cast<uint32_t>(std::min<uint64_t>(context, rows + 1));
}

uint64_t KeptLayout::row_bytes() const {
  return method == nullptr ? 0 : OwnArrays(*this) * sizeof(uint32_t);
}

uint64_t KeptLayout::bytes() const {
  if (method == nullptr) return 0;
  uint64_t rows = 0;
  for (uint32_t l = 0; l < layers; ++l) rows += WholeTiles(MostRows(l));
  const uint64_t lists = uint64_t{sequences} * heads;
  const uint64_t own = lists * (rows * row_bytes() + layers * sizeof(uint32_t));
  const uint64_t shared = SharedArrays(*this) * heads * WholeTiles(context);
  return own + (shared + heads * MergeFloats(*this)) * sizeof(uint32_t);
}

Result<KeptRows> KeptRows::Create(const KeptLayout& layout, Ledger& ledger) {
  KeptRows r;
  r.layout_ = layout;
  if (layout.method == nullptr) return r;
  r.observes_ = layout.method->observes();
  assert(!r.observes_.by_query_head || (!r.observes_.decode && !r.observes_.carried));
  SNUG_ASSIGN(r.buffer_, Buffer::Allocate(ledger, Owner::kKv, layout.bytes(), Pages::kNormal,
                                          "tokens and sums of kept rows"));
  auto* at = r.buffer_.as<uint32_t>();
  const auto take = [&](size_t entries) {
    uint32_t* p = at;
    at += entries;
    return p;
  };
  const auto floats = [&](size_t entries) { return reinterpret_cast<float*>(take(entries)); };
  const bool merges = layout.method->merging() != nullptr;
  for (uint32_t l = 0; l < layout.layers; ++l) {
    r.own_stride_.push_back(WholeTiles(layout.MostRows(l)));
    r.own_first_.push_back(r.own_rows_);
    r.own_rows_ += layout.heads * r.own_stride_[l];
  }
  const size_t own = layout.sequences * r.own_rows_;
  r.own_.dropped_stride = 1;
  r.own_.positions = take(own);
  if (r.observes_.carried) r.own_.sums = floats(own);
  if (r.observes_.decode) r.own_.fresh = floats(own);
  if (merges) r.own_.members = take(own);
  if (merges) r.own_.bias = floats(own);
  if (layout.rolling) r.own_.shifts = take(own);
  if (layout.rolling) r.own_.slots = take(own);
  r.own_.dropped = take(size_t{layout.sequences} * layout.layers * layout.heads);
  r.shared_.stride = r.shared_.dropped_stride = WholeTiles(layout.context);
  const size_t shared = layout.heads * r.shared_.stride;
  r.shared_.positions = take(shared);
  if (merges) {
    r.shared_.members = take(shared);
    r.shared_.bias = floats(shared);
  } else {
    r.shared_.sums = floats(shared * (r.observes_.by_query_head ? layout.query_heads : 1));
    r.shared_.dropped = take(shared);
    if (layout.rolling) r.shared_.shifts = take(shared);
    if (layout.rolling) r.shared_.slots = take(shared);
    r.order_ = take(shared);
    r.scores_ = floats(shared);
  }
  r.merge_floats_ = MergeFloats(layout);
  r.merging_ = floats(layout.heads * r.merge_floats_);
  r.methods_.assign(layout.sequences, layout.method.get());
  r.answer_begin_.assign(layout.sequences, 0);
  return r;
}

KeptRows::Arrays KeptRows::Own(uint32_t sequence, uint32_t layer) const {
  Arrays a = own_;
  a.stride = own_stride_[layer];
  const size_t first = sequence * own_rows_ + own_first_[layer];
  a.positions += first;
  for (float** rows : {&a.sums, &a.fresh, &a.bias}) {
    if (*rows != nullptr) *rows += first;
  }
  for (uint32_t** rows : {&a.members, &a.shifts, &a.slots}) {
    if (*rows != nullptr) *rows += first;
  }
  a.dropped += (size_t{sequence} * layout_.layers + layer) * layout_.heads;
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
    if (Follows(layer)) return {tokens, nullptr, 0, {}};
    const uint32_t queries = method(sequence).observes().prompt_queries;
    const uint32_t first = prompt_.tokens - std::min(prompt_.tokens, queries);
    const uint32_t done = rows - prompt_.rows_before;
    ColumnSums to{std::min(tokens, first - std::min(first, done)), shared_.sums, shared_.stride,
                  NoiseOf(layer, position, 0), observes_.by_query_head};
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

void KeptRows::BeginPrompt(uint32_t sequence, uint32_t length, uint32_t tokens,
                           std::string_view text) {
  prompt_ = {sequence, length, tokens, 0};
  if (layout_.method != nullptr) methods_[sequence] = &layout_.method->ForPrompt(text);
}

bool KeptRows::Follows(uint32_t layer) const {
  return method(prompt_.sequence).FollowsLayerBefore(Place(layer));
}

void KeptRows::BeginLayer(uint32_t layer, uint32_t rows) {
  prompt_.rows_before = rows;
  const Arrays own = Own(prompt_.sequence, layer);
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    uint32_t* positions = shared_.positions + h * shared_.stride;
    std::copy_n(own.positions + h * own.stride, rows, positions);
    for (uint32_t t = 0; t < prompt_.tokens; ++t) positions[rows + t] = prompt_.length + t;
    if (shared_.bias != nullptr) {
      uint32_t* members = shared_.members + h * shared_.stride;
      float* bias = shared_.bias + h * shared_.stride;
      std::copy_n(own.members + h * own.stride, rows, members);
      std::copy_n(own.bias + h * own.stride, rows, bias);
      std::fill_n(members + rows, prompt_.tokens, 1u);
      std::fill_n(bias + rows, prompt_.tokens, 0.0f);
      continue;
    }
    if (shared_.slots != nullptr) {
      const size_t to = h * shared_.stride, from = h * own.stride;
      std::copy_n(own.shifts + from, rows, shared_.shifts + to);
      std::copy_n(own.slots + from, rows, shared_.slots + to);
      std::fill_n(shared_.shifts + to + rows, prompt_.tokens, 0u);
      std::fill_n(shared_.slots + to + rows, prompt_.tokens, kNoSlot);
    }
    const size_t each = observes_.by_query_head ? layout_.query_heads : 1;
    float* sums = shared_.sums + h * each * shared_.stride;
    for (size_t i = 0; i < each; ++i) {
      std::fill_n(sums + i * shared_.stride, WholeTiles(rows + prompt_.tokens), 0.0f);
    }
    if (own.sums != nullptr) std::copy_n(own.sums + h * own.stride, rows, sums);
  }
}

void KeptRows::EndLayer(uint32_t layer, uint32_t rows) {
  const Arrays own = Own(prompt_.sequence, layer);
  assert(rows <= own.stride);
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    const size_t from = h * shared_.stride, to = h * own.stride;
    std::copy_n(shared_.positions + from, rows, own.positions + to);
    if (own.sums != nullptr) std::copy_n(shared_.sums + from, rows, own.sums + to);
    if (own.slots != nullptr) {
      std::copy_n(shared_.shifts + from, rows, own.shifts + to);
      std::copy_n(shared_.slots + from, rows, own.slots + to);
    }
    if (own.bias == nullptr) continue;
    std::copy_n(shared_.members + from, rows, own.members + to);
    std::copy_n(shared_.bias + from, rows, own.bias + to);
    std::fill_n(own.bias + to + rows, own.stride - rows, 0.0f);
  }
}

void KeptRows::EndPrompt() {
  const uint32_t end = prompt_.length + prompt_.tokens;
  if (layout_.method != nullptr) answer_begin_[prompt_.sequence] = end;
  prompt_ = {};
}

void KeptRows::Clear(uint32_t sequence) {
  if (prompt_.sequence == sequence) prompt_ = {};
  if (layout_.method == nullptr) return;
  methods_[sequence] = layout_.method.get();
  answer_begin_[sequence] = 0;
  if (own_.bias != nullptr) std::fill_n(own_.bias + sequence * own_rows_, own_rows_, 0.0f);
}

void KeptRows::Copy(uint32_t from, uint32_t to) {
  if (layout_.method == nullptr) return;
  assert(prompt_.tokens == 0);
  const auto copy = [&](auto* rows) {
    if (rows != nullptr) std::copy_n(rows + from * own_rows_, own_rows_, rows + to * own_rows_);
  };
  copy(own_.positions);
  copy(own_.sums);
  copy(own_.members);
  copy(own_.bias);
  copy(own_.shifts);
  copy(own_.slots);
  methods_[to] = methods_[from];
  answer_begin_[to] = answer_begin_[from];
}

void KeptRows::Append(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t position) {
  const Arrays a = Own(sequence, layer);
  for (uint32_t h = 0; h < layout_.heads; ++h) {
    a.positions[h * a.stride + rows] = position;
    if (a.members != nullptr) a.members[h * a.stride + rows] = 1;
    if (a.slots != nullptr) a.shifts[h * a.stride + rows] = 0;
    if (a.slots != nullptr) a.slots[h * a.stride + rows] = kNoSlot;
    if (a.sums == nullptr) continue;
    float* sums = a.sums + h * a.stride;
    const float* fresh = a.fresh + h * a.stride;
    sums[rows] = 0;
    for (uint32_t r = 0; r <= rows; ++r) sums[r] += fresh[r];
  }
}

uint32_t KeptRows::Stay(uint32_t sequence, uint32_t layer) const {
  const KeepMethod& m = method(sequence);
  // Texts may be longer than the context that the rows were planned for.
  const auto within = [&](uint32_t tokens) { return std::min(tokens, layout_.context); };
  if (prompt_.tokens == 0) return m.RowsAtMost(within(answer_begin_[sequence]), Place(layer));
  return m.RowsAfterPrompt(within(prompt_.length + prompt_.tokens), Place(layer));
}

uint32_t KeptRows::Choose(uint32_t sequence, uint32_t layer, uint32_t model_layer, uint32_t head,
                          uint32_t rows, uint32_t length) {
  const Arrays a = At(sequence, layer);
  KeepLayer view;
  view.layer = model_layer;
  view.heads = layout_.heads;
  view.query_heads = layout_.query_heads;
  view.rows = rows;
  view.stay = Stay(sequence, layer);
  view.length = length;
  view.positions = a.positions;
  view.sums = a.sums != nullptr ? a.sums : a.fresh;
  view.stride = a.stride;
  assert(rows > view.stay && rows - view.stay <= a.dropped_stride);
  const std::span<uint32_t> dropped(a.dropped + head * a.dropped_stride, a.dropped_stride);
  KeepRoom room;
  if (prompt_.tokens != 0) {
    room = {{order_ + head * a.stride, rows}, {scores_ + head * a.stride, rows}};
  }
  return method(sequence).Drop(view, head, dropped, room);
}

std::span<const uint32_t> KeptRows::dropped(uint32_t sequence, uint32_t layer, uint32_t head,
                                            uint32_t n) const {
  const Arrays a = At(sequence, layer);
  return {a.dropped + head * a.dropped_stride, n};
}

void KeptRows::Shift(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows,
                     std::span<const uint32_t> dropped) {
  const Arrays a = At(sequence, layer);
  const uint32_t* positions = a.positions + head * a.stride;
  uint32_t* shifts = a.shifts + head * a.stride;
  if (dropped.size() == 1) {
    const uint32_t gone = positions[dropped[0]];
    for (uint32_t r = 0; r < rows; ++r) shifts[r] += positions[r] < gone ? 1 : 0;
    return;
  }
  uint32_t* gone = order_ + head * a.stride;
  uint32_t* end = std::transform(dropped.begin(), dropped.end(), gone,
                                 [&](uint32_t row) { return positions[row]; });
  std::sort(gone, end);
  for (uint32_t r = 0; r < rows; ++r) {
    shifts[r] += static_cast<uint32_t>(end - std::upper_bound(gone, end, positions[r]));
  }
}

KeptRows::Shifted KeptRows::shifted(uint32_t sequence, uint32_t layer, uint32_t head) const {
  const Arrays a = At(sequence, layer);
  const size_t at = head * a.stride;
  return {a.positions + at, a.shifts + at, a.slots + at};
}

void KeptRows::Move(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t from, uint32_t to) {
  const Arrays a = At(sequence, layer);
  const size_t base = head * a.stride;
  a.positions[base + to] = a.positions[base + from];
  if (a.sums != nullptr) a.sums[base + to] = a.sums[base + from];
  if (a.slots != nullptr) {
    a.shifts[base + to] = a.shifts[base + from];
    a.slots[base + to] = a.slots[base + from];
  }
  if (a.bias == nullptr) return;
  a.members[base + to] = a.members[base + from];
  a.bias[base + to] = a.bias[base + from];
}

uint32_t KeptRows::members(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t row) const {
  const Arrays a = At(sequence, layer);
  return a.members[head * a.stride + row];
}

void KeptRows::SetMembers(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t row,
                          uint32_t tokens) {
  const Arrays a = At(sequence, layer);
  a.members[head * a.stride + row] = tokens;
  a.bias[head * a.stride + row] = std::log2(static_cast<float>(tokens));
}

void KeptRows::EndMerge(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows,
                        uint32_t stay) {
  const Arrays a = At(sequence, layer);
  std::fill_n(a.bias + head * a.stride + stay, rows - stay, 0.0f);
}

KeptRows::Bias KeptRows::bias(uint32_t sequence, uint32_t layer) const {
  const Arrays a = At(sequence, layer);
  return {a.bias, a.stride};
}

std::span<float> KeptRows::merge_room(uint32_t head) {
  return {merging_ + head * merge_floats_, merge_floats_};
}

std::span<const uint32_t> KeptRows::positions(uint32_t sequence, uint32_t layer, uint32_t head,
                                              uint32_t rows) const {
  const Arrays a = Own(sequence, layer);
  return {a.positions + head * a.stride, rows};
}

}  // namespace snug
