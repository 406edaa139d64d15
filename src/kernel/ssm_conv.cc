// The causal depthwise convolution ahead of state-space mixers.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/ssm_conv.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include <algorithm>

#include "kernel/math-inl.h"
#include "kernel/ssm.h"
#include "kernel/targets.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Column `j` of rows [0, n) of w [n, width], a lane each.
static HWY_INLINE VF LoadColumn(const float* w, size_t width, size_t n, size_t j) {
  HWY_ALIGN float column[kLanes] = {};
  for (size_t i = 0; i < std::min(n, kLanes); ++i) column[i] = w[i * width + j];
  return hn::Load(DF(), column);
}

// Channels [c, c + n), n at most a vector. kWidth is args.width where that is known, else 0.
template <size_t kWidth>
static HWY_INLINE void ConvChannels(const CausalConvArgs& a, size_t c, size_t n) {
  constexpr size_t kMost = kWidth != 0 ? kWidth : size_t{kMaxConvWidth};
  const size_t width = kWidth != 0 ? kWidth : size_t{a.width}, past = width - 1;
  VF w[kMost], in[kMost];  // in: the last inputs, oldest first
  for (size_t j = 0; j < width; ++j) w[j] = LoadColumn(a.weight + c * width, width, n, j);
  for (size_t j = 0; j < past; ++j) {
    in[j] = a.from == nullptr ? hn::Zero(DF()) : LoadFirst(a.from + j * a.channels + c, n);
  }
  const VF bias = a.bias == nullptr ? hn::Zero(DF()) : LoadFirst(a.bias + c, n);
  for (size_t t = 0; t < a.tokens; ++t) {
    in[past] = LoadFirst(a.x + t * a.x_stride + c, n);
    VF sum = bias;
    for (size_t j = 0; j < width; ++j) sum = hn::MulAdd(w[j], in[j], sum);
    StoreFirst(Gate(sum, sum), a.y + t * a.y_stride + c, n);
    for (size_t j = 0; j < past; ++j) in[j] = in[j + 1];
  }
  for (size_t j = 0; j < past; ++j) StoreFirst(in[j], a.to + j * a.channels + c, n);
}

void ConvT(const CausalConvArgs& a, size_t first, size_t last) {
  for (size_t c = first; c < last; c += kLanes) {
    const size_t n = std::min(kLanes, last - c);
    if (a.width == 4) {
      ConvChannels<4>(a, c, n);
    } else {
      ConvChannels<0>(a, c, n);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(ConvT);
void CausalConvSilu(const CausalConvArgs& args, size_t first_channel, size_t last_channel) {
  HWY_DYNAMIC_DISPATCH(ConvT)(args, first_channel, last_channel);
}
}  // namespace snug
#endif
