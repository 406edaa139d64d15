// Attention over tiles of affine codes (affine_codec.h). A tile that is coded throughout is never
// decoded: with x = s * code + z, a key's score is the sum over channels of (q s) * code plus that
// of q z, and the weighted values are sums over tokens of (p s) * code plus those of p z, so that
// scales and zeros meet the query (the weights) once for each group (affine_products-inl.h). Tiles
// at the edge of what is coded are decoded to float32 rows, exact ones beside them, and so are all
// tiles where float32 products are asked for.
#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/affine_walk.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "format/dtype.h"
#include "kernel/affine_codec.h"
#include "kernel/affine_products-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

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

// Values [0, width) of rows [0, rows) of a coded tile as floats, [.., t.width].
template <size_t kBits>
static void Decode(const Tile& t, size_t rows, size_t width, float* to) {
  constexpr size_t kBlock = AffineBlockRows(kBits);
  const DF d;
  float scale[kMaxHeadDim], zero[kMaxHeadDim];
  static_assert(kMaxHeadDim >= kTileTokens);
  const VU mask = hn::Set(DU(), (1u << kBits) - 1);
  for (size_t c = 0; c < width; c += kWide) {
    if (c % t.group == 0) {
      const size_t g = 2 * (c / t.group * t.rows);
      for (size_t r = 0; r < t.rows; r += kLanes) {
        hn::StoreU(LoadHalves(t.scales + g + 2 * r), d, scale + r);
        hn::StoreU(LoadHalves(t.zeros + g + 2 * r), d, zero + r);
      }
    }
    const uint8_t* blocks = t.data + c * t.rows * kBits / 8;
    for (size_t first = 0; first < rows; first += kBlock, blocks += kAffineBlockBytes) {
      for (size_t k = 0; k < kPass; ++k) {
        const VU packed = hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(blocks) + k * kLanes);
        for (size_t r = 0; r < std::min(kBlock, rows - first); ++r) {
          const int shift = static_cast<int>(8 * (r % 4) + kBits * (r / 4));
          const VI code = hn::BitCast(DI(), hn::And(hn::ShiftRightSame(packed, shift), mask));
          const size_t row = first + r;
          hn::StoreU(
              hn::MulAdd(hn::ConvertTo(d, code), hn::Set(d, scale[row]), hn::Set(d, zero[row])), d,
              to + row * t.width + c + k * kLanes);
        }
      }
    }
  }
}

// A tile as it is multiplied: as it lies where all of it is coded and products need not be float32,
// else decoded to `room` [64, head_dim]. `coded` of its tokens are, which are its first rows (of
// values) or columns (of keys); `stored` holds the others.
template <bool kValues>
static Tile Open(const AffineFormat& f, const uint8_t* tile, const uint8_t* next, size_t coded,
                 KvType type, const uint8_t* stored, bool exact, float* room) {
  const size_t bits = kValues ? f.value_bits : f.key_bits;
  const size_t rows = kValues ? kTileTokens : f.head_dim;
  const size_t width = kValues ? f.head_dim : kTileTokens;
  const uint8_t* scales = tile + rows * width * bits / 8;
  const size_t scale_bytes = rows * width / f.group * sizeof(uint16_t);
  const size_t bytes = rows * width * bits / 8 + 2 * scale_bytes;
  Tile t{bits, tile, rows, width, f.group, scales, scales + scale_bytes, next, bytes, room};
  if (coded == kTileTokens && !exact) return t;
  if (coded < kTileTokens) {
    SplitPairs(type, stored, kValues ? coded / 2 : 0, rows / 2, width, room);
  }
  const auto decode = bits == 2 ? Decode<2> : Decode<4>;
  decode(t, kValues ? coded : rows, kValues ? width : coded, room);
  t.bits = 32;
  t.data = reinterpret_cast<const uint8_t*>(room);
  return t;
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
    HeadTiles stored;
    if (keys < kTileTokens || values < kTileTokens) stored = HeadTiles(args, at);
    const Tile k =
        Open<false>(f, now.keys, then.keys, keys, args.key_type, stored.keys, args.exact, decoded);
    const Tile v = Open<true>(f, now.values, then.values, values, args.value_type, stored.values,
                              args.exact, decoded_values);
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
