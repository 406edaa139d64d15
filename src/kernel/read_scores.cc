#include "kernel/read_scores.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/read_scores.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "format/dtype.h"
#include "kernel/compat-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

inline constexpr size_t kRows = 64;  // of a tile

// One row under R queries.
template <size_t R>
static HWY_INLINE void ScoreRow(const uint16_t* row, size_t width, const float* queries,
                                float* scores, size_t stride) {
  VF sums[R];
  for (size_t r = 0; r < R; ++r) sums[r] = hn::Zero(DF());
  for (size_t i = 0; i < width; i += kLanes) {
    const VF v = LoadHalves(reinterpret_cast<const uint8_t*>(row + i));
    for (size_t r = 0; r < R; ++r) {
      sums[r] = hn::MulAdd(v, hn::LoadU(DF(), queries + r * width + i), sums[r]);
    }
  }
  for (size_t r = 0; r < R; ++r) {
    scores[r * stride] = hn::GetLane(hn::SumOfLanes(DF(), sums[r]));
  }
}

static void ScoreHalvesT(const uint16_t* rows, size_t n, size_t width, const float* queries,
                         size_t heads, float* scores, size_t stride) {
  for (size_t r = 0; r < n; ++r) {
    const uint16_t* row = rows + r * width;
    size_t h = 0;
    for (; h + 4 <= heads; h += 4) {
      ScoreRow<4>(row, width, queries + h * width, scores + h * stride + r, stride);
    }
    for (; h + 2 <= heads; h += 2) {
      ScoreRow<2>(row, width, queries + h * width, scores + h * stride + r, stride);
    }
    if (h < heads) ScoreRow<1>(row, width, queries + h * width, scores + h * stride + r, stride);
  }
}

// Sums of products of codes of 4 bits and int8.
struct NibbleSum {
#if HWY_TARGET == HWY_AVX2
  static constexpr size_t kSafeGroups = 4;  // 2 * 15 * 127 * 2 each in 16 bits
  __m256i sum;
  HWY_INLINE void Clear() { sum = _mm256_setzero_si256(); }
  HWY_INLINE void Add(VU codes, VU q) {
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes.raw, q.raw));
  }
  HWY_INLINE VI Wide() const { return VI{_mm256_madd_epi16(sum, _mm256_set1_epi16(1))}; }
#else
  static constexpr size_t kSafeGroups = 16;
  VI sum;
  HWY_INLINE void Clear() { sum = hn::Zero(DI()); }
  HWY_INLINE void Add(VU codes, VU q) { sum = QuadDot(sum, codes, q); }
  HWY_INLINE VI Wide() const { return sum; }
#endif
};

// Codes of kLanes rows under R queries.
template <size_t R>
static HWY_INLINE void ScoreLabels(const uint8_t* codes, size_t groups, const uint8_t* queries,
                                   size_t query_bytes, VF step, VF least, float* scores,
                                   size_t stride) {
  VI sums[R];
  for (size_t r = 0; r < R; ++r) sums[r] = hn::Zero(DI());
  const VU low = hn::Set(DU(), 0x0f0f0f0fu);
  for (size_t begin = 0; begin < groups; begin += NibbleSum::kSafeGroups) {
    NibbleSum part[R];
    for (size_t r = 0; r < R; ++r) part[r].Clear();
    for (size_t g = begin; g < std::min(groups, begin + NibbleSum::kSafeGroups); ++g) {
      const VU both = hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(codes + g * kRows * 4));
      const VU first = hn::And(both, low), second = hn::And(hn::ShiftRight<4>(both), low);
      for (size_t r = 0; r < R; ++r) {
        const auto* q =
            reinterpret_cast<const int8_t*>(queries + r * query_bytes + 2 * sizeof(float) + 8 * g);
        part[r].Add(first, Broadcast4(q));
        part[r].Add(second, Broadcast4(q + 4));
      }
    }
    for (size_t r = 0; r < R; ++r) sums[r] = hn::Add(sums[r], part[r].Wide());
  }
  for (size_t r = 0; r < R; ++r) {
    float scale_and_sum[2];
    std::memcpy(scale_and_sum, queries + r * query_bytes, sizeof(scale_and_sum));
    const VF dot = hn::Mul(hn::ConvertTo(DF(), sums[r]), hn::Set(DF(), scale_and_sum[0]));
    hn::StoreU(hn::MulAdd(least, hn::Set(DF(), scale_and_sum[1]), hn::Mul(dot, step)), DF(),
               scores + r * stride);
  }
}

static void ScoreNibblesT(const uint8_t* labels, size_t n, const uint8_t* queries, size_t heads,
                          float* scores, size_t stride) {
  const size_t groups = (n + 7) / 8, bytes = NibbleQueryBytes(n);
  const uint8_t* steps = labels + groups * kRows * 4;
  for (size_t r = 0; r < kRows; r += kLanes) {
    const VF step = LoadHalves(steps + 2 * r), least = LoadHalves(steps + 2 * (kRows + r));
    const uint8_t* codes = labels + 4 * r;
    size_t h = 0;
    for (; h + 6 <= heads; h += 6) {
      ScoreLabels<6>(codes, groups, queries + h * bytes, bytes, step, least,
                     scores + h * stride + r, stride);
    }
    for (; h + 3 <= heads; h += 3) {
      ScoreLabels<3>(codes, groups, queries + h * bytes, bytes, step, least,
                     scores + h * stride + r, stride);
    }
    for (; h < heads; ++h) {
      ScoreLabels<1>(codes, groups, queries + h * bytes, bytes, step, least,
                     scores + h * stride + r, stride);
    }
  }
}

// A sum of no number or of infinities is the least float.
static HWY_INLINE VF Finite(VF v) {
  const VF most = hn::Set(DF(), 1e30f);
  return hn::IfThenElse(hn::Le(hn::Abs(v), most), v, hn::Neg(most));
}

static void CombineHeadsT(float* scores, size_t heads, size_t stride, size_t n) {
  const DF d;
  const size_t whole = n / kLanes * kLanes;
  const auto finite = [](float v) { return v >= -1e30f && v <= 1e30f ? v : -1e30f; };
  for (size_t h = 0; h < heads; ++h) {
    const float* s = scores + h * stride;
    VF best = hn::Set(d, -1e30f);
    for (size_t i = 0; i < whole; i += kLanes) best = hn::Max(best, Finite(hn::LoadU(d, s + i)));
    float most = hn::GetLane(hn::MaxOfLanes(d, best));
    for (size_t i = whole; i < n; ++i) most = std::max(most, finite(s[i]));
    const VF top = hn::Set(d, most);
    for (size_t i = 0; i < whole; i += kLanes) {
      VF v = hn::Sub(Finite(hn::LoadU(d, s + i)), top);
      if (h > 0) v = hn::Max(v, hn::LoadU(d, scores + i));
      hn::StoreU(v, d, scores + i);
    }
    for (size_t i = whole; i < n; ++i) {
      const float v = finite(s[i]) - most;
      scores[i] = h > 0 ? std::max(v, scores[i]) : v;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE

namespace snug {

HWY_EXPORT(ScoreHalvesT);
HWY_EXPORT(ScoreNibblesT);
HWY_EXPORT(CombineHeadsT);

void ScoreHalves(const uint16_t* rows, size_t n, size_t width, const float* queries, size_t heads,
                 float* scores, size_t stride) {
  HWY_DYNAMIC_DISPATCH(ScoreHalvesT)(rows, n, width, queries, heads, scores, stride);
}
void ScoreNibbles(const uint8_t* labels, size_t n, const uint8_t* queries, size_t heads,
                  float* scores, size_t stride) {
  HWY_DYNAMIC_DISPATCH(ScoreNibblesT)(labels, n, queries, heads, scores, stride);
}

void StoreNibbleLabel(const float* values, size_t n, size_t row, uint8_t* labels) {
  constexpr size_t kTile = 64;
  const size_t groups = (n + 7) / 8;
  auto* steps = reinterpret_cast<uint16_t*>(labels + groups * kTile * 4);
  const auto [low, high] = std::minmax_element(values, values + n);
  const auto half = [](float v) { return FloatToHalf(std::clamp(v, -kMaxHalf, kMaxHalf)); };
  steps[kTile + row] = half(*low);
  const float least = HalfToFloat(steps[kTile + row]);
  steps[row] = half(*high > least ? (*high - least) / 15 : 1.0f);
  const float step = HalfToFloat(steps[row]);
  const float inverse = step > 0 ? 1 / step : 0;
  for (size_t g = 0; g < groups; ++g) {
    for (size_t j = 0; j < 4; ++j) {
      const auto code = [&](size_t i) {
        if (i >= n) return 0;
        const float c = std::nearbyint((values[i] - least) * inverse);
        return static_cast<int>(std::clamp(c, 0.0f, 15.0f));
      };
      labels[(g * kTile + row) * 4 + j] =
          static_cast<uint8_t>(code(8 * g + j) | code(8 * g + 4 + j) << 4);
    }
  }
}

void PrepareNibbleQuery(const float* q, size_t n, uint8_t* prepared) {
  float most = 0, sum = 0;
  for (size_t i = 0; i < n; ++i) {
    most = std::max(most, std::abs(q[i]));
    sum += q[i];
  }
  const float scale = most > 0 && most < 1e30f ? most / 127 : 1;
  std::memcpy(prepared, &scale, sizeof(scale));
  std::memcpy(prepared + sizeof(scale), &sum, sizeof(sum));
  auto* codes = reinterpret_cast<int8_t*>(prepared + 2 * sizeof(float));
  for (size_t i = 0; i < (n + 7) / 8 * 8; ++i) {
    const float c = i < n ? std::nearbyint(q[i] / scale) : 0;
    codes[i] = static_cast<int8_t>(c == c ? std::clamp(c, -127.0f, 127.0f) : 0);
  }
}

void CombineHeads(float* scores, size_t heads, size_t stride, size_t n) {
  HWY_DYNAMIC_DISPATCH(CombineHeadsT)(scores, heads, stride, n);
}

}  // namespace snug
#endif  // HWY_ONCE
