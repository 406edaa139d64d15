// Attention over tiles that layers share (SharedRows): products with the shared rows as they lie,
// times the scales of this layer; in the place of its own rows, whose scales are 0, products with
// what it stored of them. Nothing is restored.
#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/attention_shared.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/coded_tile-inl.h"
#include "kernel/tile_codec.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {
namespace {

// A tile of shared keys or values of one KV head.
struct SharedTile {
  KvType type;
  const uint8_t* data;
  const uint8_t* next;  // the tile that follows, to be fetched meanwhile, or null
  size_t bytes;         // of a tile
  size_t rows, width;   // channels x tokens of keys, tokens x channels of values
  size_t head_dim;
  const float* scales;  // [64], of the tokens
  // The layer's own rows among them.
  const OwnRows* own;
  uint32_t own_first, own_end, first_row;
};

// kWide values of each row from value c on, where rows lie in pairs (kv_layout.h).
template <KvType kType>
struct PairedRows {
  const uint8_t* data;
  size_t pairs, c;
  HWY_INLINE void Load(size_t row, VF (&to)[kPass]) const {
    const size_t at = PairIndex(pairs, row / 2, 2 * c), odd = row % 2;
    if constexpr (kType == KvType::kF32) {
      const float* from = reinterpret_cast<const float*>(data) + at + odd;
      HWY_ALIGN float wide[kWide];
      for (size_t i = 0; i < kWide; ++i) wide[i] = from[2 * i];
      for (size_t k = 0; k < kPass; ++k) to[k] = hn::Load(DF(), wide + k * kLanes);
    } else {
      const auto* from = reinterpret_cast<const uint32_t*>(data + 2 * at);
      HWY_UNROLL(4)
      for (size_t k = 0; k < kPass; ++k) {
        const VU both = hn::LoadU(DU(), from + k * kLanes);
        if constexpr (kType == KvType::kF16) {
          to[k] = odd != 0 ? HighHalf16(both) : LowHalf16(both);
        } else {
          to[k] = hn::BitCast(
              DF(), odd != 0 ? hn::And(both, hn::Set(DU(), 0xffff0000u)) : hn::ShiftLeft<16>(both));
        }
      }
    }
  }
};

// sums [n, kWide] = x [n, t.rows] times values [c, c + kWide) of the tile's rows.
void Multiply(const SharedTile& t, const float* x, size_t x_stride, size_t n, size_t c,
              float* sums) {
  switch (t.type) {
    case KvType::kF32:
      return MultiplyRows(PairedRows<KvType::kF32>{t.data, t.rows / 2, c}, t.rows, x, x_stride, n,
                          sums);
    case KvType::kBF16:
      return MultiplyRows(PairedRows<KvType::kBF16>{t.data, t.rows / 2, c}, t.rows, x, x_stride, n,
                          sums);
    default:
      return MultiplyRows(PairedRows<KvType::kF16>{t.data, t.rows / 2, c}, t.rows, x, x_stride, n,
                          sums);
  }
}

void FetchShare(const SharedTile& t, size_t c) {
  if (t.next == nullptr) return;
  const size_t share = t.bytes / (t.width / kWide);
  Fetch(t.next + c / kWide * share, share);
}

// n elements of a row as floats.
void LoadStored(KvType type, const uint8_t* from, size_t n, float* to) {
  size_t i = 0;
  if (type == KvType::kF16) {
    for (; i + kLanes <= n; i += kLanes) hn::StoreU(LoadHalves(from + 2 * i), DF(), to + i);
  }
  for (; i < n; ++i) to[i] = StoredValue(type, from, i);
}

float Dot(const float* a, const float* b, size_t n) {
  VF sum = hn::Zero(DF());
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    sum = hn::MulAdd(hn::LoadU(DF(), a + i), hn::LoadU(DF(), b + i), sum);
  }
  float total = hn::GetLane(hn::SumOfLanes(DF(), sum));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

struct SharedKeys : SharedTile {};
struct SharedValues : SharedTile {};

template <class F>
HWY_INLINE void ForProducts(const SharedKeys& t, const float* q, size_t q_stride, size_t n,
                            const F& f) {
  HWY_ALIGN float sums[kRowTile * kWide];
  HWY_ALIGN float key[kMaxHeadDim];
  uint32_t own = t.own_first;
  for (size_t c = 0; c < kTileTokens; c += kWide) {
    FetchShare(t, c);
    Multiply(t, q, q_stride, n, c, sums);
    for (size_t r = 0; r < n; ++r) {
      for (size_t i = 0; i < kWide; i += kLanes) {
        float* to = sums + r * kWide + i;
        hn::Store(hn::Mul(hn::Load(DF(), to), hn::LoadU(DF(), t.scales + c + i)), DF(), to);
      }
    }
    for (; own < t.own_end && t.own->rows[own] < t.first_row + c + kWide; ++own) {
      LoadStored(t.type, t.own->data + own * t.own->stride, t.head_dim, key);
      const size_t i = t.own->rows[own] - t.first_row - c;
      for (size_t r = 0; r < n; ++r) sums[r * kWide + i] = Dot(q + r * q_stride, key, t.head_dim);
    }
    f(c, sums);
  }
}

template <class F>
HWY_INLINE void ForProducts(const SharedValues& t, const float* p, size_t p_stride, size_t n,
                            const F& f) {
  HWY_ALIGN float sums[kRowTile * kWide];
  HWY_ALIGN float scaled[kRowTile * kTileTokens];
  HWY_ALIGN float part[kWide];
  for (size_t r = 0; r < n; ++r) {
    for (size_t i = 0; i < kTileTokens; i += kLanes) {
      const VF scale = hn::LoadU(DF(), t.scales + i);
      hn::Store(hn::Mul(hn::LoadU(DF(), p + r * p_stride + i), scale), DF(),
                scaled + r * kTileTokens + i);
    }
  }
  const size_t element = t.type == KvType::kF32 ? sizeof(float) : sizeof(uint16_t);
  for (size_t c = 0; c < t.width; c += kWide) {
    FetchShare(t, c);
    Multiply(t, scaled, kTileTokens, n, c, sums);
    for (uint32_t own = t.own_first; own < t.own_end; ++own) {
      std::fill_n(part, kWide, 0.0f);
      LoadStored(t.type, t.own->data + own * t.own->stride + c * element,
                 std::min(kWide, t.head_dim - c), part);
      for (size_t r = 0; r < n; ++r) {
        const VF weight = hn::Set(DF(), p[r * p_stride + (t.own->rows[own] - t.first_row)]);
        for (size_t i = 0; i < kWide; i += kLanes) {
          float* to = sums + r * kWide + i;
          hn::Store(hn::MulAdd(weight, hn::Load(DF(), part + i), hn::Load(DF(), to)), DF(), to);
        }
      }
    }
    f(c, sums);
  }
}

}  // namespace

static void WalkSharedT(const AttentionArgs& args, const Block& b, TileAt first, uint32_t last,
                        TileAt next) {
  const SharedRows& s = args.shared;
  const OwnRows &own_keys = s.keys[first.head], &own_values = s.values[first.head];
  const auto end = static_cast<uint32_t>(s.rows / kTileTokens);
  const auto count_below = [](const OwnRows& own, uint32_t row) {
    return static_cast<uint32_t>(std::lower_bound(own.rows, own.rows + own.count, row) - own.rows);
  };
  for (TileAt at = first; at.tile < last; ++at.tile) {
    const SharedTiles now(args, at);
    const TileAt then_at = at.tile + 1 < last ? TileAt{at.head, at.tile + 1} : next;
    const SharedTiles then(args, then_at.tile < end ? then_at : at);
    const auto row = static_cast<uint32_t>(at.tile * kTileTokens);
    const size_t scales = at.head * s.scale_stride + row;
    const uint32_t after = row + kTileTokens;
    SharedKeys keys;
    static_cast<SharedTile&>(keys) = {args.key_type,
                                      now.keys,
                                      then.keys,
                                      KvTileBytes(args.key_type, args.head_dim),
                                      args.head_dim,
                                      kTileTokens,
                                      args.head_dim,
                                      s.key_scales + scales,
                                      &own_keys,
                                      count_below(own_keys, row),
                                      count_below(own_keys, after),
                                      row};
    SharedValues values;
    static_cast<SharedTile&>(values) = {args.value_type,
                                        now.values,
                                        then.values,
                                        KvTileBytes(args.value_type, args.head_dim),
                                        kTileTokens,
                                        b.padded_dim,
                                        args.head_dim,
                                        s.value_scales + scales,
                                        &own_values,
                                        count_below(own_values, row),
                                        count_below(own_values, after),
                                        row};
    CodedTile(b, keys, values, row);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(WalkSharedT);

void WalkShared(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                TileAt next) {
  HWY_DYNAMIC_DISPATCH(WalkSharedT)(args, block, first, last, next);
}

}  // namespace snug
#endif  // HWY_ONCE
