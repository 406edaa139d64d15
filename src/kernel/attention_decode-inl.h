// Tiles of encoded keys and values (kv_layout.h) as float32, for attention's products in float32.
// Both lie in rows of pairs: of two dimensions for keys, of two tokens for values; a pair's halves
// go to two rows of the result. Included once per target.
#if defined(SNUG_KERNEL_ATTENTION_DECODE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_ATTENTION_DECODE_INL_H
#undef SNUG_KERNEL_ATTENTION_DECODE_INL_H
#else
#define SNUG_KERNEL_ATTENTION_DECODE_INL_H
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "kernel/compat-inl.h"
#include "kernel/kv_layout.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// The two halves of kLanes pairs.
struct PairVectors {
  VF first, second;
};

// Pairs that lie as first, second, first, second ... over two vectors.
static HWY_INLINE PairVectors Split(VF low, VF high) {
#if HWY_TARGET == HWY_SCALAR
  return {low, high};
#else
  return {hn::ConcatEven(DF(), high, low), hn::ConcatOdd(DF(), high, low)};
#endif
}

struct F16Pairs {
  static constexpr size_t kBytes = 4;  // of a pair
  static HWY_INLINE PairVectors Load(const uint8_t* p) {
    return Split(LoadHalves(p), LoadHalves(p + 2 * kLanes));
  }
};
struct Bf16Pairs {
  static constexpr size_t kBytes = 4;
  static HWY_INLINE PairVectors Load(const uint8_t* p) {
    const VU v = hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(p));
    return {hn::BitCast(DF(), hn::ShiftLeft<16>(v)),
            hn::BitCast(DF(), hn::And(v, hn::Set(DU(), 0xffff0000u)))};
  }
};
struct Q8Pairs {
  static constexpr size_t kBytes = 2;
  static HWY_INLINE PairVectors Load(const uint8_t* p) {
    const hn::Rebind<int16_t, DF> d16;
    const VI v = hn::PromoteTo(DI(), hn::LoadU(d16, reinterpret_cast<const int16_t*>(p)));
    return {hn::ConvertTo(DF(), hn::ShiftRight<24>(hn::ShiftLeft<24>(v))),
            hn::ConvertTo(DF(), hn::ShiftRight<8>(v))};
  }
};
struct Q4Pairs {
  static constexpr size_t kBytes = 1;
  static HWY_INLINE PairVectors Load(const uint8_t* p) {
    const hn::Rebind<uint8_t, DF> d8;
    const VI v = hn::PromoteTo(DI(), hn::LoadU(d8, p)), eight = hn::Set(DI(), 8);
    return {hn::ConvertTo(DF(), hn::Sub(hn::And(v, hn::Set(DI(), 15)), eight)),
            hn::ConvertTo(DF(), hn::Sub(hn::ShiftRight<4>(v), eight))};
  }
};

// A tile of `rows` rows of pairs, `pairs` each (a multiple of 16), to 2 * rows rows. scale(row, i,
// half) is the factor of kLanes pairs from i on. `next` is the tile that comes after it, to be
// fetched meanwhile.
template <class Pairs, class Scale>
static HWY_INLINE void DecodePairs(const uint8_t* src, const uint8_t* next, size_t rows,
                                   size_t pairs, const Scale& scale, float* dst) {
  const size_t bytes = pairs * Pairs::kBytes;
  for (size_t r = 0; r < rows; ++r, src += bytes, next += bytes, dst += 2 * pairs) {
    for (size_t at = 0; at < bytes; at += 64) hwy::Prefetch(next + at);
    for (size_t i = 0; i < pairs; i += kLanes) {
      const PairVectors v = Pairs::Load(src + i * Pairs::kBytes);
      hn::StoreU(scale(v.first, r, i, 0), DF(), dst + i);
      hn::StoreU(scale(v.second, r, i, 1), DF(), dst + pairs + i);
    }
  }
}

// Scales of quantized keys: f16 [head_dim / 32][64 tokens], lane = token.
struct KeyScales {
  HWY_INLINE VF operator()(VF v, size_t row, size_t i, int) const {
    const size_t block = 2 * row / kKvBlock;
    return hn::Mul(v, LoadHalves(scales + 2 * (block * kTileTokens + i)));
  }
  const uint8_t* scales;
};
// Of values, the same f16s, lane = dimension.
struct ValueScales {
  HWY_INLINE VF operator()(VF v, size_t row, size_t i, int half) const {
    uint16_t bits;
    hwy::CopyBytes<2>(scales + 2 * (i / kKvBlock * kTileTokens + 2 * row + half), &bits);
    return hn::Mul(v, LowHalf16(hn::Set(DU(), bits)));
  }
  const uint8_t* scales;
};
struct NoScale {
  HWY_INLINE VF operator()(VF v, size_t, size_t, int) const { return v; }
};

// A tile of keys [head_dim][64], or of values [64][padded dim], as float32: `tile` itself where it
// is that.
template <bool kValues>
static const uint8_t* DecodeFloats(KvType type, const uint8_t* tile, const uint8_t* next,
                                   size_t head_dim, uint8_t* dst) {
  auto* out = reinterpret_cast<float*>(dst);
  const size_t padded = PaddedDim(head_dim);
  const size_t rows = (kValues ? kTileTokens : head_dim) / 2;
  const size_t pairs = kValues ? padded : kTileTokens;
  using Scales = std::conditional_t<kValues, ValueScales, KeyScales>;
  const Scales scales{tile + ScaleOffset(type, padded)};
  switch (type) {
    case KvType::kF32:
      return tile;
    case KvType::kF16:
      DecodePairs<F16Pairs>(tile, next, rows, pairs, NoScale(), out);
      break;
    case KvType::kBF16:
      DecodePairs<Bf16Pairs>(tile, next, rows, pairs, NoScale(), out);
      break;
    case KvType::kQ8_0:
      DecodePairs<Q8Pairs>(tile, next, rows, pairs, scales, out);
      break;
    case KvType::kQ4_0:
      DecodePairs<Q4Pairs>(tile, next, rows, pairs, scales, out);
      break;
  }
  return dst;
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
