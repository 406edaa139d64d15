// The attention that tokens get (ColumnSums): one tile of keys for a block of query rows.
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/attention_observe.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/attention_internal.h"
#include "kernel/attention_tile-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Scores of rows [first, first + R) against a tile of keys.
template <class Kernel, size_t R>
static void ScoreRows(const Block& b, size_t first, const typename Kernel::Tile& keys, float* to) {
  using Element = typename Kernel::Element;
  const auto* q = reinterpret_cast<const Element*>(b.queries) + first * b.head_dim;
  Kernel::template Scores<R>(q, b.head_dim, keys, b.head_dim, to);
}

// Calls f(row, scores) for each row in order, its scores [64] in units of log 2, -infinity for
// tokens that it does not see.
template <class Kernel, class F>
static void ForScores(const Block& b, const typename Kernel::Tile& keys, int64_t tile_pos,
                      const F& f) {
  HWY_ALIGN float scores[kRowTile * kTileTokens];
  for (size_t r = 0, n; r < b.rows; r += n) {
    n = std::min(b.rows - r, kRowTile);
    switch (n) {
      case 6:
        ScoreRows<Kernel, 6>(b, r, keys, scores);
        break;
      case 5:
        ScoreRows<Kernel, 5>(b, r, keys, scores);
        break;
      case 4:
        ScoreRows<Kernel, 4>(b, r, keys, scores);
        break;
      case 3:
        ScoreRows<Kernel, 3>(b, r, keys, scores);
        break;
      case 2:
        ScoreRows<Kernel, 2>(b, r, keys, scores);
        break;
      default:
        ScoreRows<Kernel, 1>(b, r, keys, scores);
    }
    for (size_t i = 0; i < n; ++i) {
      float* s = scores + i * kTileTokens;
      if (b.softcap > 0) CapScores(s, b.softcap);
      const int64_t seen = b.state[r + i].position + 1 - tile_pos;
      for (int64_t k = std::max<int64_t>(seen, 0); k < static_cast<int64_t>(kTileTokens); ++k) {
        s[k] = -std::numeric_limits<float>::infinity();
      }
      f(r + i, s);
    }
  }
}

template <class F>
static void WithScores(const AttentionArgs& args, const Block& b, TileAt at, float* decoded,
                       const F& f) {
  const uint8_t* keys = HeadTiles(args, at).keys;
  const int64_t tile_pos = static_cast<int64_t>(at.tile) * kTileTokens;
#if SNUG_HAVE_BF16_DOT
  if (!UsesFloat(args)) {
    auto* to = reinterpret_cast<uint8_t*>(decoded);
    return ForScores<Bf16Kernel>(b, DecodeKeys(args.key_type, keys, keys, args.head_dim, to),
                                 tile_pos, f);
  }
#endif
  float* scales = decoded + 2 * b.padded_dim * kTileTokens;
  const PairTile tile = OpenTile<false>(args.key_type, keys, nullptr, args.head_dim,
                                        b.rows > kDecodedRows, scales, decoded);
  ForScores<FloatKernel>(b, tile, tile_pos, f);
}

// log2(x) of positive x: the mantissa's by 2 atanh(s), |s| < 0.172, whose series is cut at 3e-10.
static HWY_INLINE VF Log2(VF x) {
  const DF d;
  const VI bits = hn::BitCast(DI(), x);
  // Mantissas are those between the roots of 1/2 and of 2.
  const VI exponent = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(DI(), 0x3f3504f3)));
  const VI mantissa = hn::Sub(bits, hn::ShiftLeft<23>(exponent));
  const VF m = hn::Sub(hn::BitCast(d, mantissa), hn::Set(d, 1.0f));
  const VF s = hn::Div(m, hn::Add(m, hn::Set(d, 2.0f)));
  const VF s2 = hn::Mul(s, s);
  VF p = hn::Set(d, 0.32059890f);  // 2 / ln 2 over 9, 7, 5, 3, 1
  p = hn::MulAdd(p, s2, hn::Set(d, 0.41219858f));
  p = hn::MulAdd(p, s2, hn::Set(d, 0.57707802f));
  p = hn::MulAdd(p, s2, hn::Set(d, 0.96179669f));
  p = hn::MulAdd(p, s2, hn::Set(d, 2.88539008f));
  return hn::MulAdd(s, p, hn::ConvertTo(d, exponent));
}

// Gumbel noise in units of log 2, -log2(-ln u), for the tokens at `positions`: u by a hash of them
// and the row's key (the last steps of MurmurHash3, Appleby 2011).
static HWY_INLINE VF Gumbel(const uint32_t* positions, uint32_t key) {
  const DF d;
  const DU du;
  VU h = hn::Xor(hn::Mul(hn::LoadU(du, positions), hn::Set(du, 0x9e3779b1u)), hn::Set(du, key));
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<16>(h)), hn::Set(du, 0x85ebca6bu));
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<13>(h)), hn::Set(du, 0xc2b2ae35u));
  h = hn::Xor(h, hn::ShiftRight<16>(h));
  const VF steps = hn::ConvertTo(d, hn::BitCast(DI(), hn::ShiftRight<9>(h)));
  const VF u = hn::Mul(hn::Add(steps, hn::Set(d, 0.5f)), hn::Set(d, 1.0f / (1 << 23)));
  constexpr float kLogLn2 = -0.52876637f;  // log2(ln 2)
  return hn::Sub(hn::Set(d, -kLogLn2), Log2(hn::Neg(Log2(u))));
}

// Weights of kLanes tokens of a row, from token i of the tile on.
static HWY_INLINE VF Weights(const Weighing& w, size_t row, const float* s, size_t i) {
  const DF d;
  VF x = hn::Sub(hn::LoadU(d, s + i), hn::Set(d, w.log_sums[row]));
  if (w.noise_sums != nullptr) {
    if (w.row_keys != nullptr) x = hn::Add(x, Gumbel(w.positions + i, w.row_keys[row]));
    x = hn::MulSub(x, hn::Set(d, w.inverse_temperature), hn::Set(d, w.noise_sums[row]));
  }
  // Never NaN, whatever a broken model's queries are.
  return Exp2(hn::Min(x, hn::Set(d, 60.0f)));
}

static void SumColumnsT(const AttentionArgs& args, const Block& b, TileAt at, const Weighing& w,
                        float* decoded, float* sums) {
  HWY_ALIGN float token[kTileTokens] = {};  // of the token at hand, over its heads
  const size_t group = args.heads / args.kv_heads;
  const float scale = 1 / static_cast<float>(group);
  WithScores(args, b, at, decoded, [&](size_t row, const float* s) HWY_ATTR {
    const DF d;
    if (w.head_stride != 0) {
      float* own = sums + row % group * w.head_stride;
      for (size_t i = 0; i < kTileTokens; i += kLanes) {
        hn::StoreU(hn::Add(hn::LoadU(d, own + i), Weights(w, row, s, i)), d, own + i);
      }
      return;
    }
    for (size_t i = 0; i < kTileTokens; i += kLanes) {
      const VF sum = hn::MulAdd(Weights(w, row, s, i), hn::Set(d, scale), hn::Load(d, token + i));
      hn::Store(sum, d, token + i);
    }
    if ((row + 1) % group != 0) return;
    for (size_t i = 0; i < kTileTokens; i += kLanes) {
      hn::StoreU(hn::Add(hn::LoadU(d, sums + i), hn::Load(d, token + i)), d, sums + i);
      hn::Store(hn::Zero(d), d, token + i);
    }
  });
}

static void SumRowsT(const AttentionArgs& args, const Block& b, TileAt at, const Weighing& w,
                     float* decoded, float* sums) {
  WithScores(args, b, at, decoded, [&](size_t row, const float* s) HWY_ATTR {
    VF sum = hn::Zero(DF());
    for (size_t i = 0; i < kTileTokens; i += kLanes) sum = hn::Add(sum, Weights(w, row, s, i));
    sums[row] += Sum(sum);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(SumColumnsT);
HWY_EXPORT(SumRowsT);

void SumColumns(const AttentionArgs& args, const Block& block, TileAt at, const Weighing& weighing,
                float* decoded, float* sums) {
  HWY_DYNAMIC_DISPATCH(SumColumnsT)(args, block, at, weighing, decoded, sums);
}
void SumRows(const AttentionArgs& args, const Block& block, TileAt at, const Weighing& weighing,
             float* decoded, float* sums) {
  HWY_DYNAMIC_DISPATCH(SumRowsT)(args, block, at, weighing, decoded, sums);
}

}  // namespace snug
#endif  // HWY_ONCE
