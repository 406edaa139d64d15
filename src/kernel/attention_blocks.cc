#include "kernel/attention_blocks.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "kernel/attention_parts.h"

namespace snug {
namespace {

static_assert(kLeastKeyBlock == kRunTokens);

uint32_t TilesOf(uint32_t tokens) {
  return static_cast<uint32_t>((tokens + kTileTokens - 1) / kTileTokens);
}

// Rows [first, first + n) under one query head as a block whose softmaxes have not begun.
Block PrepareHead(const AttentionArgs& a, uint32_t head, uint32_t first, uint32_t n,
                  const Scratch& s) {
  Block b{n, a.head_dim, PaddedDim(a.head_dim), 0, a.softcap, s.queries, s.state};
  const size_t query_bytes = a.head_dim * (UsesFloat(a) ? sizeof(float) : sizeof(uint16_t));
  for (uint32_t r = 0; r < n; ++r) {
    s.state[r] = {int64_t{a.first_pos} + first + r, 0, 0, s.part + r * b.padded_dim};
    PrepareQuery(a, a.q + (first + r) * a.q_stride + size_t{head} * a.head_dim,
                 s.queries + r * query_bytes);
    s.max[r] = -std::numeric_limits<float>::infinity();
    s.sum[r] = 0;
    std::memset(s.total + r * b.padded_dim, 0, b.padded_dim * sizeof(float));
  }
  return b;
}

void Join(const Block& b, const Scratch& s) {
  for (size_t r = 0; r < b.rows; ++r) {
    JoinPart(b.state[r].out, b.state[r].max, b.state[r].sum, b.padded_dim, &s.max[r], &s.sum[r],
             s.total + r * b.padded_dim);
  }
}

// Tokens [begin, begin + count) of the chosen ones, at most a split, into the stage's tiles.
void Gather(const AttentionArgs& a, uint32_t kv_head, const KeyBlocks& keys, uint32_t begin,
            uint32_t count, uint8_t* stage) {
  const size_t key_tile = KvTileBytes(a.key_type, a.head_dim);
  const size_t tile = key_tile + KvTileBytes(a.value_type, a.head_dim);
  // Slots that stay empty must be finite.
  if (count % kTileTokens != 0) std::memset(stage + count / kTileTokens * tile, 0, tile);
  for (uint32_t i = 0; i < count; i += kRunTokens) {
    const uint32_t at = begin + i,
                   token = keys.blocks[at / keys.width] * keys.width + at % keys.width;
    const HeadTiles from(a, {kv_head, static_cast<uint32_t>(token / kTileTokens)});
    uint8_t* to = stage + i / kTileTokens * tile;
    CopyRun(a, from, token % kTileTokens, to, to + key_tile, i % kTileTokens);
  }
}

}  // namespace

uint32_t KeyBlocks::Seen(uint32_t position) const {
  const uint32_t own = position / width;
  const auto before = static_cast<uint32_t>(std::lower_bound(blocks, blocks + count, own) - blocks);
  const bool has = before < count && blocks[before] == own;
  return before * width + (has ? position % width + 1 : 0);
}

uint32_t AttendKeyBlocks(const AttentionArgs& a, uint32_t head, uint32_t first, uint32_t n,
                         const KeyBlocks& keys, uint8_t* stage, uint8_t* scratch) {
  assert(a.causal && a.window == 0 && a.bias == nullptr && a.coded.end() == 0);
  const size_t group = a.heads / a.kv_heads;
  const size_t tile = KvTileBytes(a.key_type, a.head_dim) + KvTileBytes(a.value_type, a.head_dim);
  const Scratch s = LayOut(scratch, a.head_dim, group);
  const auto most = static_cast<uint32_t>(BlockTokens(group) * group);
  // What is gathered is a cache of its own.
  AttentionArgs own = a;
  const uint8_t* tiles[kSplitTiles];
  for (size_t t = 0; t < kSplitTiles; ++t) tiles[t] = stage + t * tile;
  own.tiles = tiles;
  own.page_heads = 1;
  own.table_stride = 0;
  uint32_t tokens = 0;
  for (uint32_t end = first + n; first < end; first += n) {
    n = std::min(most, end - first);
    const Block b = PrepareHead(own, head, first, n, s);
    const uint32_t seen = keys.Seen(a.first_pos + first + n - 1);
    for (uint32_t begin = 0; begin < seen; begin += kSplitTokens) {
      const uint32_t count = std::min<uint32_t>(kSplitTokens, seen - begin);
      Gather(a, static_cast<uint32_t>(head / group), keys, begin, count, stage);
      for (uint32_t r = 0; r < n; ++r) {
        s.state[r].position = int64_t{keys.Seen(a.first_pos + first + r)} - 1 - begin;
      }
      Reset(b);
      WalkTiles(own, b, {0, 0}, TilesOf(count), {0, 0}, s.decoded);
      Join(b, s);
    }
    for (uint32_t r = 0; r < n; ++r) {
      FinishRow(a, first + r, head, s.total + r * b.padded_dim, s.max[r], s.sum[r]);
    }
    tokens += seen;
  }
  return tokens;
}

void SumLines(const AttentionArgs& a, uint32_t head, uint8_t* scratch, float* weights,
              float* columns, float* distances) {
  assert(a.causal && a.window == 0 && a.bias == nullptr && a.coded.end() == 0);
  const size_t group = a.heads / a.kv_heads;
  const auto kv_head = static_cast<uint32_t>(head / group);
  const uint32_t tokens = a.first_pos + a.tokens;
  std::fill_n(columns, TilesOf(tokens) * kTileTokens, 0.0f);
  std::fill_n(distances, tokens, 0.0f);
  const Scratch s = LayOut(scratch, a.head_dim, group);
  const auto most = static_cast<uint32_t>(BlockTokens(group) * group);
  for (uint32_t first = 0, n; first < a.tokens; first += n) {
    n = std::min(most, a.tokens - first);
    const Block b = PrepareHead(a, head, first, n, s);
    const uint32_t tiles = TilesOf(a.first_pos + first + n);
    for (uint32_t t = 0; t < tiles; t += kSplitTiles) {
      Reset(b);
      const auto end = std::min<uint32_t>(tiles, t + kSplitTiles);
      WalkTiles(a, b, {kv_head, t}, end, {kv_head, end - 1}, s.decoded);
      Join(b, s);
    }
    for (uint32_t r = 0; r < n; ++r) {
      const float sink = a.sinks == nullptr
                             ? 0
                             : std::exp2(a.sinks[head] * std::numbers::log2e_v<float> - s.max[r]);
      s.max[r] += std::log2(s.sum[r] + sink);
    }
    // Each row counts as a query head of its own, so that weights come row by row.
    AttentionArgs rows = a;
    rows.page_heads = a.page_heads == 0 ? a.kv_heads : a.page_heads;
    rows.kv_heads = 1;
    rows.heads = n;
    Weighing w;
    w.log_sums = s.max;
    w.head_stride = kTileTokens;
    for (uint32_t t = 0; t < tiles; ++t) {
      std::fill_n(weights, n * kTileTokens, 0.0f);
      SumColumns(rows, b, {kv_head, t}, w, s.decoded, weights);
      const auto tile_first = static_cast<uint32_t>(t * kTileTokens);
      for (uint32_t r = 0; r < n; ++r) {
        const float* from = weights + r * kTileTokens;
        float* to = columns + tile_first;
        for (size_t i = 0; i < kTileTokens; ++i) to[i] += from[i];
        const uint32_t position = a.first_pos + first + r;
        if (position < tile_first) continue;
        float* line = distances + (position - tile_first);
        const uint32_t seen = std::min<uint32_t>(kTileTokens, position - tile_first + 1);
        for (uint32_t i = 0; i < seen; ++i) *line-- += from[i];
      }
    }
  }
}

}  // namespace snug
