// Attention over tiles of rotated rows (rotated_codec.h). Each head's keys of a tile are decoded
// once, tokens in the lanes: the order of the coded channels is then a choice of rows, and the
// transform additions of whole rows. Keys are rotated by their slots and queries back by the tile's
// position, which comes to the same and needs no angles but those of 64 slots. Values stay
// transformed until a split's sums are done.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <span>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/rotated_walk.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "format/dtype.h"
#include "kernel/code_rows-inl.h"
#include "kernel/rotated_codec.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

static void HadamardT(size_t n, float* x) {
  const DF d;
  const float scale = 1 / std::sqrt(static_cast<float>(n));
  // Pairs within vectors, then pairs of vectors (of values where n is less than a vector).
  const size_t step = n < kLanes ? 1 : kLanes;
  if (step == kLanes) {
    for (size_t i = 0; i < n; i += kLanes) {
      VF v = hn::LoadU(d, x + i);
      for (size_t h = 1; h < kLanes; h *= 2) {
        const VI lane = hn::Iota(DI(), 0), bit = hn::Set(DI(), static_cast<int32_t>(h));
        HWY_ALIGN int32_t partner[kLanes];
        hn::Store(hn::Xor(lane, bit), DI(), partner);
        const VF sign =
            hn::IfThenElse(hn::RebindMask(d, hn::Eq(hn::And(lane, bit), hn::Zero(DI()))),
                           hn::Set(d, 1.0f), hn::Set(d, -1.0f));
        v = hn::MulAdd(v, sign, hn::TableLookupLanes(v, hn::SetTableIndices(d, partner)));
      }
      hn::StoreU(hn::Mul(v, hn::Set(d, scale)), d, x + i);
    }
  } else {
    for (size_t i = 0; i < n; ++i) x[i] *= scale;
  }
  for (size_t stride = step; stride < n; stride *= 2) {
    for (size_t base = 0; base < n; base += 2 * stride) {
      for (size_t i = base; i < base + stride; i += step) {
        if (step == 1) {
          const float a = x[i], b = x[i + stride];
          x[i] = a + b;
          x[i + stride] = a - b;
          continue;
        }
        const VF a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + stride);
        hn::StoreU(hn::Add(a, b), d, x + i);
        hn::StoreU(hn::Sub(a, b), d, x + i + stride);
      }
    }
  }
}

// log2(R) stages of the transform of rows of kWide floats, the first one pairing rows `stride`
// apart.
template <size_t R>
static HWY_INLINE void Butterflies(float* x, size_t rows, size_t stride) {
  const DF d;
  for (size_t base = 0; base < rows; base += R * stride) {
    for (size_t i = base; i < base + stride; ++i) {
      for (size_t k = 0; k < kWide; k += kLanes) {
        float* at = x + i * kWide + k;
        VF v[R];
        HWY_UNROLL(8)
        for (size_t r = 0; r < R; ++r) v[r] = hn::Load(d, at + r * stride * kWide);
        HWY_UNROLL(3)
        for (size_t h = 1; h < R; h *= 2) {
          HWY_UNROLL(8)
          for (size_t r = 0; r < R; ++r) {
            if ((r & h) != 0) continue;
            const VF a = v[r], b = v[r + h];
            v[r] = hn::Add(a, b);
            v[r + h] = hn::Sub(a, b);
          }
        }
        HWY_UNROLL(8)
        for (size_t r = 0; r < R; ++r) hn::Store(v[r], d, at + r * stride * kWide);
      }
    }
  }
}

static void TransformRows(float* x, size_t rows) {
  size_t stride = 1;
  for (; rows / stride >= 8; stride *= 8) Butterflies<8>(x, rows, stride);
  if (rows / stride == 4) Butterflies<4>(x, rows, stride);
  if (rows / stride == 2) Butterflies<2>(x, rows, stride);
}

// Rotates rows [head_dim][kWide] of tokens from slot `slot` on.
static void TurnBySlots(const KeyRotary& r, size_t slot, float* x) {
  const DF d;
  for (size_t i = 0; i < r.pairs; ++i) {
    const float* cosines = r.slots + i * kTileTokens + slot;
    const float* sines = cosines + r.pairs * kTileTokens;
    float* a = x + (r.interleaved ? 2 * i : i) * kWide;
    float* b = x + (r.interleaved ? 2 * i + 1 : i + r.pairs) * kWide;
    for (size_t k = 0; k < kWide; k += kLanes) {
      const VF c = hn::LoadU(d, cosines + k), s = hn::LoadU(d, sines + k);
      const VF va = hn::Load(d, a + k), vb = hn::Load(d, b + k);
      hn::Store(hn::NegMulAdd(vb, s, hn::Mul(va, c)), d, a + k);
      hn::Store(hn::MulAdd(va, s, hn::Mul(vb, c)), d, b + k);
    }
  }
}

// to [64 / kWide][head_dim][kWide]: the keys of a head, rotated by their slots alone.
template <class Codes>
static void DecodeKeysOf(const RotatedFormat& f, const RotatedBasis& basis, const uint8_t* tile,
                         size_t head, float* to) {
  const DF d;
  const size_t dim = f.head_dim, row_bytes = kTileTokens * Codes::kBits / 8;
  const size_t groups = f.width() / f.key_group, inner = head % f.heads;
  const size_t first = head / f.heads * f.heads * dim;
  const int shift = std::countr_zero(f.key_group);
  const uint8_t* scales = tile + f.width() * row_bytes;
  const uint8_t* offsets = scales + groups * kTileTokens * sizeof(uint16_t);
  const VF norm = hn::Set(d, 1 / std::sqrt(static_cast<float>(f.heads * dim)));
  HWY_ALIGN float table[2 * kMaxKeyGroups * kWide];
  for (size_t t = 0; t < kTileTokens; t += kWide) {
    for (size_t g = 0; g < groups; ++g) {
      for (size_t k = 0; k < kWide; k += kLanes) {
        const size_t at = 2 * (g * kTileTokens + t + k);
        hn::Store(hn::Mul(LoadHalves(scales + at), norm), d, table + 2 * g * kWide + k);
        hn::Store(hn::Mul(LoadHalves(offsets + at), norm), d, table + (2 * g + 1) * kWide + k);
      }
    }
    float* x = to + t * dim;
    for (size_t c = 0; c < dim; ++c) {
      VF sum[kPass];
      for (size_t h = 0; h < f.heads; ++h) {
        const size_t i = first + h * dim + c;
        const size_t place = basis.places == nullptr ? i : basis.places[i];
        const float* group = table + (place >> shift) * 2 * kWide;
        VF code[kPass];
        Codes::Load(tile + place * row_bytes + t * Codes::kBits / 8, code);
        const bool minus = std::popcount(h & inner) % 2 != 0;
        for (size_t k = 0; k < kPass; ++k) {
          const VF s = hn::Load(d, group + k * kLanes);
          const VF m = hn::Load(d, group + kWide + k * kLanes);
          const VF value = hn::MulAdd(code[k], s, m);
          sum[k] = h == 0 ? value : minus ? hn::Sub(sum[k], value) : hn::Add(sum[k], value);
        }
      }
      for (size_t k = 0; k < kPass; ++k) hn::Store(sum[k], d, x + c * kWide + k * kLanes);
    }
    TransformRows(x, dim);
    TurnBySlots(basis.rotary, t, x);
  }
}

// The scales and offsets of a head's values, [groups][64] each.
struct ValueTables {
  ValueTables(const RotatedFormat& f, const uint8_t* tile) {
    const uint8_t* from = tile + kTileTokens * f.head_dim * f.bits / 8;
    for (size_t i = 0; i < 2 * f.head_dim / f.value_group * kTileTokens; i += kLanes) {
      hn::Store(LoadHalves(from + i * sizeof(uint16_t)), DF(), scales + i);
    }
    offsets = scales + f.head_dim / f.value_group * kTileTokens;
  }
  HWY_ALIGN float scales[2 * kMaxHeadDim / kWide * kTileTokens];
  const float* offsets;
};

// to [head_dim / kWide][64][kWide]: the values of a head, transformed.
template <class Codes>
static void DecodeValuesOf(const RotatedFormat& f, const uint8_t* tile, const ValueTables& tables,
                           float* to) {
  const DF d;
  const size_t row_bytes = f.head_dim * Codes::kBits / 8;
  for (size_t c = 0; c < f.head_dim; c += kWide) {
    const size_t g = c / f.value_group * kTileTokens;
    for (size_t t = 0; t < kTileTokens; ++t) {
      const VF s = hn::Set(d, tables.scales[g + t]), m = hn::Set(d, tables.offsets[g + t]);
      VF code[kPass];
      Codes::Load(tile + t * row_bytes + c * Codes::kBits / 8, code);
      float* row = to + c * kTileTokens + t * kWide;
      for (size_t k = 0; k < kPass; ++k) {
        hn::Store(hn::MulAdd(code[k], s, m), d, row + k * kLanes);
      }
    }
  }
}

// Decoded rows of kWide floats, as MultiplyRows reads them.
struct WideRows {
  const float* data;
  HWY_INLINE void Load(size_t row, VF (&to)[kPass]) const {
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) to[k] = hn::Load(DF(), data + row * kWide + k * kLanes);
  }
};

struct RotatedKeys {
  const KeyRotary* rotary;
  uint32_t tile;
  size_t head_dim;
  const float* decoded;
  const uint8_t* next;
};
struct RotatedValues {
  const RotatedFormat* format;
  const uint8_t* codes;
  const ValueTables* tables;
  const float* decoded;  // null: codes are multiplied as they are
  const uint8_t* next;
};

// y = x rotated back by the position of a tile.
static void TurnQuery(const KeyRotary& r, uint32_t tile, const float* x, size_t n, float* y) {
  std::copy_n(x, n, y);
  if (r.interleaved || r.pairs % kLanes != 0) return TurnByTile(r, tile, -1, y);
  const DF d;
  const float* cosines = r.OfTile(tile);
  for (size_t i = 0; i < r.pairs; i += kLanes) {
    const VF c = hn::LoadU(d, cosines + i), s = hn::LoadU(d, cosines + r.pairs + i);
    const VF a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + r.pairs + i);
    hn::StoreU(hn::MulAdd(b, s, hn::Mul(a, c)), d, y + i);
    hn::StoreU(hn::NegMulAdd(a, s, hn::Mul(b, c)), d, y + r.pairs + i);
  }
}

template <class F>
static HWY_INLINE void ForProducts(const RotatedKeys& t, const float* x, size_t x_stride, size_t n,
                                   const F& f) {
  HWY_ALIGN float queries[kRowTile * kMaxHeadDim];
  HWY_ALIGN float sums[kRowTile * kWide];
  for (size_t r = 0; r < n; ++r) {
    TurnQuery(*t.rotary, t.tile, x + r * x_stride, t.head_dim, queries + r * t.head_dim);
  }
  for (size_t c = 0; c < kTileTokens; c += kWide) {
    MultiplyRows(WideRows{t.decoded + c * t.head_dim}, t.head_dim, queries, t.head_dim, n, sums);
    f(c, sums);
  }
}

template <class F>
static HWY_INLINE void ForProducts(const RotatedValues& t, const float* x, size_t x_stride,
                                   size_t n, const F& f) {
  HWY_ALIGN float sums[kRowTile * kWide];
  const DF d;
  const size_t dim = t.format->head_dim, bits = t.format->bits, row_bytes = dim * bits / 8;
  if (t.decoded != nullptr) {
    for (size_t c = 0; c < dim; c += kWide) {
      MultiplyRows(WideRows{t.decoded + c * kTileTokens}, kTileTokens, x, x_stride, n, sums);
      f(c, sums);
    }
    return;
  }
  // x (s code + m) is (x s) code and x m, which is the same for all channels of a group.
  HWY_ALIGN float scaled[kRowTile * kTileTokens];
  float offset[kRowTile];
  for (size_t c = 0; c < dim; c += kWide) {
    if (c % t.format->value_group == 0) {
      const size_t g = c / t.format->value_group * kTileTokens;
      for (size_t r = 0; r < n; ++r) {
        VF sum = hn::Zero(d);
        for (size_t i = 0; i < kTileTokens; i += kLanes) {
          const VF v = hn::LoadU(d, x + r * x_stride + i);
          hn::Store(hn::Mul(v, hn::Load(d, t.tables->scales + g + i)), d,
                    scaled + r * kTileTokens + i);
          sum = hn::MulAdd(v, hn::Load(d, t.tables->offsets + g + i), sum);
        }
        offset[r] = Sum(sum);
      }
    }
    const uint8_t* codes = t.codes + c * bits / 8;
    bits == 2
        ? MultiplyRows(Rows<TwoBits>{codes, row_bytes}, kTileTokens, scaled, kTileTokens, n, sums)
        : MultiplyRows(Rows<FourBits>{codes, row_bytes}, kTileTokens, scaled, kTileTokens, n, sums);
    for (size_t r = 0; r < n; ++r) {
      for (size_t i = r * kWide; i < (r + 1) * kWide; i += kLanes) {
        hn::Store(hn::Add(hn::Load(d, sums + i), hn::Set(d, offset[r])), d, sums + i);
      }
    }
    f(c, sums);
  }
}

// A head's key (value) of a slot, as it was stored, in the place of a decoded one.
static void PutKey(const KeyRotary& r, uint32_t tile, size_t slot, size_t dim, float* key,
                   float* decoded) {
  TurnByTile(r, tile, -1, key);
  for (size_t c = 0; c < dim; ++c) {
    decoded[slot / kWide * kWide * dim + c * kWide + slot % kWide] = key[c];
  }
}
static void PutValue(size_t slot, size_t dim, float* value, float* decoded) {
  HadamardT(dim, value);
  for (size_t c = 0; c < dim; ++c) {
    decoded[c / kWide * kWide * kTileTokens + slot * kWide + c % kWide] = value[c];
  }
}

// The exact rows kept of a tile's coded ones.
static std::span<const uint32_t> KeptRows(const ExactRows& exact, TileAt at, size_t coded) {
  const uint32_t first = at.tile * static_cast<uint32_t>(kTileTokens);
  const uint32_t* end = exact.tokens + exact.count;
  const uint32_t* from = std::lower_bound(exact.tokens, end, first);
  return {from, std::lower_bound(from, end, first + static_cast<uint32_t>(coded))};
}

// Puts exact rows of a tile in their places: those kept, and those in `args.tiles` from what is
// coded to `seen`.
static void PutExactRows(const RotatedBasis& basis, const AttentionArgs& args, TileAt at,
                         size_t coded, size_t seen, float* keys, float* values) {
  const size_t dim = args.head_dim;
  const uint32_t first = at.tile * static_cast<uint32_t>(kTileTokens);
  HWY_ALIGN float row[kMaxHeadDim];
  const auto put = [&](size_t slot, const auto& key, const auto& value) {
    for (size_t c = 0; c < dim; ++c) row[c] = key(c);
    PutKey(basis.rotary, at.tile, slot, dim, row, keys);
    for (size_t c = 0; c < dim; ++c) row[c] = value(c);
    PutValue(slot, dim, row, values);
  };
  const ExactRows& exact = args.coded.exact;
  for (const uint32_t& t : KeptRows(exact, at, coded)) {
    const auto number = static_cast<size_t>(&t - exact.tokens);
    const size_t begin = (number * args.kv_heads + at.head) * dim;
    put(
        t - first, [&](size_t c) { return StoredValue(args.key_type, exact.keys, begin + c); },
        [&](size_t c) { return StoredValue(args.value_type, exact.values, begin + c); });
  }
  if (coded >= seen) return;
  const HeadTiles stored(args, at);
  for (size_t slot = coded; slot < seen; ++slot) {
    put(
        slot,
        [&](size_t c) { return StoredValue(args.key_type, stored.keys, KeyIndex(c, slot, dim)); },
        [&](size_t c) { return StoredValue(args.value_type, stored.values, ValueIndex(c, slot)); });
  }
}

static void WalkRotatedT(const RotatedFormat& f, const RotatedBasis& basis,
                         const AttentionArgs& args, const Block& b, TileAt first, uint32_t last,
                         float* decoded) {
  const size_t dim = f.head_dim;
  float* decoded_values = decoded + dim * kTileTokens;
  for (TileAt at = first; at.tile < last; ++at.tile) {
    const CodedTiles now(args, at);
    const size_t tile_pos = size_t{at.tile} * kTileTokens;
    f.bits == 2 ? DecodeKeysOf<TwoBits>(f, basis, now.keys, at.head, decoded)
                : DecodeKeysOf<FourBits>(f, basis, now.keys, at.head, decoded);
    const ValueTables tables(f, now.values);
    RotatedValues values{&f, now.values, &tables, nullptr, nullptr};
    const size_t coded = std::min(args.coded.keys - tile_pos, kTileTokens);
    if (coded < kTileTokens || !KeptRows(args.coded.exact, at, coded).empty()) {
      f.bits == 2 ? DecodeValuesOf<TwoBits>(f, now.values, tables, decoded_values)
                  : DecodeValuesOf<FourBits>(f, now.values, tables, decoded_values);
      values.decoded = decoded_values;
      // The last row sees most; whoever sees less has weights of 0 there.
      const auto seen = static_cast<size_t>(b.state[b.rows - 1].position) + 1 - tile_pos;
      PutExactRows(basis, args, at, coded, std::min(seen, kTileTokens), decoded, decoded_values);
    }
    CodedTile(b, RotatedKeys{&basis.rotary, at.tile, dim, decoded, nullptr}, values,
              static_cast<int64_t>(tile_pos));
  }
  // Coded tiles are a split's first, so that all of its sums so far are transformed.
  for (size_t r = 0; r < b.rows; ++r) HadamardT(dim, b.state[r].out);
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(HadamardT);
HWY_EXPORT(WalkRotatedT);

void Hadamard(size_t n, float* x) { HWY_DYNAMIC_DISPATCH(HadamardT)(n, x); }

void RotatedCodec::Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                        TileAt /*next*/, float* decoded) const {
  HWY_DYNAMIC_DISPATCH(WalkRotatedT)(f_, basis_, args, block, first, last, decoded);
}

}  // namespace snug
#endif  // HWY_ONCE
