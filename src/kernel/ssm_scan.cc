// The scans of Mamba and Mamba-2.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/ssm_scan.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include <algorithm>

#include "kernel/math-inl.h"
#include "kernel/ssm.h"
#include "kernel/ssm_internal.h"
#include "kernel/targets.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// exp of what should be negative, defined for whatever a file holds.
static HWY_INLINE VF Decay(VF x) { return Exp(hn::Min(x, hn::Set(DF(), 88.0f))); }

// One channel's step: h [states] in place; returns c h.
static HWY_INLINE float StepChannel(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                                    const float* HWY_RESTRICT c, float dt, float dtx, size_t states,
                                    float* HWY_RESTRICT h) {
  const DF d;
  const VF vdt = hn::Set(d, dt), vdtx = hn::Set(d, dtx);
  VF sum = hn::Zero(d);
  for (size_t i = 0; i < states; i += kLanes) {
    const size_t n = states - i;
    const VF decay = Decay(hn::Mul(vdt, LoadFirst(a + i, n)));
    const VF next = hn::MulAdd(decay, LoadFirst(h + i, n), hn::Mul(vdtx, LoadFirst(b + i, n)));
    StoreFirst(next, h + i, n);
    sum = hn::MulAdd(next, LoadFirst(c + i, n), sum);
  }
  return Sum(sum);
}

// Channels [first, first + n), n at most a vector.
static void ScanChannels(const SelectiveScanArgs& s, size_t first, size_t n) {
  const VF bias = LoadFirst(s.dt_bias + first, n), skip = LoadFirst(s.d + first, n);
  HWY_ALIGN float dt[kLanes], dtx[kLanes], sums[kLanes] = {};
  for (size_t t = 0; t < s.tokens; ++t) {
    const VF x = LoadFirst(s.x + t * s.x_stride + first, n);
    const VF step = Softplus(hn::Add(LoadFirst(s.dt + t * s.dt_stride + first, n), bias));
    hn::Store(step, DF(), dt);
    hn::Store(hn::Mul(step, x), DF(), dtx);
    const float *b = s.b + t * s.bc_stride, *c = s.c + t * s.bc_stride;
    for (size_t i = 0; i < n; ++i) {
      const size_t at = (first + i) * s.states;
      sums[i] = StepChannel(s.a + at, b, c, dt[i], dtx[i], s.states, s.to + at);
    }
    const VF y = hn::MulAdd(skip, x, hn::Load(DF(), sums));
    const VF z = LoadFirst(s.z + t * s.z_stride + first, n);
    StoreFirst(hn::Mul(y, Gate(z, z)), s.y + t * s.y_stride + first, n);
  }
}

void SelectiveScanT(const SelectiveScanArgs& s, size_t first, size_t last) {
  for (size_t c = first; c < last; c += kLanes) ScanChannels(s, c, std::min(kLanes, last - c));
}

// One token of kVectors vectors of a head's channels: h [states, head_dim] at its first channel.
template <size_t kVectors>
static HWY_INLINE void StepHead(const float* HWY_RESTRICT b, const float* HWY_RESTRICT c,
                                const float* HWY_RESTRICT x, float decay, float dt, float skip,
                                size_t states, size_t head_dim, size_t n, float* HWY_RESTRICT h,
                                float* HWY_RESTRICT y) {
  const DF d;
  const VF vdecay = hn::Set(d, decay);
  VF in[kVectors], dtx[kVectors], sum[kVectors];
  for (size_t v = 0; v < kVectors; ++v) {
    in[v] = LoadFirst(x + v * kLanes, n);
    dtx[v] = hn::Mul(hn::Set(d, dt), in[v]);
    sum[v] = hn::Zero(d);
  }
  for (size_t i = 0; i < states; ++i) {
    const VF vb = hn::Set(d, b[i]), vc = hn::Set(d, c[i]);
    for (size_t v = 0; v < kVectors; ++v) {
      float* at = h + i * head_dim + v * kLanes;
      const VF next = hn::MulAdd(vdecay, LoadFirst(at, n), hn::Mul(vb, dtx[v]));
      StoreFirst(next, at, n);
      sum[v] = hn::MulAdd(vc, next, sum[v]);
    }
  }
  for (size_t v = 0; v < kVectors; ++v) {
    StoreFirst(hn::MulAdd(hn::Set(d, skip), in[v], sum[v]), y + v * kLanes, n);
  }
}

// All tokens of one run of vectors, so that its state stays in the first cache.
template <size_t kVectors>
static HWY_INLINE void ScanColumns(const SsdScanArgs& s, size_t head, size_t first, size_t n) {
  const size_t group = head / (s.heads / s.groups);
  float* h = s.to + head * s.states * s.head_dim + first;
  for (size_t t = 0; t < s.tokens; ++t) {
    const float raw = s.dt[t * s.dt_stride + head] + s.dt_bias[head];
    const float dt = hn::GetLane(Softplus(hn::Set(DF(), raw)));
    const float decay = hn::GetLane(Decay(hn::Set(DF(), dt * s.a[head])));
    const float* b = s.b + t * s.xbc_stride + group * s.states;
    const float* c = s.c + t * s.xbc_stride + group * s.states;
    const float* x = s.x + t * s.xbc_stride + head * s.head_dim + first;
    float* y = s.y + t * s.y_stride + head * s.head_dim + first;
    StepHead<kVectors>(b, c, x, decay, dt, s.d[head], s.states, s.head_dim, n, h, y);
  }
}

void SsdScanT(const SsdScanArgs& s, size_t head, size_t first, size_t last) {
  size_t p = first;
  for (; p + 4 * kLanes <= last; p += 4 * kLanes) ScanColumns<4>(s, head, p, kLanes);
  for (; p < last; p += kLanes) ScanColumns<1>(s, head, p, last - p);
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(SelectiveScanT);
HWY_EXPORT(SsdScanT);

void SelectiveScan(const SelectiveScanArgs& args, size_t first_channel, size_t last_channel) {
  const size_t states = args.states;
  BeginState(args.from, first_channel * states, (last_channel - first_channel) * states, args.to);
  HWY_DYNAMIC_DISPATCH(SelectiveScanT)(args, first_channel, last_channel);
}

void SsdScan(const SsdScanArgs& args, size_t head, size_t first, size_t last) {
  for (size_t i = 0; i < args.states; ++i) {
    const size_t row = (head * args.states + i) * args.head_dim;
    BeginState(args.from, row + first, last - first, args.to);
  }
  HWY_DYNAMIC_DISPATCH(SsdScanT)(args, head, first, last);
}

}  // namespace snug
#endif
