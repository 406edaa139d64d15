// The gated delta rule.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/ssm_delta.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include <algorithm>
#include <cmath>

#include "kernel/math-inl.h"
#include "kernel/ssm.h"
#include "kernel/ssm_internal.h"
#include "kernel/targets.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// One token of kVectors vectors of a head's values: s [key_dim, value_dim] at its first column.
// s' k is taken before the decay, which is a factor of all of it, so that s is read twice and
// written once.
template <size_t kVectors>
static HWY_INLINE void StepColumns(const float* HWY_RESTRICT q, const float* HWY_RESTRICT k,
                                   const float* HWY_RESTRICT v, float decay, float beta,
                                   size_t key_dim, size_t value_dim, size_t n,
                                   float* HWY_RESTRICT s, float* HWY_RESTRICT y) {
  const DF d;
  const VF vdecay = hn::Set(d, decay), vbeta = hn::Set(d, beta);
  VF sum[kVectors], delta[kVectors];
  for (size_t c = 0; c < kVectors; ++c) sum[c] = hn::Zero(d);
  for (size_t i = 0; i < key_dim; ++i) {
    const VF key = hn::Set(d, k[i]);
    for (size_t c = 0; c < kVectors; ++c) {
      sum[c] = hn::MulAdd(key, LoadFirst(s + i * value_dim + c * kLanes, n), sum[c]);
    }
  }
  for (size_t c = 0; c < kVectors; ++c) {
    const VF value = LoadFirst(v + c * kLanes, n);
    delta[c] = hn::Mul(vbeta, hn::NegMulAdd(vdecay, sum[c], value));
    sum[c] = hn::Zero(d);
  }
  for (size_t i = 0; i < key_dim; ++i) {
    const VF key = hn::Set(d, k[i]), query = hn::Set(d, q[i]);
    for (size_t c = 0; c < kVectors; ++c) {
      float* at = s + i * value_dim + c * kLanes;
      const VF next = hn::MulAdd(vdecay, LoadFirst(at, n), hn::Mul(key, delta[c]));
      StoreFirst(next, at, n);
      sum[c] = hn::MulAdd(query, next, sum[c]);
    }
  }
  for (size_t c = 0; c < kVectors; ++c) StoreFirst(sum[c], y + c * kLanes, n);
}

// All tokens of one run of vectors, so that its state stays in the first cache.
template <size_t kVectors>
static HWY_INLINE void RunColumns(const DeltaRuleArgs& a, size_t head, size_t first, size_t n) {
  const size_t each = a.heads / a.groups, group = head / each;
  float* s = a.to + head * a.key_dim * a.value_dim + first;
  for (size_t t = 0; t < a.tokens; ++t) {
    const size_t row = t * a.qkv_stride, column = head * a.value_dim + first;
    const float* gates = a.gates + t * a.gate_stride + group * 2 * each + head % each;
    StepColumns<kVectors>(a.q + row + group * a.key_dim, a.k + row + group * a.key_dim,
                          a.v + row + column, gates[each], gates[0], a.key_dim, a.value_dim, n, s,
                          a.y + t * a.y_stride + column);
  }
}

void DeltaRuleT(const DeltaRuleArgs& a, size_t head, size_t first, size_t last) {
  size_t c = first;
  for (; c + 4 * kLanes <= last; c += 4 * kLanes) RunColumns<4>(a, head, c, kLanes);
  for (; c < last; c += kLanes) RunColumns<1>(a, head, c, last - c);
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(DeltaRuleT);

void GatedDeltaRule(const DeltaRuleArgs& args, size_t head, size_t first, size_t last) {
  for (size_t i = 0; i < args.key_dim; ++i) {
    const size_t row = (head * args.key_dim + i) * args.value_dim;
    BeginState(args.from, row + first, last - first, args.to);
  }
  HWY_DYNAMIC_DISPATCH(DeltaRuleT)(args, head, first, last);
}

void DeltaGates(const float* a, const float* dt_bias, size_t heads, size_t groups, float* gates) {
  const size_t each = heads / groups;
  for (size_t h = 0; h < heads; ++h) {
    float& beta = gates[h / each * 2 * each + h % each];
    float& decay = gates[h / each * 2 * each + each + h % each];
    beta = 1 / (1 + std::exp(-beta));
    const float x = decay + dt_bias[h];
    decay = std::exp(a[h] * (std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x)))));
  }
}

}  // namespace snug
#endif
