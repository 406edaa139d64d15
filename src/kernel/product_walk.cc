// Attention over tiles of centroid numbers (product_codec.h), and the search for the nearest
// centroid. Each code is read once for all query heads of its KV head: a pass takes 16 tokens of
// one sub-space of keys after the other (16 channels of one token of values after the other), loads
// their centroids once, and multiplies them with every query row.
//
// The sums are those of MILLION's tables (a query's products with the 256 centroids of a sub-space,
// one of which each token adds), but no table is made: with several query heads of a KV head, to
// load a centroid and multiply costs less than to load as many entries of tables in float32, which
// do not fit the L1 cache.
#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/product_walk.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/coded_tile-inl.h"
#include "kernel/product_codec.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

#undef SNUG_HAVE_AVX
#define SNUG_HAVE_AVX (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3_DL)

#if SNUG_HAVE_AVX

// The centroids of two codes as the halves of a vector, for sub-vectors of 4; of four codes, for
// sub-vectors of 2.
static HWY_INLINE __m256 Centroids(const float* a, const float* b) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a)), _mm_loadu_ps(b), 1);
}
static HWY_INLINE __m256 Centroids(const float* a, const float* b, const float* c, const float* d) {
  const auto two = [](const float* low, const float* high) HWY_ATTR {
    return _mm_loadh_pd(_mm_load_sd(reinterpret_cast<const double*>(low)),
                        reinterpret_cast<const double*>(high));
  };
  return _mm256_castpd_ps(_mm256_insertf128_pd(_mm256_castpd128_pd256(two(a, b)), two(c, d), 1));
}

#endif

// to [kDims, kWide] = the centroids [256, kDims] that 16 codes name, coordinate by coordinate.
template <size_t kDims>
static HWY_INLINE void Coordinates(const float* centroids, const uint8_t* codes, float* to) {
#if SNUG_HAVE_AVX
  for (size_t i = 0; i < kWide; i += 8) {
    uint64_t eight;
    hwy::CopyBytes<8>(codes + i, &eight);
    const auto at = [&](size_t k) HWY_ATTR { return centroids + kDims * (eight >> (8 * k) & 255); };
    if constexpr (kDims == 2) {
      const __m256 a = Centroids(at(0), at(1), at(4), at(5));
      const __m256 b = Centroids(at(2), at(3), at(6), at(7));
      _mm256_store_ps(to + i, _mm256_shuffle_ps(a, b, 0x88));
      _mm256_store_ps(to + kWide + i, _mm256_shuffle_ps(a, b, 0xdd));
    } else {
      const __m256 a = Centroids(at(0), at(4)), b = Centroids(at(1), at(5));
      const __m256 c = Centroids(at(2), at(6)), d = Centroids(at(3), at(7));
      const __m256 ab = _mm256_unpacklo_ps(a, b), cd = _mm256_unpacklo_ps(c, d);
      const __m256 ab2 = _mm256_unpackhi_ps(a, b), cd2 = _mm256_unpackhi_ps(c, d);
      _mm256_store_ps(to + i, _mm256_shuffle_ps(ab, cd, 0x44));
      _mm256_store_ps(to + kWide + i, _mm256_shuffle_ps(ab, cd, 0xee));
      _mm256_store_ps(to + 2 * kWide + i, _mm256_shuffle_ps(ab2, cd2, 0x44));
      _mm256_store_ps(to + 3 * kWide + i, _mm256_shuffle_ps(ab2, cd2, 0xee));
    }
  }
#else
  for (size_t i = 0; i < kWide; ++i) {
    for (size_t c = 0; c < kDims; ++c) to[c * kWide + i] = centroids[kDims * codes[i] + c];
  }
#endif
}

// Channel by channel of a tile of keys, for 16 of its tokens.
template <size_t kDims>
struct ProductKeyRows {
  const float* book;     // [sub-spaces][256][kDims]
  const uint8_t* codes;  // [sub-spaces][64], at the first token
  float* room;           // [kDims, kWide]
  HWY_INLINE void Load(size_t channel, VF (&to)[kPass]) const {
    const size_t m = channel / kDims, c = channel % kDims;
    if (c == 0) {
      Coordinates<kDims>(book + m * kCentroids * kDims, codes + m * kTileTokens, room);
    }
    HWY_UNROLL(4)
    for (size_t k = 0; k < kPass; ++k) to[k] = hn::Load(DF(), room + c * kWide + k * kLanes);
  }
};

// Token by token of a tile of values, for 16 of its channels.
template <size_t kDims>
struct ProductValueRows {
  const float* book;     // [sub-spaces][256][kDims], at the first channel
  const uint8_t* codes;  // [sub-spaces][64], at the first channel
  HWY_INLINE void Load(size_t token, VF (&to)[kPass]) const {
    const auto at = [&](size_t s) HWY_ATTR {
      return book + kDims * (s * kCentroids + codes[s * kTileTokens + token]);
    };
#if SNUG_HAVE_AVX
    const auto eight = [&](size_t channel) HWY_ATTR {
      const size_t s = channel / kDims;
      if constexpr (kDims == 2) {
        return Centroids(at(s), at(s + 1), at(s + 2), at(s + 3));
      } else {
        return Centroids(at(s), at(s + 1));
      }
    };
#if HWY_TARGET == HWY_AVX2
    to[0] = VF{eight(0)};
    to[1] = VF{eight(8)};
#else
    to[0] = VF{_mm512_insertf32x8(_mm512_castps256_ps512(eight(0)), eight(8), 1)};
#endif
#else
    HWY_ALIGN float row[kWide];
    for (size_t i = 0; i < kWide; ++i) row[i] = at(i / kDims)[i % kDims];
    for (size_t k = 0; k < kPass; ++k) to[k] = hn::Load(DF(), row + k * kLanes);
#endif
  }
};

template <size_t kDims, bool kValues>
struct ProductTile {
  const float* book;
  const uint8_t* codes;
  size_t head_dim;
  const uint8_t* next;  // the tile that follows, to be fetched meanwhile, or null
};

template <size_t kDims, bool kValues, class F>
static HWY_INLINE void ForProducts(const ProductTile<kDims, kValues>& t, const float* x,
                                   size_t x_stride, size_t n, const F& f) {
  HWY_ALIGN float sums[kRowTile * kWide];
  HWY_ALIGN float room[kDims * kWide];
  const size_t width = kValues ? t.head_dim : kTileTokens;
  const size_t share = t.head_dim / kDims * kTileTokens / (width / kWide);
  for (size_t c = 0; c < width; c += kWide) {
    if (t.next != nullptr) Fetch(t.next + c / kWide * share, share);
    if constexpr (kValues) {
      const ProductValueRows<kDims> rows{t.book + c * kCentroids,
                                         t.codes + c / kDims * kTileTokens};
      MultiplyRows(rows, kTileTokens, x, x_stride, n, sums);
    } else {
      const ProductKeyRows<kDims> rows{t.book, t.codes + c, room};
      MultiplyRows(rows, t.head_dim, x, x_stride, n, sums);
    }
    f(c, sums);
  }
}

template <size_t kDims>
static void WalkTilesOf(const ProductBooks& books, const AttentionArgs& args, const Block& b,
                        TileAt first, uint32_t last, TileAt next) {
  const uint32_t end = args.coded.end();
  for (TileAt at = first; at.tile < last; ++at.tile) {
    const CodedTiles now(args, at);
    const TileAt then_at = at.tile + 1 < last ? TileAt{at.head, at.tile + 1} : next;
    const CodedTiles then(args, then_at.tile < end ? then_at : at);
    const ProductTile<kDims, false> keys{books.keys, now.keys, b.head_dim, then.keys};
    const ProductTile<kDims, true> values{books.values, now.values, b.head_dim, then.values};
    CodedTile(b, keys, values, static_cast<int64_t>(at.tile) * kTileTokens);
  }
}

static void WalkProductT(const ProductFormat& f, const ProductBooks& books,
                         const AttentionArgs& args, const Block& b, TileAt first, uint32_t last,
                         TileAt next) {
  f.dims == 2 ? WalkTilesOf<2>(books, args, b, first, last, next)
              : WalkTilesOf<4>(books, args, b, first, last, next);
}

template <size_t kDims>
static void NearestOf(const float* centroids, const float* points, size_t stride, size_t n,
                      uint8_t* codes, float* distances) {
  constexpr size_t kVecs = 4;  // of points that share a centroid
  const DF d;
  HWY_ALIGN int32_t numbers[kVecs * kLanes];
  for (size_t i = 0; i < n; i += kVecs * kLanes) {
    VF x[kDims][kVecs], best[kVecs];
    VI number[kVecs];
    for (size_t v = 0; v < kVecs; ++v) {
      for (size_t c = 0; c < kDims; ++c) {
        x[c][v] = hn::LoadU(d, points + c * stride + i + v * kLanes);
      }
      best[v] = hn::Set(d, std::numeric_limits<float>::infinity());
      number[v] = hn::Zero(DI());
    }
    for (size_t j = 0; j < kCentroids; ++j) {
      VF sum[kVecs];
      for (size_t c = 0; c < kDims; ++c) {
        const VF centroid = hn::Set(d, centroids[j * kDims + c]);
        for (size_t v = 0; v < kVecs; ++v) {
          const VF off = hn::Sub(x[c][v], centroid);
          sum[v] = c == 0 ? hn::Mul(off, off) : hn::MulAdd(off, off, sum[v]);
        }
      }
      const VI this_one = hn::Set(DI(), static_cast<int32_t>(j));
      for (size_t v = 0; v < kVecs; ++v) {
        const auto nearer = hn::Lt(sum[v], best[v]);
        best[v] = hn::IfThenElse(nearer, sum[v], best[v]);
        number[v] = hn::IfThenElse(hn::RebindMask(DI(), nearer), this_one, number[v]);
      }
    }
    for (size_t v = 0; v < kVecs; ++v) {
      hn::StoreU(best[v], d, distances + i + v * kLanes);
      hn::Store(number[v], DI(), numbers + v * kLanes);
    }
    for (size_t k = 0; k < kVecs * kLanes; ++k) codes[i + k] = static_cast<uint8_t>(numbers[k]);
  }
}

static void NearestT(const float* centroids, size_t dims, const float* points, size_t stride,
                     size_t n, uint8_t* codes, float* distances) {
  static_assert(kPointBlock % (4 * kLanes) == 0);
  dims == 2 ? NearestOf<2>(centroids, points, stride, n, codes, distances)
            : NearestOf<4>(centroids, points, stride, n, codes, distances);
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(WalkProductT);
HWY_EXPORT(NearestT);

void ProductCodec::Walk(const AttentionArgs& args, const Block& block, TileAt first, uint32_t last,
                        TileAt next, float* /*decoded*/) const {
  HWY_DYNAMIC_DISPATCH(WalkProductT)(f_, books_, args, block, first, last, next);
}

void NearestCentroids(const float* centroids, size_t dims, const float* points, size_t stride,
                      size_t n, uint8_t* codes, float* distances) {
  HWY_DYNAMIC_DISPATCH(NearestT)(centroids, dims, points, stride, n, codes, distances);
}

}  // namespace snug
#endif  // HWY_ONCE
