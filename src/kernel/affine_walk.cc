// Attention over tiles of affine codes (affine_codec.h). A tile that is coded throughout is never
// decoded: with x = s * code + z, a key's score is the sum over channels of (q s) * code plus that
// of q z, and the weighted values are sums over tokens of (p s) * code plus those of p z, so that
// scales and zeros meet the query (the weights) once for each group. Tiles at the edge of what is
// coded are decoded to float32 rows, exact ones beside them.
#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/affine_walk.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "format/dtype.h"
#include "kernel/affine_codec.h"
#include "kernel/code_rows-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// kWide floats of a row.
struct Floats {
  static constexpr size_t kBits = 32;
  static HWY_INLINE void Load(const uint8_t* p, VF (&to)[kPass]) {
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) {
      to[k] = hn::LoadU(DF(), reinterpret_cast<const float*>(p) + k * kLanes);
    }
  }
};

// A tile of keys or of values: rows of codes with scales and zeros of [groups, terms] (keys: of
// token groups by channel; values: of channel groups by token), or rows of floats.
struct Tile {
  size_t bits;  // 32: floats
  const uint8_t* data;
  size_t row_bytes, rows, width;
  size_t group;           // values of a row
  const uint8_t* scales;  // [width / group, rows] f16
  const uint8_t* zeros;
  const uint8_t* next;  // the tile that follows, to be fetched meanwhile, or null
  size_t next_bytes;
  float* room;  // for Fold, of coded tiles
  size_t groups() const { return width / group; }
};

// t.room [n, groups, t.rows] = x [n, t.rows] times the scales of each group; offsets [n, groups] =
// x times its zeros.
static void Fold(const Tile& t, const float* x, size_t x_stride, size_t n, float* offsets) {
  const DF d;
  for (size_t g = 0; g < t.groups(); ++g) {
    VF offset[kRowTile];
    for (size_t r = 0; r < n; ++r) offset[r] = hn::Zero(d);
    for (size_t i = 0; i < t.rows; i += kLanes) {
      const VF s = LoadHalves(t.scales + 2 * (g * t.rows + i));
      const VF z = LoadHalves(t.zeros + 2 * (g * t.rows + i));
      for (size_t r = 0; r < n; ++r) {
        const VF v = hn::LoadU(d, x + r * x_stride + i);
        hn::StoreU(hn::Mul(v, s), d, t.room + (r * t.groups() + g) * t.rows + i);
        offset[r] = hn::MulAdd(v, z, offset[r]);
      }
    }
    for (size_t r = 0; r < n; ++r) {
      offsets[r * t.groups() + g] = hn::GetLane(hn::SumOfLanes(d, offset[r]));
    }
  }
}

// Calls f(c, sums [n, kWide]) with x [n, t.rows] times values [c, c + kWide) of all rows, for each
// such c.
template <class F>
static HWY_INLINE void ForProducts(const Tile& t, const float* x, size_t x_stride, size_t n,
                                   const F& f) {
  constexpr size_t kMostGroups = kMaxHeadDim / kWide;
  float offsets[kRowTile * kMostGroups];
  HWY_ALIGN float sums[kRowTile * kWide];
  const bool coded = t.bits != 32;
  if (coded) Fold(t, x, x_stride, n, offsets);
  const auto multiply = [&](size_t c, const float* from, size_t stride) HWY_ATTR {
    const uint8_t* data = t.data + c * t.bits / 8;
    if (t.bits == 2) {
      MultiplyRows(Rows<TwoBits>{data, t.row_bytes}, t.rows, from, stride, n, sums);
    } else if (t.bits == 4) {
      MultiplyRows(Rows<FourBits>{data, t.row_bytes}, t.rows, from, stride, n, sums);
    } else {
      MultiplyRows(Rows<Floats>{data, t.row_bytes}, t.rows, from, stride, n, sums);
    }
  };
  const size_t share = t.next_bytes / (t.width / kWide);
  for (size_t c = 0; c < t.width; c += kWide) {
    if (t.next != nullptr) Fetch(t.next + c / kWide * share, share);
    if (!coded) {
      multiply(c, x, x_stride);
    } else {
      const size_t g = c / t.group;
      multiply(c, t.room + g * t.rows, t.groups() * t.rows);
      for (size_t r = 0; r < n; ++r) {
        const VF offset = hn::Set(DF(), offsets[r * t.groups() + g]);
        for (size_t i = r * kWide; i < (r + 1) * kWide; i += kLanes) {
          hn::Store(hn::Add(hn::Load(DF(), sums + i), offset), DF(), sums + i);
        }
      }
    }
    f(c, sums);
  }
}

// Rows of pairs as attention stores them (kv_layout.h), from row `first` on, as floats: of each
// row the first values of its pairs, then the second ones, `width` each.
static void SplitPairs(KvType type, const uint8_t* tile, size_t first, size_t rows, size_t width,
                       float* to) {
  for (size_t r = first; r < rows; ++r) {
    float *even = to + 2 * r * width, *odd = even + width;
    if (type != KvType::kF16) {
      for (size_t i = 0; i < width; ++i) {
        const size_t at = PairIndex(rows, r, 2 * i);
        if (type == KvType::kF32) {
          std::memcpy(even + i, tile + 4 * at, 4);
          std::memcpy(odd + i, tile + 4 * at + 4, 4);
        } else {
          even[i] = BFloatToFloat(reinterpret_cast<const uint16_t*>(tile)[at]);
          odd[i] = BFloatToFloat(reinterpret_cast<const uint16_t*>(tile)[at + 1]);
        }
      }
      continue;
    }
    for (size_t i = 0; i < width; i += kLanes) {
      const uint8_t* pairs = tile + 2 * PairIndex(rows, r, 2 * i);
      const VU both = hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(pairs));
      hn::StoreU(LowHalf16(both), DF(), even + i);
      hn::StoreU(HighHalf16(both), DF(), odd + i);
    }
  }
}

// Values [0, width) of rows [0, rows) of a coded tile as floats, `stride` floats from row to row.
template <class Values>
static void Decode(const Tile& t, size_t rows, size_t width, size_t stride, float* to) {
  const DF d;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < width; c += kWide) {
      const size_t g = 2 * (c / t.group * t.rows + r);
      uint16_t scale, zero;
      hwy::CopyBytes<2>(t.scales + g, &scale);
      hwy::CopyBytes<2>(t.zeros + g, &zero);
      const VF s = hn::Set(d, HalfToFloat(scale)), z = hn::Set(d, HalfToFloat(zero));
      VF value[kPass];
      Values::Load(t.data + r * t.row_bytes + c * Values::kBits / 8, value);
      for (size_t k = 0; k < kPass; ++k) {
        hn::StoreU(hn::MulAdd(value[k], s, z), d, to + r * stride + c + k * kLanes);
      }
    }
  }
}

// A tile as it is multiplied: as it lies where all of it is coded, else decoded to `room` [64,
// head_dim]. `coded` of its tokens are, which are its first rows (of values) or columns (of keys);
// `exact` holds the others.
template <bool kValues>
static Tile Open(const AffineFormat& f, const uint8_t* tile, const uint8_t* next, size_t coded,
                 KvType type, const uint8_t* exact, float* room) {
  const size_t bits = kValues ? f.value_bits : f.key_bits;
  const size_t rows = kValues ? kTileTokens : f.head_dim;
  const size_t width = kValues ? f.head_dim : kTileTokens;
  const uint8_t* scales = tile + rows * width * bits / 8;
  const size_t scale_bytes = rows * width / f.group * sizeof(uint16_t);
  const size_t bytes = rows * width * bits / 8 + 2 * scale_bytes;
  const Tile t{bits,    tile,   width * bits / 8,     rows, width,
               f.group, scales, scales + scale_bytes, next, bytes,
               room};
  if (coded == kTileTokens) return t;
  SplitPairs(type, exact, kValues ? coded / 2 : 0, rows / 2, width, room);
  const auto decode = bits == 2 ? Decode<TwoBits> : Decode<FourBits>;
  decode(t, kValues ? coded : rows, kValues ? width : coded, width, room);
  return {32,
          reinterpret_cast<const uint8_t*>(room),
          width * sizeof(float),
          rows,
          width,
          width,
          nullptr,
          nullptr,
          next,
          bytes,
          nullptr};
}

static void WalkAffineT(const AffineFormat& f, const AttentionArgs& args, const Block& b,
                        TileAt first, uint32_t last, TileAt next, float* decoded) {
  const CodedRows& coded = args.coded;
  float* decoded_values = decoded + b.padded_dim * kTileTokens;
  const uint32_t end = coded.end();
  for (TileAt at = first; at.tile < last; ++at.tile) {
    const CodedTiles now(args, at);
    const TileAt then_at = at.tile + 1 < last ? TileAt{at.head, at.tile + 1} : next;
    const CodedTiles then(args, then_at.tile < end ? then_at : at);
    const size_t tile_pos = size_t{at.tile} * kTileTokens;
    const auto of_tile = [&](uint32_t tokens) {
      return std::min<size_t>(tokens - std::min<size_t>(tokens, tile_pos), kTileTokens);
    };
    const size_t keys = of_tile(coded.keys), values = of_tile(coded.values);
    HeadTiles exact;
    if (keys < kTileTokens || values < kTileTokens) exact = HeadTiles(args, at);
    Tile k = Open<false>(f, now.keys, then.keys, keys, args.key_type, exact.keys, decoded);
    Tile v = Open<true>(f, now.values, then.values, values, args.value_type, exact.values,
                        decoded_values);
    CodedTile(b, k, v, static_cast<int64_t>(tile_pos));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(WalkAffineT);

void AffineCodec::Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                       TileAt next, float* decoded) const {
  HWY_DYNAMIC_DISPATCH(WalkAffineT)(f_, args, block, first, last, next, decoded);
}

}  // namespace snug
#endif  // HWY_ONCE
