// What walks over coded tiles (tile_codec.h) have in common: products of a few query rows with 16
// values of each row of a tile, whatever these are decoded from, and one tile's share of the
// softmax. Included once per target.
#if defined(SNUG_KERNEL_CODED_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_CODED_TILE_INL_H
#undef SNUG_KERNEL_CODED_TILE_INL_H
#else
#define SNUG_KERNEL_CODED_TILE_INL_H
#endif

#include <algorithm>

#include "kernel/attention_tile-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

inline constexpr size_t kWide = 16;  // values of a row that a pass covers
inline constexpr size_t kPass = kWide / kLanes;

// sums [R, kWide] = x [R, n] times kWide values of each of n rows, row by row. Rows has
// Load(row, VF (&to)[kPass]), which is called for rows 0, 1, ...
template <size_t R, class Rows>
static HWY_INLINE void MultiplyR(const Rows& rows, size_t n, const float* x, size_t x_stride,
                                 float* sums) {
  VF sum[R][kPass];
  HWY_UNROLL(6)
  for (size_t r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) sum[r][k] = hn::Zero(DF());
  }
  for (size_t i = 0; i < n; ++i) {
    VF value[kPass];
    rows.Load(i, value);
    HWY_UNROLL(6)
    for (size_t r = 0; r < R; ++r) {
      const VF f = hn::Set(DF(), x[r * x_stride + i]);
      HWY_UNROLL(4)
      for (size_t k = 0; k < kPass; ++k) {
        sum[r][k] = FloatKernel::InRegister(hn::MulAdd(f, value[k], sum[r][k]));
      }
    }
  }
  HWY_UNROLL(6)
  for (size_t r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) {
      hn::StoreU(sum[r][k], DF(), sums + r * kWide + k * kLanes);
    }
  }
}

// The same for 1 to kRowTile rows of x.
template <class Rows>
static HWY_NOINLINE void MultiplyRows(const Rows& rows, size_t n, const float* x, size_t x_stride,
                                      size_t x_rows, float* sums) {
  switch (x_rows) {
    case 1:
      return MultiplyR<1>(rows, n, x, x_stride, sums);
    case 2:
      return MultiplyR<2>(rows, n, x, x_stride, sums);
    case 3:
      return MultiplyR<3>(rows, n, x, x_stride, sums);
    case 4:
      return MultiplyR<4>(rows, n, x, x_stride, sums);
    case 5:
      return MultiplyR<5>(rows, n, x, x_stride, sums);
    default:
      return MultiplyR<kRowTile>(rows, n, x, x_stride, sums);
  }
}

// One tile of `tokens` tokens for rows [first, first + n) of a block. For keys and for values there
// is ForProducts(tile, x, x_stride, n, f), which calls f(c, sums [n, kWide]) with the products of x
// [n, ...] and values [c, c + kWide) of all rows of the tile, for each such c.
template <class Keys, class Values>
static void CodedTileRows(const Block& b, size_t first, size_t n, const Keys& keys,
                          const Values& values, int64_t tile_pos, int64_t tokens) {
  HWY_ALIGN float scores[kRowTile * kTileTokens];
  float alpha[kRowTile];
  const DF d;
  const float* q = reinterpret_cast<const float*>(b.queries) + first * b.head_dim;
  ForProducts(keys, q, b.head_dim, n, [&](size_t t, const float* sums) HWY_ATTR {
    for (size_t r = 0; r < n; ++r) {
      for (size_t i = 0; i < kWide; i += kLanes) {
        hn::Store(hn::Load(d, sums + r * kWide + i), d, scores + r * kTileTokens + t + i);
      }
    }
  });
  for (size_t r = 0; r < n; ++r) {
    RowState& row = b.state[first + r];
    float* s = scores + r * kTileTokens;
    // Every query sees coded tokens, so that no row is without any.
    const int64_t high = std::min<int64_t>(row.position + 1 - tile_pos, tokens);
    alpha[r] = 1;
    SoftmaxStep(s, 0, high, b.softcap, &row, &alpha[r]);
    row.sum = row.sum * alpha[r] + FloatKernel::Round(s);
  }
  ForProducts(values, scores, kTileTokens, n, [&](size_t c, const float* sums) HWY_ATTR {
    for (size_t r = 0; r < n; ++r) {
      float* out = b.state[first + r].out + c;
      const VF a = hn::Set(d, alpha[r]);
      for (size_t i = 0; i < kWide; i += kLanes) {
        hn::StoreU(hn::MulAdd(hn::LoadU(d, out + i), a, hn::Load(d, sums + r * kWide + i)), d,
                   out + i);
      }
    }
  });
}

// One tile for all rows of a block; what the tiles say to fetch meanwhile (`next`) is fetched once.
template <class Keys, class Values>
static void CodedTile(const Block& b, Keys keys, Values values, int64_t tile_pos,
                      int64_t tokens = kTileTokens) {
  for (size_t r = 0, n; r < b.rows; r += n) {
    const size_t left = b.rows - r, passes = (left + kRowTile - 1) / kRowTile;
    n = (left + passes - 1) / passes;
    CodedTileRows(b, r, n, keys, values, tile_pos, tokens);
    keys.next = values.next = nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
