#include "kernel/attention_rows.h"

#include <cassert>
#include <cstring>

#include "kernel/attention_parts.h"
#include "kernel/packed_row.h"

namespace snug {
namespace {

constexpr size_t kRun = kRunTokens;
constexpr uint32_t kAhead = 16;  // rows ahead that are fetched

size_t ElementBits(KvType type) {
  switch (type) {
    case KvType::kF32:
      return 32;
    case KvType::kF16:
    case KvType::kBF16:
      return 16;
    case KvType::kQ8_0:
    case KvType::kF8E4M3:
      return 8;
    case KvType::kQ4_0:
      break;
  }
  return 4;
}

// The scales of kRun tokens, where the type has some.
void CopyScales(KvType type, const uint8_t* from, size_t from_slot, size_t head_dim, uint8_t* to,
                size_t to_slot) {
  if (type != KvType::kQ8_0 && type != KvType::kQ4_0) return;
  const size_t at = ScaleOffset(type, PaddedDim(head_dim));
  for (size_t b = 0; b < head_dim / kKvBlock; ++b) {
    const size_t row = at + b * kTileTokens * sizeof(uint16_t);
    std::memcpy(to + row + to_slot * sizeof(uint16_t), from + row + from_slot * sizeof(uint16_t),
                kRun * sizeof(uint16_t));
  }
}

bool TwoBytes(KvType type) { return type == KvType::kF16 || type == KvType::kBF16; }

// The lines of a token that lies as values do, of two-byte values.
constexpr size_t kLine = kColumn / 2;  // words
size_t Lines(size_t head_dim) { return PaddedDim(head_dim) / kLine; }
template <class Word>
Word* FirstLine(Word* tile, size_t slot) {
  return tile + slot / 2 * kLine;
}
constexpr size_t kLineStride = kTileTokens / 2 * kLine;

void FetchRow(const uint8_t* tile, size_t slot, size_t head_dim) {
  const uint32_t* line = FirstLine(reinterpret_cast<const uint32_t*>(tile), slot);
  for (size_t c = 0; c < Lines(head_dim); ++c) __builtin_prefetch(line + c * kLineStride);
}

// Two tokens' values to slots to_slot, an even one, and to_slot + 1.
void CopyValues(const uint8_t* a, size_t a_slot, const uint8_t* b, size_t b_slot, size_t head_dim,
                uint8_t* to, size_t to_slot) {
  const uint32_t* from_a = FirstLine(reinterpret_cast<const uint32_t*>(a), a_slot);
  const uint32_t* from_b = FirstLine(reinterpret_cast<const uint32_t*>(b), b_slot);
  uint32_t* out = FirstLine(reinterpret_cast<uint32_t*>(to), to_slot);
  const size_t a_shift = a_slot % 2 * 16, b_shift = b_slot % 2 * 16;
  for (size_t c = 0; c < Lines(head_dim); ++c) {
    for (size_t i = 0; i < kLine; ++i) {
      out[i] = (from_a[i] >> a_shift & 0xffff) | from_b[i] >> b_shift << 16;
    }
    from_a += kLineStride;
    from_b += kLineStride;
    out += kLineStride;
  }
}

}  // namespace

void CopyRun(const AttentionArgs& a, const HeadTiles& from, size_t from_slot, uint8_t* keys,
             uint8_t* values, size_t to_slot) {
  const size_t key_bytes = a.head_dim * ElementBits(a.key_type) / 8;  // of a token
  std::memcpy(keys + to_slot * key_bytes, from.keys + from_slot * key_bytes, kRun * key_bytes);
  CopyScales(a.key_type, from.keys, from_slot, a.head_dim, keys, to_slot);
  const size_t line = kColumn * ElementBits(a.value_type) / 8, column = kTileTokens / 2 * line;
  for (size_t c = 0; c < PaddedDim(a.head_dim) * 2 / kColumn; ++c) {
    std::memcpy(values + c * column + to_slot / 2 * line,
                from.values + c * column + from_slot / 2 * line, kRun / 2 * line);
  }
  CopyScales(a.value_type, from.values, from_slot, a.head_dim, values, to_slot);
}

uint32_t ChosenTasks(const AttentionArgs& a, uint32_t count) {
  return static_cast<uint32_t>((count + kSplitTokens - 1) / kSplitTokens) * a.kv_heads;
}

size_t StageBytes(KvType key_type, KvType value_type, size_t head_dim) {
  return kSplitTiles * (KvTileBytes(key_type, head_dim) + KvTileBytes(value_type, head_dim));
}

void AttendChosen(const AttentionArgs& a, const ChosenRows& chosen, uint32_t task, uint8_t* stage,
                  uint8_t* scratch, float* partial) {
  assert(a.tokens == 1 && a.window == 0);
  const uint32_t head = task % a.kv_heads, split = task / a.kv_heads;
  const size_t group = a.heads / a.kv_heads;
  const auto begin = static_cast<uint32_t>(split * kSplitTokens);
  const uint32_t n = std::min<uint32_t>(kSplitTokens, chosen.count - begin);
  const uint32_t* rows = chosen.rows + head * chosen.stride + begin;
  const size_t key_tile = KvTileBytes(a.key_type, a.head_dim);
  const size_t tile = key_tile + KvTileBytes(a.value_type, a.head_dim);
  // Slots that stay empty must be finite.
  if (n % kTileTokens != 0) std::memset(stage + n / kTileTokens * tile, 0, tile);
  const size_t packed_key = PackedBytes(a.key_type, a.head_dim);
  const size_t packed_row = packed_key + PackedBytes(a.value_type, a.head_dim);
  const uint8_t* const* packed =
      chosen.packed == nullptr ? nullptr : chosen.packed + head * chosen.stride + begin;
  const auto in_tile = [packed](uint32_t i) { return packed == nullptr || packed[i] == nullptr; };
  for (uint32_t i = 0; i < n;) {
    if (!in_tile(i)) {
      for (uint32_t j = i + kAhead; j < std::min(n, i + kAhead + 2) && !in_tile(j); ++j) {
        for (size_t at = 0; at < packed_row; at += 64) __builtin_prefetch(packed[j] + at);
      }
      uint8_t* keys = stage + i / kTileTokens * tile;
      const size_t slot = i % kTileTokens;
      UnpackKey(a.key_type, packed[i], a.head_dim, slot, false, keys);
      if (i % 2 != 0 || i + 1 == n || in_tile(i + 1) || !TwoBytes(a.value_type)) {
        UnpackValue(a.value_type, packed[i] + packed_key, a.head_dim, slot, keys + key_tile);
        ++i;
        continue;
      }
      UnpackKey(a.key_type, packed[i + 1], a.head_dim, slot + 1, false, keys);
      UnpackValues(packed[i] + packed_key, packed[i + 1] + packed_key, a.head_dim, slot,
                   keys + key_tile);
      i += 2;
      continue;
    }
    if (i + kAhead < n) {
      for (uint32_t j = i + kAhead; j < std::min(n, i + kAhead + 2); ++j) {
        const HeadTiles ahead(a, {head, static_cast<uint32_t>(rows[j] / kTileTokens)});
        const size_t slot = rows[j] % kTileTokens;
        if (a.key_rows && TwoBytes(a.key_type)) FetchRow(ahead.keys, slot, a.head_dim);
        if (TwoBytes(a.value_type)) FetchRow(ahead.values, slot, a.head_dim);
      }
    }
    const HeadTiles from(a, {head, static_cast<uint32_t>(rows[i] / kTileTokens)});
    uint8_t* keys = stage + i / kTileTokens * tile;
    uint8_t* values = keys + key_tile;
    const size_t from_slot = rows[i] % kTileTokens, to_slot = i % kTileTokens;
    if (!a.key_rows && from_slot % kRun == 0 && to_slot % kRun == 0 && i + kRun <= n &&
        rows[i + kRun - 1] == rows[i] + kRun - 1) {
      CopyRun(a, from, from_slot, keys, values, to_slot);
      i += kRun;
      continue;
    }
    const auto copy_key = a.key_rows ? CopyRowAsKey : CopyKey;
    copy_key(a.key_type, from.keys, from_slot, a.head_dim, keys, to_slot);
    if (i % 2 != 0 || i + 1 == n || !TwoBytes(a.value_type)) {
      CopyValue(a.value_type, from.values, from_slot, a.head_dim, values, to_slot);
      ++i;
      continue;
    }
    // No run begins at an odd row.
    const HeadTiles second(a, {head, static_cast<uint32_t>(rows[i + 1] / kTileTokens)});
    const size_t second_slot = rows[i + 1] % kTileTokens;
    copy_key(a.key_type, second.keys, second_slot, a.head_dim, keys, to_slot + 1);
    CopyValues(from.values, from_slot, second.values, second_slot, a.head_dim, values, to_slot);
    i += 2;
  }
  // The gathered rows are a cache of their own, whose newest row is the last.
  AttentionArgs own = a;
  const uint8_t* tiles[kSplitTiles];
  for (size_t t = 0; t < kSplitTiles; ++t) tiles[t] = stage + t * tile;
  own.tiles = tiles;
  own.page_heads = 1;
  own.key_rows = false;
  own.table_stride = 0;
  own.first_pos = n - 1;
  const Scratch s = LayOut(scratch, a.head_dim, group);
  const Block b = Prepare(own, head, 0, 1, s);
  Reset(b);
  WalkTiles(own, b, {head, 0}, static_cast<uint32_t>((n + kTileTokens - 1) / kTileTokens),
            {head, 0}, s.decoded);
  KeepPartials(a, b, head, split, 0, partial);
}

void CombineChosen(const AttentionArgs& a, const ChosenRows& chosen, const float* partial,
                   uint32_t head) {
  AttentionPlan plan;
  plan.splits = ChosenTasks(a, chosen.count) / a.kv_heads;
  CombinePartials(a, plan, partial, 0, head);
}

}  // namespace snug
