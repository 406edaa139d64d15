#include "kernel/read_scores.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/read_scores.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/compat-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

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
HWY_EXPORT(CombineHeadsT);

void ScoreHalves(const uint16_t* rows, size_t n, size_t width, const float* queries, size_t heads,
                 float* scores, size_t stride) {
  HWY_DYNAMIC_DISPATCH(ScoreHalvesT)(rows, n, width, queries, heads, scores, stride);
}
void CombineHeads(float* scores, size_t heads, size_t stride, size_t n) {
  HWY_DYNAMIC_DISPATCH(CombineHeadsT)(scores, heads, stride, n);
}

}  // namespace snug
#endif  // HWY_ONCE
