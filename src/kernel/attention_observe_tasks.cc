// Cuts the observation of attention (ColumnSums) into independent tasks: sums of columns by splits
// of the sequence, sums of noisy rows by blocks of queries.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "kernel/attention_internal.h"

namespace snug {
namespace {

// The key of a row's noise (SplitMix64, Steele et al. 2014).
uint32_t NoiseKey(uint64_t seed, uint32_t position, size_t head) {
  uint64_t x = seed + 0x9e3779b97f4a7c15u * (uint64_t{position} << 16 | head);
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return static_cast<uint32_t>(x >> 32);
}

// Weighs the rows of tokens [first, ...) of `head`. What it needs lies where other tasks have the
// maxima, sums and totals of rows.
Weighing Weigh(const AttentionArgs& a, const ColumnSums& to, uint32_t head, uint32_t first,
               const Block& b, bool normalized, const Scratch& s) {
  Weighing w;
  const size_t group = a.heads / a.kv_heads;
  auto* keys = reinterpret_cast<uint32_t*>(s.total);
  const ScoreNoise& noise = to.noise;
  for (size_t r = 0; r < b.rows; ++r) {
    const size_t query_head = head * group + r % group;
    const size_t row = ObservedRow(&to, static_cast<uint32_t>(first + r / group));
    const size_t at = row * a.heads + query_head;
    s.max[r] = a.log_sums[at];
    if (noise.temperature == 0) continue;
    s.sum[r] = normalized ? noise.log_sums[at] : 0;
    const auto token = static_cast<uint32_t>(first + r / group);
    keys[r] = NoiseKey(noise.seed, noise.first_position + token, query_head);
  }
  w.log_sums = s.max;
  if (noise.temperature == 0) return w;
  w.noise_sums = s.sum;
  w.row_keys = noise.gumbel ? keys : nullptr;
  w.inverse_temperature = 1 / noise.temperature;
  return w;
}

const uint32_t* PositionsOf(const ColumnSums& to, TileAt at) {
  if (to.noise.positions == nullptr) return nullptr;
  return to.noise.positions + at.head * to.stride + at.tile * kTileTokens;
}

}  // namespace

uint32_t ObserveTasks(const AttentionArgs& a) {
  return static_cast<uint32_t>((a.first_pos + a.tokens - 1) / kSplitTokens + 1) * a.kv_heads;
}

void ObserveTask(const AttentionArgs& a, const ColumnSums& to, uint32_t task, uint8_t* scratch) {
  assert(a.causal && a.window == 0 && a.log_sums != nullptr && a.bias == nullptr);
  const size_t group = a.heads / a.kv_heads;
  const Scratch s = LayOut(scratch, a.head_dim, group);
  const uint32_t head = task % a.kv_heads;
  const auto split = static_cast<uint32_t>(task / a.kv_heads * kSplitTiles);
  const uint32_t begin = std::max(split, to.first_tile);
  const auto block = static_cast<uint32_t>(BlockTokens(group));
  assert(to.probe == nullptr || to.noise.temperature == 0);
  const uint32_t rows = to.probe == nullptr ? a.tokens : to.probes;
  for (uint32_t first = to.first_row; first < rows; first += block) {
    const uint32_t n = std::min(block, rows - first);
    const uint32_t last = ObservedRow(&to, first + n - 1);
    const auto end =
        std::min<uint32_t>(split + kSplitTiles, (a.first_pos + last) / kTileTokens + 1);
    if (begin >= end) continue;
    const Block b = Prepare(a, head, first, n, s, &to);
    Weighing w = Weigh(a, to, head, first, b, true, s);
    w.head_stride = to.by_query_head ? to.stride : 0;
    float* sums = to.sums + head * (to.by_query_head ? group : 1) * to.stride;
    for (uint32_t t = begin; t < end; ++t) {
      w.positions = PositionsOf(to, {head, t});
      SumColumns(a, b, {head, t}, w, s.decoded, sums + (t - to.first_tile) * kTileTokens);
    }
  }
}

uint32_t NoiseTasks(const AttentionArgs& a) {
  const auto block = static_cast<uint32_t>(BlockTokens(a.heads / a.kv_heads));
  return (a.tokens + block - 1) / block * a.kv_heads;
}

void NoiseTask(const AttentionArgs& a, const ColumnSums& to, uint32_t task, uint8_t* scratch) {
  const size_t group = a.heads / a.kv_heads;
  const Scratch s = LayOut(scratch, a.head_dim, group);
  const auto block = static_cast<uint32_t>(BlockTokens(group));
  const uint32_t head = task % a.kv_heads, first = task / a.kv_heads * block;
  const uint32_t n = std::min(block, a.tokens - first);
  const Block b = Prepare(a, head, first, n, s);
  Weighing w = Weigh(a, to, head, first, b, false, s);
  std::fill_n(s.part, b.rows, 0.0f);
  const auto end = static_cast<uint32_t>((a.first_pos + first + n - 1) / kTileTokens + 1);
  for (uint32_t t = 0; t < end; ++t) {
    w.positions = PositionsOf(to, {head, t});
    SumRows(a, b, {head, t}, w, s.decoded, s.part);
  }
  for (size_t r = 0; r < b.rows; ++r) {
    to.noise.log_sums[(first + r / group) * a.heads + head * group + r % group] =
        std::log2(s.part[r]);
  }
}

}  // namespace snug
