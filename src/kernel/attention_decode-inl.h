// Tiles of encoded keys and values (kv_layout.h) as vectors of float32, for attention's products in
// float32: read while multiplying, or decoded once for many query rows, in the order of the tile.
// Included once per target.
#if defined(SNUG_KERNEL_ATTENTION_DECODE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_ATTENTION_DECODE_INL_H
#undef SNUG_KERNEL_ATTENTION_DECODE_INL_H
#else
#define SNUG_KERNEL_ATTENTION_DECODE_INL_H
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernel/compat-inl.h"
#include "kernel/kv_layout.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// A tile to multiply with.
struct PairTile {
  KvType type;
  const uint8_t* data;
  const uint8_t* next;  // the tile to be fetched meanwhile, or null
  const float* scales;  // of quantized types: as ReadScales writes them
  size_t rows, width;   // rows of pairs, and values in each
};

// How values are stored: bits of each, whether scales apply, and kLanes of a row from value i on, a
// multiple of kLanes.
struct F32Values {
  static constexpr size_t kBits = 32;
  static constexpr bool kScaled = false;
  static HWY_INLINE VF Load(const uint8_t* row, size_t i) {
    return hn::LoadU(DF(), reinterpret_cast<const float*>(row) + i);
  }
};
struct F16Values {
  static constexpr size_t kBits = 16;
  static constexpr bool kScaled = false;
  static HWY_INLINE VF Load(const uint8_t* row, size_t i) { return LoadHalves(row + 2 * i); }
};
struct Bf16Values {
  static constexpr size_t kBits = 16;
  static constexpr bool kScaled = false;
  static HWY_INLINE VF Load(const uint8_t* row, size_t i) {
    const hn::Rebind<uint16_t, DF> d16;
    const VU v = hn::PromoteTo(DU(), hn::LoadU(d16, reinterpret_cast<const uint16_t*>(row) + i));
    return hn::BitCast(DF(), hn::ShiftLeft<16>(v));
  }
};
// The code's exponent and mantissa where f16 has its own are the value times 2^(7 - 15), in
// subnormal numbers, too.
struct F8Values {
  static constexpr size_t kBits = 8;
  static constexpr bool kScaled = false;
  static HWY_INLINE VF Load(const uint8_t* row, size_t i) {
    const hn::Rebind<int8_t, DF> d8;
    const hn::Rebind<int16_t, DF> d16;
    const auto codes = hn::LoadU(d8, reinterpret_cast<const int8_t*>(row) + i);
    // The sign is there twice.
    const auto bits = hn::And(hn::ShiftLeft<7>(hn::PromoteTo(d16, codes)),
                              hn::Set(d16, static_cast<int16_t>(0xbfff)));
    const hn::Rebind<hwy::float16_t, DF> dh;
    return hn::Mul(hn::PromoteTo(DF(), hn::BitCast(dh, bits)), hn::Set(DF(), 256.0f));
  }
};
struct Q8Values {
  static constexpr size_t kBits = 8;
  static constexpr bool kScaled = true;
  static HWY_INLINE VF Load(const uint8_t* row, size_t i) {
    const hn::Rebind<int8_t, DF> d8;
    const auto codes = hn::LoadU(d8, reinterpret_cast<const int8_t*>(row) + i);
    return hn::ConvertTo(DF(), hn::PromoteTo(DI(), codes));
  }
};
struct Q4Values {
  static constexpr size_t kBits = 4;
  static constexpr bool kScaled = true;
  static HWY_INLINE VF Load(const uint8_t* row, size_t i) {
#if HWY_TARGET == HWY_SCALAR
    const VU codes = hn::Set(DU(), uint32_t{row[i / 2]} >> (4 * (i % 2)));
#else
    // A word holds eight codes: each lane shifts its own down.
    alignas(64) static constexpr uint32_t kShifts[16] = {0, 4, 8, 12, 16, 20, 24, 28,
                                                         0, 4, 8, 12, 16, 20, 24, 28};
    constexpr size_t kWord = std::min<size_t>(kLanes, 8) / 2;  // bytes
    uint32_t word = 0;
    hwy::CopyBytes<kWord>(row + i / 2, &word);
    VU codes = hn::Set(DU(), word);
    if constexpr (kLanes == 16) {
      hwy::CopyBytes<kWord>(row + i / 2 + kWord, &word);
      codes = hn::IfThenElse(hn::FirstN(DU(), 8), codes, hn::Set(DU(), word));
    }
    codes = hn::Shr(codes, hn::Load(DU(), kShifts));
#endif
    const VI code = hn::BitCast(DI(), hn::And(codes, hn::Set(DU(), 15)));
    return hn::ConvertTo(DF(), hn::Sub(code, hn::Set(DI(), 8)));
  }
};

// p[0] for the even values of a row, p[1] for the odd ones, from value i on.
static HWY_INLINE VF RepeatPair(const float* p, [[maybe_unused]] size_t i) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(DF(), p[i % 2]);
#else
  double both;
  hwy::CopyBytes<8>(p, &both);
  return hn::BitCast(DF(), hn::Set(hn::Repartition<double, DF>(), both));
#endif
}

// The sums of the pairs in two vectors, in order.
static HWY_INLINE VF SumPairs(VF low, VF high) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Add(low, high);
#else
  return hn::Add(hn::ConcatEven(DF(), high, low), hn::ConcatOdd(DF(), high, low));
#endif
}

// Decoded values are exact: an f16 scale times a code has at most 19 significant bits.
template <class Values, bool kValues>
struct PairReader {
  static constexpr size_t kBits = Values::kBits;
  explicit PairReader(const PairTile& t) : data(t.data), rows(t.rows), scales(t.scales) {}
  // kLanes values of row first + ahead, from value i on; row `first` has the same scales.
  HWY_INLINE VF Load(size_t first, size_t ahead, size_t i) const {
    constexpr size_t kBytes = kColumn * kBits / 8;
    const uint8_t* row = data + (i / kColumn * rows + first) * kBytes + ahead * kBytes;
    const VF v = Values::Load(row, i % kColumn);
    if constexpr (!Values::kScaled) return v;
    if constexpr (Values::kScaled && kValues) {  // i = 2 * dimension
      const float* pair = scales + i / (2 * kKvBlock) * kTileTokens + 2 * first;
      return hn::Mul(v, RepeatPair(pair + 2 * ahead, i));
    }
    if constexpr (Values::kScaled && !kValues) {
      return hn::Mul(v, hn::LoadU(DF(), scales + 2 * first / kKvBlock * 2 * kTileTokens + i));
    }
  }
  const uint8_t* data;
  size_t rows;
  const float* scales;
};

// Calls f with the reader of the tile.
template <bool kValues, class F>
static HWY_INLINE void WithReader(const PairTile& t, const F& f) {
  switch (t.type) {
    case KvType::kF32:
      return f(PairReader<F32Values, kValues>(t));
    case KvType::kF16:
      return f(PairReader<F16Values, kValues>(t));
    case KvType::kBF16:
      return f(PairReader<Bf16Values, kValues>(t));
    case KvType::kQ8_0:
      return f(PairReader<Q8Values, kValues>(t));
    case KvType::kQ4_0:
      return f(PairReader<Q4Values, kValues>(t));
    case KvType::kF8E4M3:
      return f(PairReader<F8Values, kValues>(t));
  }
}

// The scales of a quantized tile: of values [head_dim / 32][64 tokens], of keys with each token
// twice.
template <bool kValues>
static void ReadScales(const uint8_t* halves, size_t head_dim, float* to) {
  const size_t n = head_dim / kKvBlock * kTileTokens;
  for (size_t i = 0; i < n; i += kLanes) {
    const VF v = LoadHalves(halves + 2 * i);
    if constexpr (kValues) {
      hn::StoreU(v, DF(), to + i);
    } else {
#if HWY_TARGET == HWY_SCALAR
      to[2 * i] = to[2 * i + 1] = hn::GetLane(v);
#else
      hn::StoreInterleaved2(v, v, DF(), to + 2 * i);
#endif
    }
  }
}

// Brings a part of another tile near, for when its turn comes.
static HWY_INLINE void Fetch(const uint8_t* p, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) PrefetchL2(p + at);
}

// A tile of keys or of values as it is read while multiplying, or, for `many` rows, decoded to
// float32 at `decoded`. Scales go to `scales`.
template <bool kValues>
static PairTile OpenTile(KvType type, const uint8_t* tile, const uint8_t* next, size_t head_dim,
                         bool many, float* scales, float* decoded) {
  const size_t padded = PaddedDim(head_dim);
  PairTile t{type,
             tile,
             next,
             scales,
             (kValues ? kTileTokens : head_dim) / 2,
             2 * (kValues ? padded : kTileTokens)};
  if (type == KvType::kQ8_0 || type == KvType::kQ4_0) {
    const size_t at = ScaleOffset(type, padded), bytes = head_dim / kKvBlock * kTileTokens * 2;
    ReadScales<kValues>(tile + at, head_dim, scales);
    if (next != nullptr) Fetch(next + at, bytes);
  }
  if (!many || type == KvType::kF32) return t;
  WithReader<kValues>(t, [&](const auto& reader) HWY_ATTR {
    const size_t line = kColumn * reader.kBits / 8;
    float* to = decoded;
    for (size_t c = 0; c < t.width; c += kColumn) {
      for (size_t r = 0; r < t.rows; ++r, to += kColumn) {
        if (next != nullptr) PrefetchL2(next + PairIndex(t.rows, r, c) / kColumn * line);
        for (size_t i = 0; i < kColumn; i += kLanes) {
          hn::StoreU(reader.Load(r, 0, c + i), DF(), to + i);
        }
      }
    }
  });
  t.type = KvType::kF32;
  t.data = reinterpret_cast<const uint8_t*>(decoded);
  t.next = nullptr;
  return t;
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
