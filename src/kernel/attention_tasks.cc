// Cuts attention into independent tasks, in two forms that give the same bits: by blocks of queries
// (prefill) and by splits of the sequence (decode).
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <vector>

#include "kernel/attention_parts.h"
#include "kernel/tile_codec.h"

namespace snug {
namespace {

constexpr size_t kAlign = 64;

size_t Align(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

size_t BlockRows(size_t heads_per_kv) { return BlockTokens(heads_per_kv) * heads_per_kv; }

}  // namespace

Scratch LayOut(uint8_t* base, size_t head_dim, size_t heads_per_kv) {
  const size_t padded = PaddedDim(head_dim), rows = BlockRows(heads_per_kv);
  Scratch s{};
  size_t used = 0;
  auto take = [&](size_t bytes) {
    uint8_t* p = base == nullptr ? nullptr : base + used;
    used += Align(bytes);
    return p;
  };
  s.decoded = reinterpret_cast<float*>(take(DecodedFloats(head_dim) * sizeof(float)));
  s.queries = take(rows * head_dim * sizeof(float));
  s.state = reinterpret_cast<RowState*>(take(rows * sizeof(RowState)));
  s.part = reinterpret_cast<float*>(take(rows * padded * sizeof(float)));
  s.total = reinterpret_cast<float*>(take(rows * padded * sizeof(float)));
  s.max = reinterpret_cast<float*>(take(rows * sizeof(float)));
  s.sum = reinterpret_cast<float*>(take(rows * sizeof(float)));
  s.bytes = used;
  return s;
}

namespace {

// The last position that the query at `position` sees.
uint32_t LastSeen(const AttentionArgs& a, uint32_t position) {
  return a.causal ? position : a.first_pos + a.tokens - 1;
}

uint32_t FirstTile(const AttentionArgs& a, uint32_t position) {
  return a.window == 0 || position + 1 <= a.window ? 0 : (position + 1 - a.window) / kTileTokens;
}

}  // namespace

AttentionArgs InOrder(const AttentionArgs& a, TileAt at, float* decoded) {
  const size_t dim = a.head_dim;
  auto* keys =
      reinterpret_cast<uint8_t*>(decoded + DecodedFloats(dim) - kTileTokens * PaddedDim(dim));
  const uint8_t* rows = HeadTiles(a, at).keys;
  for (size_t slot = 0; slot < kTileTokens; ++slot) {
    CopyRowAsKey(a.key_type, rows, slot, dim, keys, slot);
  }
  AttentionArgs own = a;
  own.ordered_keys = keys;
  return own;
}

Block Prepare(const AttentionArgs& a, uint32_t head, uint32_t first, uint32_t n, const Scratch& s,
              const ColumnSums* probes) {
  const size_t group = a.heads / a.kv_heads;
  const size_t query_bytes = a.head_dim * (UsesFloat(a) ? sizeof(float) : sizeof(uint16_t));
  Block b{n * group, a.head_dim, PaddedDim(a.head_dim), a.window, a.softcap, s.queries, s.state};
  for (uint32_t t = 0; t < n; ++t) {
    const uint32_t row = ObservedRow(probes, first + t);
    for (size_t g = 0; g < group; ++g) {
      const size_t r = t * group + g;
      s.state[r] = {LastSeen(a, a.first_pos + row), 0, 0, s.part + r * b.padded_dim};
      PrepareQuery(a, a.q + row * a.q_stride + (head * group + g) * a.head_dim,
                   s.queries + r * query_bytes);
    }
  }
  return b;
}

void Reset(const Block& b) {
  for (size_t r = 0; r < b.rows; ++r) {
    b.state[r].max = -std::numeric_limits<float>::infinity();
    b.state[r].sum = 0;
    std::memset(b.state[r].out, 0, b.padded_dim * sizeof(float));
  }
}

namespace {

// Floats of one row's partial result: values, maximum, sum.
size_t PartStride(size_t head_dim) { return PaddedDim(head_dim) + 16; }

}  // namespace

void KeepPartials(const AttentionArgs& a, const Block& b, uint32_t head, uint32_t split,
                  uint32_t first, float* partial) {
  const size_t group = a.heads / a.kv_heads, stride = PartStride(a.head_dim);
  for (size_t r = 0; r < b.rows; ++r) {
    const size_t row = first + r / group, h = head * group + r % group;
    float* p = partial + ((size_t{split} * a.tokens + row) * a.heads + h) * stride;
    std::memcpy(p, b.state[r].out, b.padded_dim * sizeof(float));
    p[b.padded_dim] = b.state[r].max;
    p[b.padded_dim + 1] = b.state[r].sum;
  }
}

void FinishRow(const AttentionArgs& a, size_t row, size_t head, const float* total, float max,
               float sum) {
  if (a.sinks != nullptr) sum += std::exp2(a.sinks[head] * std::numbers::log2e_v<float> - max);
  const float scale = sum > 0 ? 1 / sum : 0;
  float* out = a.out + row * a.out_stride + head * a.head_dim;
  for (size_t i = 0; i < a.head_dim; ++i) out[i] = total[i] * scale;
  if (a.log_sums != nullptr) a.log_sums[row * a.heads + head] = max + std::log2(sum);
}

namespace {

// WalkTiles over what is coded or shared and what is not.
void Walk(const AttentionArgs& a, const Block& b, TileAt first, uint32_t last, TileAt next,
          float* decoded) {
  if (a.key_rows) {
    for (TileAt at = first; at.tile < last; ++at.tile) {
      const TileAt then = at.tile + 1 < last ? TileAt{at.head, at.tile + 1} : next;
      WalkTiles(InOrder(a, at, decoded), b, at, at.tile + 1, then, decoded);
    }
    return;
  }
  const bool coded = a.coded.codec != nullptr;
  if (!coded && a.shared.rows == 0) return WalkTiles(a, b, first, last, next, decoded);
  const auto shared = static_cast<uint32_t>(a.shared.rows / kTileTokens);
  const uint32_t end = coded ? a.coded.end() : shared, middle = std::clamp(end, first.tile, last);
  if (first.tile < middle && coded) a.coded.codec->Walk(a, b, first, middle, next, decoded);
  if (first.tile < middle && !coded) WalkShared(a, b, first, middle, next);
  if (middle == last) return;
  if (next.tile < end) next = {first.head, last - 1};  // nothing to fetch
  WalkTiles(a, b, {first.head, middle}, last, next, decoded);
}

// A block of queries over all its splits.
void QueryTask(const AttentionArgs& a, const AttentionPlan& plan, uint32_t task, const Scratch& s) {
  const uint32_t head = task % a.kv_heads;
  const uint32_t first = task / a.kv_heads * plan.query_block;
  const uint32_t n = std::min(plan.query_block, a.tokens - first);
  const size_t group = a.heads / a.kv_heads;
  const Block b = Prepare(a, head, first, n, s);
  for (size_t r = 0; r < b.rows; ++r) {
    s.max[r] = -std::numeric_limits<float>::infinity();
    s.sum[r] = 0;
    std::memset(s.total + r * b.padded_dim, 0, b.padded_dim * sizeof(float));
  }
  const uint32_t end = LastSeen(a, a.first_pos + first + n - 1) / kTileTokens + 1;
  for (uint32_t t = FirstTile(a, a.first_pos + first); t < end;) {
    const auto stop =
        static_cast<uint32_t>(std::min<size_t>(end, (t / kSplitTiles + 1) * kSplitTiles));
    Reset(b);
    Walk(a, b, {head, t}, stop, {head, std::min(stop, end - 1)}, s.decoded);
    for (size_t r = 0; r < b.rows; ++r) {
      JoinPart(b.state[r].out, b.state[r].max, b.state[r].sum, b.padded_dim, &s.max[r], &s.sum[r],
               s.total + r * b.padded_dim);
    }
    t = stop;
  }
  for (uint32_t t = 0; t < n; ++t) {
    for (size_t g = 0; g < group; ++g) {
      const size_t r = t * group + g;
      FinishRow(a, first + t, head * group + g, s.total + r * b.padded_dim, s.max[r], s.sum[r]);
    }
  }
}

// One split for all rows of a KV head; the result goes to `partial`.
void SplitTask(const AttentionArgs& a, const AttentionPlan& plan, uint32_t task, const Scratch& s,
               float* partial) {
  const uint32_t head = task % a.kv_heads, split = task / a.kv_heads;
  const size_t group = a.heads / a.kv_heads;
  const auto block = static_cast<uint32_t>(BlockTokens(group));
  const auto begin = static_cast<uint32_t>((plan.first_split + split) * kSplitTiles);
  // Most likely this thread's next task.
  const uint32_t after = std::min(task + 1, plan.tasks - 1);
  const auto after_begin =
      static_cast<uint32_t>((plan.first_split + after / a.kv_heads) * kSplitTiles);
  const TileAt next{after % a.kv_heads, std::max(after_begin, FirstTile(a, a.first_pos))};
  for (uint32_t first = 0; first < a.tokens; first += block) {
    const uint32_t n = std::min(block, a.tokens - first);
    const Block b = Prepare(a, head, first, n, s);
    Reset(b);
    const uint32_t end =
        std::min<uint32_t>(begin + kSplitTiles, (a.first_pos + first + n - 1) / kTileTokens + 1);
    Walk(a, b, {head, std::max(begin, FirstTile(a, a.first_pos + first))}, end, next, s.decoded);
    KeepPartials(a, b, head, split, first, partial);
  }
}

}  // namespace

AttentionPlan PlanAttention(const AttentionArgs& a, int /*threads*/) {
  AttentionPlan plan;
  const size_t group = a.heads / a.kv_heads;
  assert(a.causal || a.window == 0);
  plan.split = a.causal && a.tokens <= kMaxSplitRows;
  if (!plan.split) {
    plan.query_block = static_cast<uint32_t>(BlockTokens(group));
    plan.tasks = (a.tokens + plan.query_block - 1) / plan.query_block * a.kv_heads;
    return plan;
  }
  plan.first_split = FirstTile(a, a.first_pos) / kSplitTiles;
  plan.splits =
      static_cast<uint32_t>((a.first_pos + a.tokens - 1) / kSplitTokens) + 1 - plan.first_split;
  plan.tasks = plan.splits * a.kv_heads;
  return plan;
}

size_t PartialFloats(size_t tokens, size_t heads, size_t head_dim, size_t context) {
  return (context + kSplitTokens - 1) / kSplitTokens * tokens * heads * PartStride(head_dim);
}

size_t AttentionScratchBytes(size_t head_dim, size_t heads_per_kv) {
  return LayOut(nullptr, head_dim, heads_per_kv).bytes;
}

void AttendTask(const AttentionArgs& a, const AttentionPlan& plan, uint32_t task, uint8_t* scratch,
                float* partial) {
  const Scratch s = LayOut(scratch, a.head_dim, a.heads / a.kv_heads);
  if (plan.split) {
    SplitTask(a, plan, task, s, partial);
  } else {
    QueryTask(a, plan, task, s);
  }
}

void CombinePartials(const AttentionArgs& a, const AttentionPlan& plan, const float* partial,
                     uint32_t row, uint32_t head) {
  const size_t padded = PaddedDim(a.head_dim), stride = PartStride(a.head_dim);
  assert(padded <= kMaxHeadDim);
  alignas(64) float total[kMaxHeadDim];
  std::memset(total, 0, padded * sizeof(float));
  float max = -std::numeric_limits<float>::infinity(), sum = 0;
  for (uint32_t split = 0; split < plan.splits; ++split) {
    const float* p = partial + ((size_t{split} * a.tokens + row) * a.heads + head) * stride;
    JoinPart(p, p[padded], p[padded + 1], padded, &max, &sum, total);
  }
  FinishRow(a, row, head, total, max, sum);
}

namespace {

template <bool kValue>
void LoadSharedRow(const AttentionArgs& a, TileAt at, size_t slot, float* row) {
  const SharedRows& s = a.shared;
  const OwnRows& own = (kValue ? s.values : s.keys)[at.head];
  const KvType type = kValue ? a.value_type : a.key_type;
  const size_t token = at.tile * kTileTokens + slot;
  for (uint32_t i = 0; i < own.count; ++i) {
    if (own.rows[i] != token) continue;
    for (size_t d = 0; d < a.head_dim; ++d)
      row[d] = StoredValue(type, own.data + i * own.stride, d);
    return;
  }
  const SharedTiles tiles(a, at);
  kValue ? LoadValue(type, tiles.values, a.head_dim, slot, row)
         : LoadKey(type, tiles.keys, a.head_dim, slot, row);
  const float scale = (kValue ? s.value_scales : s.key_scales)[at.head * s.scale_stride + token];
  for (size_t d = 0; d < a.head_dim; ++d) row[d] *= scale;
}

// A token's key or value, whoever holds it.
template <bool kValue>
void LoadRow(const AttentionArgs& a, uint32_t head, uint32_t token, float* row) {
  const ExactRows& exact = a.coded.exact;
  const uint32_t* kept = std::lower_bound(exact.tokens, exact.tokens + exact.count, token);
  if (kept != exact.tokens + exact.count && *kept == token) {
    const size_t first =
        (static_cast<size_t>(kept - exact.tokens) * a.kv_heads + head) * a.head_dim;
    for (size_t d = 0; d < a.head_dim; ++d) {
      row[d] = kValue ? StoredValue(a.value_type, exact.values, first + d)
                      : StoredValue(a.key_type, exact.keys, first + d);
    }
    return;
  }
  if (a.coded.codec != nullptr && token < (kValue ? a.coded.values : a.coded.keys)) {
    return a.coded.codec->LoadRow(a, head, token, kValue, row);
  }
  const TileAt at{head, static_cast<uint32_t>(token / kTileTokens)};
  const size_t slot = token % kTileTokens;
  if (token < a.shared.rows) return LoadSharedRow<kValue>(a, at, slot, row);
  const HeadTiles tiles(a, at);
  if (kValue) return LoadValue(a.value_type, tiles.values, a.head_dim, slot, row);
  (a.key_rows ? LoadValue : LoadKey)(a.key_type, tiles.keys, a.head_dim, slot, row);
}

}  // namespace

void AttentionReference(const AttentionArgs& a) {
  std::vector<float> row(a.head_dim);
  for (uint32_t t = 0; t < a.tokens; ++t) {
    const uint32_t pos = a.first_pos + t;
    const uint32_t oldest = a.window == 0 || pos + 1 <= a.window ? 0 : pos + 1 - a.window;
    const uint32_t last = LastSeen(a, pos);
    for (uint32_t h = 0; h < a.heads; ++h) {
      const uint32_t kv = h / (a.heads / a.kv_heads);
      const float* q = a.q + t * a.q_stride + h * a.head_dim;
      std::vector<double> score;
      for (uint32_t p = oldest; p <= last; ++p) {
        LoadRow<false>(a, kv, p, row.data());
        double dot = 0;
        for (uint32_t d = 0; d < a.head_dim; ++d) dot += double{q[d]} * row[d];
        dot *= a.scale;
        if (a.softcap > 0) dot = a.softcap * std::tanh(dot / a.softcap);
        if (a.bias != nullptr) dot += std::log(2.0) * a.bias[kv * a.bias_stride + p];
        score.push_back(dot);
      }
      double max = *std::max_element(score.begin(), score.end());
      if (a.sinks != nullptr) max = std::max<double>(max, a.sinks[h]);
      double sum = a.sinks == nullptr ? 0 : std::exp(a.sinks[h] - max);
      for (double& s : score) sum += s = std::exp(s - max);
      std::vector<double> out(a.head_dim);
      for (uint32_t p = oldest; p <= last; ++p) {
        LoadRow<true>(a, kv, p, row.data());
        for (uint32_t d = 0; d < a.head_dim; ++d) out[d] += score[p - oldest] / sum * row[d];
      }
      for (uint32_t d = 0; d < a.head_dim; ++d) {
        a.out[t * a.out_stride + h * a.head_dim + d] = static_cast<float>(out[d]);
      }
    }
  }
}

}  // namespace snug
