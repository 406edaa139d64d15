#include "kv/row_reader.h"

#include <algorithm>
#include <cassert>
#include <numeric>

#include "kernel/attention_rows.h"
#include "kernel/read_scores.h"
#include "kv/tiles.h"

namespace snug {
namespace {

// Tiles that a task scores, and how far ahead their indexes are fetched: each lies in a page of its
// own.
constexpr uint32_t kScoreTiles = 16, kTilesAhead = 2;

}  // namespace

struct RowReader::Room {
  uint8_t* queries = nullptr;  // [kv_heads, QueryBytes]
  float* scores = nullptr;     // [heads, units of whole tiles]
  float* sort = nullptr;       // [kv_heads, units of whole tiles]
  uint32_t* units = nullptr;   // [kv_heads, most units]
  uint32_t* rows = nullptr;    // [kv_heads, most units * unit]
  float* partial = nullptr;
  uint8_t* stage = nullptr;  // [threads, StageBytes]
  size_t query_bytes = 0, score_stride = 0, most_units = 0, stage_bytes = 0;
  uint64_t bytes = 0;
};

RowReader::Room RowReader::LayOut(const RowReaderLayout& l, uint8_t* base) {
  Room r;
  const ReadBudget& budget = l.method->budget();
  r.query_bytes = l.method->QueryBytes(l.heads / l.kv_heads, l.head_dim);
  r.score_stride = size_t{Tiles(l.context)} * kTileTokens / budget.unit;
  r.most_units = budget.Units(l.context);
  r.stage_bytes = AlignBytes(StageBytes(l.key_type, l.value_type, l.head_dim));
  const auto take = [&](size_t bytes) {
    uint8_t* p = base == nullptr ? nullptr : base + r.bytes;
    r.bytes += AlignBytes(bytes);
    return p;
  };
  const auto floats = [&](size_t n) { return reinterpret_cast<float*>(take(n * sizeof(float))); };
  const auto numbers = [&](size_t n) {
    return reinterpret_cast<uint32_t*>(take(n * sizeof(uint32_t)));
  };
  r.queries = take(l.kv_heads * r.query_bytes);
  r.scores = floats(l.heads * r.score_stride);
  r.sort = floats(l.kv_heads * r.score_stride);
  r.units = numbers(l.kv_heads * r.most_units);
  r.rows = numbers(l.kv_heads * r.most_units * budget.unit);
  r.partial = floats(PartialFloats(1, l.heads, l.head_dim, r.most_units * budget.unit));
  r.stage = take(l.threads * r.stage_bytes);
  return r;
}

uint64_t RowReaderLayout::bytes() const { return method == nullptr ? 0 : RowReader::Bytes(*this); }

uint64_t RowReader::Bytes(const RowReaderLayout& layout) { return LayOut(layout, nullptr).bytes; }

Result<RowReader> RowReader::Create(const RowReaderLayout& layout, Ledger& ledger) {
  RowReader reader;
  reader.layout_ = layout;
  if (layout.method == nullptr) return reader;
  SNUG_ASSIGN(reader.buffer_, Buffer::Allocate(ledger, Owner::kScratch, layout.bytes(),
                                               Pages::kNormal, "choices of rows to read"));
  return reader;
}

bool RowReader::Chooses(uint32_t rows) const {
  const ReadBudget& b = layout_.method->budget();
  return b.Units(rows) < (rows + b.unit - 1) / b.unit;
}

std::span<const uint32_t> RowReader::chosen(uint32_t kv_head) const {
  const Room r = LayOut(layout_, const_cast<uint8_t*>(buffer_.data()));
  return {r.rows + kv_head * r.most_units * layout_.method->budget().unit, count_};
}

void RowReader::Choose(const AttentionArgs& a, uint32_t layer, ThreadPool& pool,
                       const PlacedLayer& placed) {
  const RowReaderLayout& l = layout_;
  const RowMethod& method = *l.method;
  const ReadBudget& budget = method.budget();
  const uint32_t group = l.heads / l.kv_heads, rows = a.first_pos + 1, unit = budget.unit;
  const uint32_t all_units = (rows + unit - 1) / unit, units = budget.Units(rows);
  const Room r = LayOut(l, buffer_.data());

  const size_t index_bytes = method.IndexBytes(l.head_dim);
  const size_t tile_bytes =
      KvTileBytes(l.key_type, l.head_dim) + KvTileBytes(l.value_type, l.head_dim);
  const uint32_t page_heads = a.page_heads == 0 ? l.kv_heads : a.page_heads;
  for (uint32_t h = 0; h < l.kv_heads; ++h) {
    method.Prepare({a.q + size_t{h} * group * l.head_dim, group, l.head_dim, layer, h},
                   r.queries + h * r.query_bytes);
  }
  const uint32_t tiles = Tiles(rows), blocks = (tiles + kScoreTiles - 1) / kScoreTiles;
  const auto index_of = [&](uint32_t head, uint32_t tile) -> const uint8_t* {
    if (placed.rows != nullptr) {
      return placed.rows->Index(placed.sequence, placed.layer, tile) + head * index_bytes;
    }
    return a.tiles[head / page_heads * a.table_stride + tile] + page_heads * tile_bytes +
           head % page_heads * index_bytes;
  };
  pool.For(size_t{blocks} * l.kv_heads, [&](size_t task, int) {
    const auto head = static_cast<uint32_t>(task / blocks);
    const auto first = static_cast<uint32_t>(task % blocks * kScoreTiles);
    float* scores = r.scores + size_t{head} * group * r.score_stride;
    for (uint32_t t = first; t < std::min(tiles, first + kScoreTiles); ++t) {
      if (t + kTilesAhead < tiles) {
        const uint8_t* ahead = index_of(head, t + kTilesAhead);
        for (size_t at = 0; at < index_bytes; at += 64) __builtin_prefetch(ahead + at);
      }
      method.Score(index_of(head, t), r.queries + head * r.query_bytes, group, l.head_dim,
                   scores + t * (kTileTokens / unit), r.score_stride);
    }
  });

  // The first and the last units are read in any case, the best of the others fill the budget.
  const uint32_t first = std::min(all_units, (budget.sinks + unit - 1) / unit);
  const uint32_t last = std::max(first, (rows - std::min(rows, budget.recent)) / unit);
  const uint32_t free_units = units - first - (all_units - last);
  const size_t row_stride = r.most_units * unit;
  pool.For(l.kv_heads, [&](size_t head, int) {
    float* scores = r.scores + head * group * r.score_stride;
    CombineHeads(scores + first, group, r.score_stride, last - first);
    uint32_t* chosen = r.units + head * r.most_units;
    ChooseLargest({scores + first, last - first}, free_units, r.sort + head * r.score_stride,
                  chosen);
    uint32_t* to = r.rows + head * row_stride;
    const auto add = [&](uint32_t u) {
      for (uint32_t i = u * unit; i < std::min(rows, (u + 1) * unit); ++i) *to++ = i;
    };
    for (uint32_t u = 0; u < first; ++u) add(u);
    for (uint32_t i = 0; i < free_units; ++i) add(first + chosen[i]);
    for (uint32_t u = last; u < all_units; ++u) add(u);
    assert(to == r.rows + head * row_stride + count_);
  });
}

Result<uint64_t> RowReader::Attend(const AttentionArgs& a, uint32_t layer, ThreadPool& pool,
                                   uint8_t* thread_scratch, size_t scratch_stride,
                                   const PlacedLayer& placed) {
  const RowReaderLayout& l = layout_;
  const ReadBudget& budget = l.method->budget();
  const uint32_t rows = a.first_pos + 1, unit = budget.unit;
  const uint32_t all_units = (rows + unit - 1) / unit, units = budget.Units(rows);
  assert(a.tokens == 1 && rows <= l.context && (units < all_units || placed.rows != nullptr));
  const Room r = LayOut(l, buffer_.data());
  ChosenRows chosen{r.rows, r.most_units * unit, units * unit - (all_units * unit - rows)};
  count_ = chosen.count;
  if (units < all_units) {
    Choose(a, layer, pool, placed);
  } else {
    for (uint32_t h = 0; h < l.kv_heads; ++h) {
      std::iota(r.rows + h * chosen.stride, r.rows + h * chosen.stride + rows, 0u);
    }
  }
  if (placed.rows != nullptr) {
    SNUG_ASSIGN(chosen.packed, placed.rows->Fetch(placed.sequence, placed.layer, chosen));
  }
  pool.For(ChosenTasks(a, chosen.count), [&](size_t task, int thread) {
    AttendChosen(a, chosen, static_cast<uint32_t>(task), r.stage + thread * r.stage_bytes,
                 thread_scratch + thread * scratch_stride, r.partial);
  });
  for (uint32_t h = 0; h < l.heads; ++h) CombineChosen(a, chosen, r.partial, h);
  const uint64_t indexes = units < all_units ? Tiles(rows) : 0;
  const uint64_t row_bytes =
      KvTileBytes(l.key_type, l.head_dim) + KvTileBytes(l.value_type, l.head_dim);
  return l.kv_heads * (indexes * l.method->IndexBytes(l.head_dim) +
                       uint64_t{chosen.count} * row_bytes / kTileTokens);
}

}  // namespace snug
