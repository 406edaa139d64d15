// Attention over tiles: the walk over splits, tiles and blocks of query rows around the inner
// kernels.
#include "kernel/attention.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/attention.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/attention_internal.h"
#include "kernel/attention_tile-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// One tile for R rows.
template <class Kernel, size_t R>
static void TileRows(const Block& b, size_t first, const typename Kernel::Tile& keys,
                     const typename Kernel::Tile& values, int64_t tile_pos, const float* bias) {
  HWY_ALIGN float scores[kRowTile * kTileTokens];
  float alpha[R];
  bool live[R];
  float* out[R];
  using Element = typename Kernel::Element;
  const auto* q = reinterpret_cast<const Element*>(b.queries) + first * b.head_dim;
  Kernel::template Scores<R>(q, b.head_dim, keys, b.head_dim, scores);
  bool any = false;
  for (size_t r = 0; r < R; ++r) {
    RowState& row = b.state[first + r];
    float* s = scores + r * kTileTokens;
    const int64_t high = row.position + 1 - tile_pos;
    const int64_t low = std::max<int64_t>(b.window == 0 ? 0 : high - b.window, b.first - tile_pos);
    alpha[r] = 1;
    live[r] = SoftmaxStep(s, std::max<int64_t>(low, 0), std::min<int64_t>(high, kTileTokens),
                          b.softcap, &row, &alpha[r], bias);
    out[r] = row.out;
    if (live[r]) {
      row.sum = row.sum * alpha[r] + Kernel::Round(s);
      any = true;
    } else {
      Kernel::Round(s);  // unused, but must be finite: a masked row's scores may be anything
    }
  }
  if (!any) return;
  constexpr size_t kStride = kTileTokens * sizeof(float) / sizeof(Element);
  Kernel::template Accumulate<R>(Kernel::Rounded(scores), kStride, values, b.padded_dim, alpha,
                                 live, out);
}

template <class Kernel>
static void TileBlock(const Block& b, typename Kernel::Tile keys, typename Kernel::Tile values,
                      int64_t tile_pos, const float* bias) {
  for (size_t r = 0, n; r < b.rows; r += n) {
    // 8 rows as 4 and 4: 2 rows cost nearly what 4 do.
    const size_t left = b.rows - r, passes = (left + kRowTile - 1) / kRowTile;
    n = (left + passes - 1) / passes;
    switch (n) {
      case 6:
        TileRows<Kernel, 6>(b, r, keys, values, tile_pos, bias);
        break;
      case 5:
        TileRows<Kernel, 5>(b, r, keys, values, tile_pos, bias);
        break;
      case 4:
        TileRows<Kernel, 4>(b, r, keys, values, tile_pos, bias);
        break;
      case 3:
        TileRows<Kernel, 3>(b, r, keys, values, tile_pos, bias);
        break;
      case 2:
        TileRows<Kernel, 2>(b, r, keys, values, tile_pos, bias);
        break;
      default:
        TileRows<Kernel, 1>(b, r, keys, values, tile_pos, bias);
    }
    keys = Kernel::Fetched(keys);
    values = Kernel::Fetched(values);
  }
}

static void PrepareQueryT(const AttentionArgs& args, const float* q, uint8_t* out) {
  const float scale = args.softcap > 0 ? args.scale : args.scale * kLog2E;
#if SNUG_HAVE_BF16_DOT
  if (!UsesFloat(args)) {
    return Bf16Kernel::PrepareQuery(q, args.head_dim, scale, reinterpret_cast<uint16_t*>(out));
  }
#endif
  FloatKernel::PrepareQuery(q, args.head_dim, scale, reinterpret_cast<float*>(out));
}

static void WalkTilesT(const AttentionArgs& args, const Block& b, TileAt first, uint32_t last,
                       TileAt next, float* decoded) {
  const size_t dim = args.head_dim, scales = dim / kKvBlock * kTileTokens;
  float* decoded_values = decoded + b.padded_dim * kTileTokens;
  float* key_scales = decoded_values + b.padded_dim * kTileTokens;
  for (TileAt at = first; at.tile < last; ++at.tile) {
    const HeadTiles now(args, at);
    const HeadTiles then(args, at.tile + 1 < last ? TileAt{at.head, at.tile + 1} : next);
    const int64_t tile_pos = static_cast<int64_t>(at.tile) * kTileTokens;
    const float* bias =
        args.bias == nullptr ? nullptr : args.bias + at.head * args.bias_stride + tile_pos;
#if SNUG_HAVE_BF16_DOT
    if (!UsesFloat(args)) {
      auto* to = reinterpret_cast<uint8_t*>(decoded);
      auto* values_to = reinterpret_cast<uint8_t*>(decoded_values);
      TileBlock<Bf16Kernel>(b, DecodeKeys(args.key_type, now.keys, then.keys, dim, to),
                            DecodeValues(args.value_type, now.values, then.values, dim, values_to),
                            tile_pos, bias);
      continue;
    }
#endif
    const bool many = b.rows > kDecodedRows;
    TileBlock<FloatKernel>(
        b, OpenTile<false>(args.key_type, now.keys, then.keys, dim, many, key_scales, decoded),
        OpenTile<true>(args.value_type, now.values, then.values, dim, many, key_scales + 2 * scales,
                       decoded_values),
        tile_pos, bias);
  }
}

// total = total joined with part (max, sum, out): each relative to its own maximum.
static void JoinT(const float* part, float part_max, float part_sum, size_t dims, float* max,
                  float* sum, float* total) {
  if (part_sum == 0) return;
  const DF d;
  const float new_max = std::max(*max, part_max);
  const float a = *sum == 0 ? 0.0f : hn::GetLane(Exp2(hn::Set(d, *max - new_max)));
  const float c = hn::GetLane(Exp2(hn::Set(d, part_max - new_max)));
  *max = new_max;
  *sum = *sum * a + part_sum * c;
  for (size_t i = 0; i < dims; i += kLanes) {
    const VF kept = hn::Mul(hn::LoadU(d, total + i), hn::Set(d, a));
    hn::StoreU(hn::MulAdd(hn::LoadU(d, part + i), hn::Set(d, c), kept), d, total + i);
  }
}

static bool HasBf16T() { return SNUG_HAVE_BF16_DOT != 0; }

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(PrepareQueryT);
HWY_EXPORT(WalkTilesT);
HWY_EXPORT(JoinT);
HWY_EXPORT(HasBf16T);

void PrepareQuery(const AttentionArgs& args, const float* q, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(PrepareQueryT)(args, q, out);
}
void WalkTiles(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
               TileAt next, float* decoded) {
  HWY_DYNAMIC_DISPATCH(WalkTilesT)(args, block, first, last, next, decoded);
}
void JoinPart(const float* part, float part_max, float part_sum, size_t dims, float* max,
              float* sum, float* total) {
  HWY_DYNAMIC_DISPATCH(JoinT)(part, part_max, part_sum, dims, max, sum, total);
}
bool UsesFloat(const AttentionArgs& args) {
  return args.exact || args.coded.codec != nullptr || args.shared.rows != 0 ||
         args.key_type == KvType::kF32 || args.value_type == KvType::kF32 ||
         !HWY_DYNAMIC_DISPATCH(HasBf16T)();
}

}  // namespace snug
#endif  // HWY_ONCE
