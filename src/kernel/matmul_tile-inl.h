// The inner loops of the int8 products: a tile of tokens and of one panel's rows, 32 columns at a
// time as integer dot products, scaled and added in float32 in column order. Included once per
// target.
#if defined(SNUG_KERNEL_MATMUL_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATMUL_TILE_INL_H
#undef SNUG_KERNEL_MATMUL_TILE_INL_H
#else
#define SNUG_KERNEL_MATMUL_TILE_INL_H
#endif

#include <algorithm>

#include "hwy/cache_control.h"
#include "kernel/compat-inl.h"
#include "kernel/matmul.h"
#include "kernel/matmul_formats-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Rows of a tile, in vectors: where one vector holds half a panel, both halves share the broadcasts
// of x.
inline constexpr size_t kRowVectors = HWY_TARGET == HWY_AVX2 ? 2 : 1;
inline constexpr size_t kTileRows = kRowVectors * kLanes;
// Registers: with 32, two per token (integer and float sums), a vector of weights, scales, masks;
// Q6_K's shifts take more. With 16, integer sums alone: float sums stay in memory.
inline constexpr size_t kMaxTile = kLanes == 16 ? 12 : 4;
// Weights up to these may be summed over eight quads, or four, in 16 bits: 8 * 2 * 15 * 127 < 2^15.
inline constexpr int kDeepWeight = 15, kHalfDeepWeight = 31;
template <class Format>
inline constexpr size_t kTileOf = Format::kHalves ? std::min<size_t>(kMaxTile, 8) : kMaxTile;
// Tokens of the next tile where `left` are left: 16 are better halved than split into 12 and 4.
template <class Format>
static size_t NextTile(size_t left) {
  return left > kTileOf<Format> && left <= 16 ? std::min<size_t>(kMaxTile, 8)
                                              : std::min(left, kTileOf<Format>);
}
// Bytes ahead of the weights in use that are asked of memory: hardware prefetching alone keeps up
// with neither one token nor several.
inline constexpr size_t kAhead = 8192;

// Float sums of T tokens and a tile's rows.
template <int T>
struct Sums {
  HWY_INLINE Sums(float* sums, size_t row_stride) : memory(sums), stride(row_stride) {
    if constexpr (!kInMemory) {
      HWY_UNROLL(12)
      for (int t = 0; t < T; ++t) acc[t] = hn::LoadU(DF(), memory + t * stride);
    }
  }
  HWY_INLINE void Store() const {
    if constexpr (!kInMemory) {
      HWY_UNROLL(12)
      for (int t = 0; t < T; ++t) hn::StoreU(acc[t], DF(), memory + t * stride);
    }
  }
  HWY_INLINE VF Load(int t, int v) const {
    if constexpr (kInMemory) return hn::LoadU(DF(), memory + t * stride + v * kLanes);
    return acc[kInMemory ? 0 : t];
  }
  HWY_INLINE void Save(int t, int v, VF sum) {
    if constexpr (kInMemory) {
      hn::StoreU(sum, DF(), memory + t * stride + v * kLanes);
    } else {
      acc[t] = sum;
    }
  }
  static constexpr bool kInMemory = kRowVectors > 1;
  float* memory;
  size_t stride;
  VF acc[kInMemory ? 1 : T];
};

// Integer dot products of one sub-block of 32 columns for T tokens. x[g] is the block of tokens [4
// g, 4 g + 4).
template <class Format, int T>
struct SubBlockDots {
  static constexpr int kGroups = (T + 3) / 4, V = kRowVectors;
  const Format (&format)[V];
  const XBlock* const (&x)[kGroups];

  // The dot product of x with the weights' offset, negative: exact in integers.
  template <int Half>
  static HWY_INLINE VI Start(const XBlock& b, int slot) {
    if constexpr (Format::kShift == kNoShift) return hn::Zero(DI());
    if constexpr (Format::kShift != kNoShift)
      return hn::ShiftLeft<Format::kShift>(NegSum<Half>(b, slot));
  }
  // -(sum of q) over the columns of this run.
  template <int Half>
  static HWY_INLINE VI NegSum(const XBlock& b, int slot) {
    const VI sum = hn::Set(DI(), Format::kHalves ? b.neg_half[slot] : b.neg[slot]);
    return Half == 1 ? hn::Sub(hn::Set(DI(), b.neg[slot]), sum) : sum;
  }
  HWY_INLINE const int8_t* Quad(int t, int k) const { return x[t / 4]->q[t % 4] + 4 * k; }

#if HWY_TARGET == HWY_AVX2
  template <int Half>
  HWY_INLINE void Run(VI (&dot)[T][V]) const {
    constexpr int kFirst = Half * 4, kCount = Format::kHalves ? 4 : 8;
    if constexpr (Format::kWide) {
      static_assert(Format::kShift == 7);
      for (auto& row : dot) {
        for (VI& d : row) d = hn::Zero(DI());
      }
      SignedQuads<kFirst, kCount>(dot);
      return;
    }
    if constexpr (!Format::kWide) {
      HWY_UNROLL(4)
      for (int t = 0; t < T; ++t) {
        for (int v = 0; v < V; ++v) dot[t][v] = Start<Half>(*x[t / 4], t % 4);
      }
      if constexpr (Format::kMaxWeight <= kHalfDeepWeight) {
        AddDeep<kFirst, kCount, Format::kMaxWeight <= kDeepWeight ? kCount : 4>(dot);
      } else {
        QuadPairs<kFirst, kCount>(dot);
      }
    }
  }
  // N quads, of which kDepth at a time are summed in 16 bits.
  template <int K, int N, int kDepth>
  HWY_INLINE void AddDeep(VI (&dot)[T][V]) const {
    if constexpr (N > 0) {
      __m256i pairs[T][V];
      DeepQuads<K, kDepth, true>(pairs);
      for (int t = 0; t < T; ++t) {
        for (int v = 0; v < V; ++v) dot[t][v] = hn::Add(dot[t][v], WidenPairs(pairs[t][v]));
      }
      AddDeep<K + kDepth, N - kDepth, kDepth>(dot);
    }
  }
  template <int K, int N, bool kStart>
  HWY_INLINE void DeepQuads(__m256i (&pairs)[T][V]) const {
    if constexpr (N > 0) {
      __m256i w[V];
      for (int v = 0; v < V; ++v) w[v] = format[v].template Quad<K>().raw;
      HWY_UNROLL(4)
      for (int t = 0; t < T; ++t) {
        const __m256i q = Broadcast4(Quad(t, K)).raw;
        for (int v = 0; v < V; ++v) {
          const __m256i p = _mm256_maddubs_epi16(w[v], q);
          pairs[t][v] = kStart ? p : _mm256_add_epi16(pairs[t][v], p);
          InOrder(pairs[t][v]);
        }
      }
      DeepQuads<K + 1, N - 1, false>(pairs);
    }
  }
  // Sums of two quads fit 16 bits.
  template <int K, int N>
  HWY_INLINE void QuadPairs(VI (&dot)[T][V]) const {
    static_assert(Format::kMaxWeight <= 63);
    if constexpr (N > 0) {
      __m256i w0[V], w1[V];
      for (int v = 0; v < V; ++v) {
        w0[v] = format[v].template Quad<K>().raw;
        w1[v] = format[v].template Quad<K + 1>().raw;
      }
      HWY_UNROLL(4)
      for (int t = 0; t < T; ++t) {
        const __m256i q0 = Broadcast4(Quad(t, K)).raw, q1 = Broadcast4(Quad(t, K + 1)).raw;
        for (int v = 0; v < V; ++v) {
          const __m256i p =
              _mm256_add_epi16(_mm256_maddubs_epi16(w0[v], q0), _mm256_maddubs_epi16(w1[v], q1));
          dot[t][v] = hn::Add(dot[t][v], WidenPairs(p));
          InOrder(dot[t][v].raw);
        }
      }
      QuadPairs<K + 2, N - 2>(dot);
    }
  }
  // Weights of eight bits as magnitude times sign: sums of one quad fit 16 bits.
  template <int K, int N>
  HWY_INLINE void SignedQuads(VI (&dot)[T][V]) const {
    if constexpr (N > 0) {
      __m256i w[V], size[V];
      for (int v = 0; v < V; ++v) {
        w[v] = _mm256_xor_si256(format[v].template Quad<K>().raw, _mm256_set1_epi8(-128));
        size[v] = _mm256_abs_epi8(w[v]);
      }
      HWY_UNROLL(4)
      for (int t = 0; t < T; ++t) {
        const __m256i q = Broadcast4(Quad(t, K)).raw;
        for (int v = 0; v < V; ++v) {
          const __m256i p = _mm256_maddubs_epi16(size[v], _mm256_sign_epi8(q, w[v]));
          dot[t][v] = hn::Add(dot[t][v], WidenPairs(p));
          InOrder(dot[t][v].raw);
        }
      }
      SignedQuads<K + 1, N - 1>(dot);
    }
  }
  // Compilers that reorder integer sums keep all their terms, in memory.
  static HWY_INLINE void InOrder(__m256i& sum) { asm("" : "+x"(sum)); }
  static HWY_INLINE VI WidenPairs(__m256i pairs) {
    return VI{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))};
  }
#else
  template <int Half>
  HWY_INLINE void Run(VI (&dot)[T][V]) const {
    HWY_UNROLL(12)
    for (int t = 0; t < T; ++t) dot[t][0] = Start<Half>(*x[t / 4], t % 4);
    Quads<Half * 4, Format::kHalves ? 4 : 8>(dot);
  }
  template <int K, int N>
  HWY_INLINE void Quads(VI (&dot)[T][V]) const {
    if constexpr (N > 0) {
      const VU w = format[0].template Quad<K>();
      HWY_UNROLL(12)
      for (int t = 0; t < T; ++t) {
        dot[t][0] = QuadDotBroadcast<Format::kWide>(dot[t][0], w, Quad(t, K));
      }
      Quads<K + 1, N - 1>(dot);
    }
  }
#endif
};

// One sub-block of 32 columns for T tokens, scaled and added.
template <class Format, int T>
struct SubBlock {
  static constexpr int V = kRowVectors;
  using Dots = SubBlockDots<Format, T>;
  const Dots& dots;
  Sums<T>& sums;

  // Weights [16 * Half, ...): all 32 columns, or 16 where each half has its scale.
  template <int Half>
  HWY_INLINE void Run() const {
    VI dot[T][V];
    dots.template Run<Half>(dot);
    VF scale[V], min[V];
    for (int v = 0; v < V; ++v) {
      scale[v] = dots.format[v].template Scale<Half>();
      if constexpr (Format::kMin) min[v] = dots.format[v].template Min<Half>();
    }
    HWY_UNROLL(12)
    for (int t = 0; t < T; ++t) {
      const XBlock& block = *dots.x[t / 4];
      const VF x_scale = hn::Set(DF(), block.scale[t % 4]);
      HWY_UNROLL(2)
      for (int v = 0; v < V; ++v) {
        VF sum = sums.Load(t, v);
        sum = hn::MulAdd(hn::ConvertTo(DF(), dot[t][v]), hn::Mul(scale[v], x_scale), sum);
        if constexpr (Format::kMin) sum = hn::NegMulAdd(min[v], Sum<Half>(block, t % 4), sum);
        sums.Save(t, v, sum);
      }
    }
  }
  // The sum of x over the columns of this run: scale * (sum of q).
  template <int Half>
  static HWY_INLINE VF Sum(const XBlock& b, int slot) {
    if constexpr (!Format::kHalves) return hn::Set(DF(), b.sum[slot]);
    const VF sum = hn::ConvertTo(DF(), hn::Neg(Dots::template NegSum<Half>(b, slot)));
    return hn::Mul(sum, hn::Set(DF(), b.scale[slot]));
  }
};

// Weights up to this go the way that those of at most `weight` take.
constexpr int WeightClass(int weight) {
  return weight <= kDeepWeight       ? kDeepWeight
         : weight <= kHalfDeepWeight ? kHalfDeepWeight
         : weight <= 63              ? 63
                                     : 255;
}

// A sub-block of 32 columns as bytes, scales and minima ready for use: what many tokens share.
// Formats that differ only in how they are stored share it too.
template <int kShiftOf, int kMaxWeightOf, bool kMinOf, bool kHalvesOf>
struct UnpackedAs {
  static constexpr size_t kSubs = 1, kBytes = 512, kRow = kPanelRows * sizeof(float);
  static constexpr int kShift = kShiftOf, kMaxWeight = kMaxWeightOf;
  static constexpr bool kMin = kMinOf, kHalves = kHalvesOf, kWide = kMaxWeightOf == 255;
  static constexpr size_t kScales = kHalves ? 2 : 1;
  static constexpr size_t kHeadBytes = (kMin ? 2 : 1) * kScales * kRow;
  HWY_INLINE UnpackedAs(const uint8_t* b, const uint8_t* h) : body(b), head(h) {}
  HWY_INLINE void Seek(size_t) {}
  template <int K>
  HWY_INLINE VU Quad() const {
    return LoadWord(body, K);
  }
  template <int Half>
  HWY_INLINE VF Scale() const {
    return hn::LoadU(DF(), reinterpret_cast<const float*>(head + Half * kRow));
  }
  template <int Half>
  HWY_INLINE VF Min() const {
    return hn::LoadU(DF(), reinterpret_cast<const float*>(head + (kScales + Half) * kRow));
  }
  const uint8_t *body, *head;
};

template <class Format>
using Unpacked =
    UnpackedAs<Format::kShift, WeightClass(Format::kMaxWeight), Format::kMin, Format::kHalves>;

// Writes a reader's sub-block as Unpacked reads it.
template <class Format>
struct Unpacker {
  template <int K>
  HWY_INLINE void Run() const {
    hn::StoreU(format.template Quad<K>(), DU(), reinterpret_cast<uint32_t*>(body + 64 * K));
    constexpr size_t kRow = Unpacked<Format>::kRow, kScales = Unpacked<Format>::kScales;
    if constexpr (K < kScales) {
      Store(format.template Scale<K>(), K * kRow);
      if constexpr (Format::kMin) Store(format.template Min<K>(), (kScales + K) * kRow);
    }
  }
  HWY_INLINE void Store(VF v, size_t at) const {
    hn::StoreU(v, DF(), reinterpret_cast<float*>(head + at));
  }
  const Format& format;
  uint8_t *body, *head;
};

// Bytes of a unit's head for each row.
template <class Format>
inline constexpr size_t kHeadLane = Format::kHeadBytes / kPanelRows;
template <int kShift, int kMaxWeight, bool kMin, bool kHalves>
inline constexpr size_t kHeadLane<UnpackedAs<kShift, kMaxWeight, kMin, kHalves>> = sizeof(float);

template <class Format>
static HWY_NOINLINE void Unpack(const uint8_t* body, const uint8_t* head, size_t units,
                                uint8_t* to_body, uint8_t* to_head) {
  using To = Unpacked<Format>;
  for (size_t u = 0; u < units; ++u, body += Format::kBytes, head += Format::kHeadBytes) {
    for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
      Format format(body + 4 * lane, head + kHeadLane<Format> * lane);
      for (size_t j = 0; j < Format::kSubs; ++j) {
        const size_t sub = u * Format::kSubs + j;
        format.Seek(j);
        Unroll<0, 8>(Unpacker<Format>{format, to_body + To::kBytes * sub + 4 * lane,
                                      to_head + To::kHeadBytes * sub + 4 * lane});
      }
    }
  }
}

// What a tile reads and adds to: `units` units of one panel, at this target's lanes.
struct Operands {
  const uint8_t *body, *head;
  const XBlock* x;
  size_t x_stride;  // blocks from four tokens to the next four
  size_t units;
  const uint8_t*
      limit;    // end of the weights that will be read from memory; null where they are in a cache
  float* sums;  // [T, 16]
  size_t sums_stride = kPanelRows;
};

template <class Format, int T>
static HWY_NOINLINE void Tile(const Operands& o) {
  constexpr int kGroups = (T + 3) / 4;
  const XBlock* x[kGroups];
  for (int g = 0; g < kGroups; ++g) x[g] = o.x + g * o.x_stride;
  Sums<T> sums(o.sums, o.sums_stride);
  const uint8_t *body = o.body, *head = o.head;
  for (size_t u = 0; u < o.units; ++u) {
#if HWY_TARGET == HWY_AVX2
    Format format[] = {{body, head}, {body + 4 * kLanes, head + kHeadLane<Format> * kLanes}};
#else
    Format format[] = {{body, head}};
#endif
    for (size_t j = 0; j < Format::kSubs; ++j) {
      constexpr size_t kStep = Format::kBytes / Format::kSubs;
      if (const uint8_t* next = body + kAhead + j * kStep; next < o.limit) {
        for (size_t i = 0; i < kStep; i += 64) hwy::Prefetch(next + i);
      }
      for (Format& f : format) f.Seek(j);
      const SubBlockDots<Format, T> dots{format, x};
      Unroll<0, Format::kHalves ? 2 : 1>(SubBlock<Format, T>{dots, sums});
      for (int g = 0; g < kGroups; ++g) ++x[g];
    }
    body += Format::kBytes;
    head += Format::kHeadBytes;
  }
  sums.Store();
}

// Tiles of `tokens` tokens in sizes that are instantiated: surplus slots of a last block are
// computed and dropped.
template <class Format>
static void AnyTile(size_t tokens, const Operands& o) {
  if constexpr (kTileOf < Format >> 8) {
    if (tokens > 8) return Tile<Format, 12>(o);
  }
  if constexpr (kTileOf < Format >> 4) {
    if (tokens > 4) return Tile<Format, 8>(o);
  }
  if (tokens > 2) return Tile<Format, 4>(o);
  if (tokens == 2) return Tile<Format, 2>(o);
  Tile<Format, 1>(o);
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
