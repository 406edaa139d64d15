// What the kernels of the plane-split head share with its search; not for other folders.
#pragma once

#include "kernel/plane_head.h"

namespace snug {

// Float32 sums over `blocks` blocks, ours and MatMul's, are off by at most this times sum_b |d_b|
// scale_b (sum of |q|): each of a few operations per block rounds a value of at most 132 times that
// by 2^-24.
inline float PlaneRounding(size_t blocks) {
  return 4.0f * static_cast<float>(blocks + 8) * 132.0f * 6e-8f;
}

// One token's side of the bound. `large` and `rest` are the two parts of the split (plane_head.h),
// rounding included: |logit - estimate| <= sum_b |d_b| large[b] + norm * rest.
struct PlaneToken {
  XBlock x[kMaxPlaneCols / kQBlock];  // the token in slot 0
  float large[kMaxPlaneCols / kQBlock];
  float center[kMaxPlaneCols /
               kQBlock];  // 3.5 * scale * (sum of q): what the mean of the low bits gives
  float absolute[kMaxPlaneCols / kQBlock];  // scale * (sum of |q|)
  float rest = 0;
  size_t blocks = 0;
};

// For panels [first, last): the upper bound of each row's logit, and the greatest of each panel.
void PlaneUpper(const PlaneHead& head, const PlaneToken& token, size_t first, size_t last,
                float* upper, float* panel_upper);
// The logit of a row from both planes, to within *slack. `upper` is PlaneUpper's bound.
float PlaneRefine(const PlaneHead& head, const PlaneToken& token, size_t row, float upper,
                  float* slack);
// A panel as packed Q8_0.
void UnpackPlanePanel(const PlaneHead& head, size_t panel, uint8_t* q8);

}  // namespace snug
