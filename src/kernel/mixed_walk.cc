// Attention over segments in classes (mixed_codec.h), on the codes as they lie: with x = s *
// code + z a key's score is the sum over channels of (q s) * code plus that of q z; the weighted
// values are sums over tokens of (p s) * code plus those of p z, times each channel's factor.
#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/mixed_walk.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/code_rows-inl.h"
#include "kernel/mixed_codec.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Up to 64 rows of a class: keys as channels by tokens, values as tokens by channels.
struct MixedTile {
  size_t bits;
  const uint8_t* data;
  size_t row_bytes, rows, width;
  const uint8_t *scales, *zeros;  // [rows, whole vectors] f16
  const uint8_t* factors;         // [width] f16, or null
  float* room;                    // [kRowTile, rows, whole vectors]
  const uint8_t* next;            // CodedTile's; nothing is fetched
};

template <class F>
static HWY_INLINE void ForProducts(const MixedTile& t, const float* x, size_t x_stride, size_t n,
                                   const F& f) {
  const DF d;
  HWY_ALIGN float sums[kRowTile * kWide];
  const size_t stride = (t.rows + kWide - 1) / kWide * kWide;
  VF offset[kRowTile];
  for (size_t r = 0; r < n; ++r) offset[r] = hn::Zero(d);
  for (size_t i = 0; i < t.rows; i += kLanes) {
    const VF s = LoadHalves(t.scales + 2 * i), z = LoadHalves(t.zeros + 2 * i);
    for (size_t r = 0; r < n; ++r) {
      const VF v = hn::LoadU(d, x + r * x_stride + i);
      hn::StoreU(hn::Mul(v, s), d, t.room + r * stride + i);
      offset[r] = hn::MulAdd(v, z, offset[r]);
    }
  }
  for (size_t r = 0; r < n; ++r) offset[r] = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, offset[r])));
  for (size_t c = 0; c < t.width; c += kWide) {
    const uint8_t* data = t.data + c * t.bits / 8;
    const auto multiply = [&](auto rows)
                              HWY_ATTR { MultiplyRows(rows, t.rows, t.room, stride, n, sums); };
    switch (t.bits) {
      case 2:
        multiply(Rows<TwoBits>{data, t.row_bytes});
        break;
      case 4:
        multiply(Rows<FourBits>{data, t.row_bytes});
        break;
      case 8:
        multiply(Rows<EightBits>{data, t.row_bytes});
        break;
      default:
        multiply(Rows<Halves16>{data, t.row_bytes});
    }
    for (size_t r = 0; r < n; ++r) {
      for (size_t i = 0; i < kWide; i += kLanes) {
        VF sum = hn::Add(hn::Load(d, sums + r * kWide + i), offset[r]);
        if (t.factors != nullptr) sum = hn::Mul(sum, LoadHalves(t.factors + 2 * (c + i)));
        hn::Store(sum, d, sums + r * kWide + i);
      }
    }
    f(c, sums);
  }
}

// The block of rows of a class that begins with its row `at`.
static void WalkBlock(const Block& b, const uint8_t* head, const MixedClass& c, uint32_t at,
                      float* room) {
  const size_t n = c.BlockRows(at), d = c.head_dim;
  const uint8_t *key_scales = head + c.key_scales, *value_scales = head + c.value_scales + 2 * at;
  const MixedTile keys{c.bits,     head + c.KeyBlock(at), c.KeyRowBytes(at), d,    n,
                       key_scales, key_scales + 2 * d,    nullptr,           room, nullptr};
  const MixedTile values{c.bits,
                         head + c.values + at * c.ValueRowBytes(),
                         c.ValueRowBytes(),
                         n,
                         d,
                         value_scales,
                         value_scales + 2 * c.padded_rows(),
                         c.bits == 16 ? nullptr : head,
                         room,
                         nullptr};
  // Every query sees all of the rows.
  CodedTile(b, keys, values, 0, static_cast<int64_t>(n));
}

static void WalkMixedT(const MixedCodec& codec, const AttentionArgs& args, const Block& b,
                       TileAt first, uint32_t last, float* decoded) {
  const CodedRows& coded = args.coded;
  const uint32_t begin = first.tile * kTileTokens, end = last * kTileTokens;
  for (uint32_t i = 0; i < coded.segment_count; ++i) {
    const CodedSegment& s = coded.segments[i];
    if (s.first + s.rows <= begin) continue;
    if (s.first >= end) break;
    const uint8_t* head = s.data + first.head * codec.HeadBytes(s.rows);
    const MixedCodec::Classes classes = codec.ClassesOf(s.rows);
    for (const MixedClass& c : classes.of) {
      const uint32_t class_first = s.first + c.first;
      // The first block that does not begin before `begin`.
      uint32_t at = 0;
      if (begin > class_first) {
        at = (begin - class_first + kTileTokens - 1) / kTileTokens * kTileTokens;
      }
      for (; at < c.rows && class_first + at < end; at += kTileTokens) {
        WalkBlock(b, head, c, at, decoded);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(WalkMixedT);

void MixedCodec::Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                      TileAt next, float* decoded) const {
  HWY_DYNAMIC_DISPATCH(WalkMixedT)(*this, args, block, first, last, decoded);
  // The rest of the last tile.
  if (args.coded.keys >= last * kTileTokens) return;
  Block exact = block;
  exact.first = args.coded.keys;
  if (next.tile < args.coded.end()) next = {first.head, last - 1};  // nothing to fetch
  WalkTiles(args, exact, {first.head, last - 1}, last, next, decoded);
}

}  // namespace snug
#endif  // HWY_ONCE
