// The plane-split head's kernels: splitting and joining panels, the bound from the high plane, the
// low bits of single rows.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/plane_head.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/cache_control.h"
#include "kernel/compat-inl.h"
#include "kernel/matmul_formats-inl.h"
#include "kernel/matmul_internal.h"
#include "kernel/matmul_tile-inl.h"
#include "kernel/plane_internal.h"
#include "kernel/targets.h"
#include "kernel/transpose-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

static HWY_INLINE VU Ones() { return hn::Set(DU(), 0x01010101u); }
static HWY_INLINE void StoreWord(VU v, uint8_t* body, size_t word) {
  hn::StoreU(v, DU(), reinterpret_cast<uint32_t*>(body + 64 * word));
}

// One block of 32 columns of a Q8_0 panel, at this target's lanes, to the high plane's block and
// three words of low bits; returns the sum of squares of 2 e, e = low - 3.5.
struct SplitBlock {
  const uint8_t* q8;
  uint8_t *high, *low;
  HWY_INLINE VI Run() const {
    VU quads[8], fifth = hn::Zero(DU());
    VU planes[3] = {hn::Zero(DU()), hn::Zero(DU()), hn::Zero(DU())};
    VI squares = hn::Zero(DI());
    for (size_t k = 0; k < 8; ++k) {
      const VU u = LoadWord(q8, k);
      const VU shift = hn::Set(DU(), static_cast<uint32_t>(k));
      quads[k] = hn::And(hn::ShiftRight<3>(u), hn::Set(DU(), 0x1f1f1f1fu));
      fifth = hn::Or(fifth, hn::Shl(hn::And(hn::ShiftRight<4>(quads[k]), Ones()), shift));
      planes[0] = hn::Or(planes[0], hn::Shl(hn::And(u, Ones()), shift));
      planes[1] = hn::Or(planes[1], hn::Shl(hn::And(hn::ShiftRight<1>(u), Ones()), shift));
      planes[2] = hn::Or(planes[2], hn::Shl(hn::And(hn::ShiftRight<2>(u), Ones()), shift));
      // |2 e| is 7 - 2 l below 4 and 2 l - 7 from there: mirror, then 2 l - 7.
      const VU below = hn::AndNot(hn::ShiftRight<2>(u), Ones());
      const VU mirror = hn::Sub(hn::ShiftLeft<3>(below), below);
      const VU mirrored = hn::And(hn::Xor(u, mirror), hn::Set(DU(), 0x07070707u));
      const VU twice = hn::Sub(hn::ShiftLeft<1>(mirrored), hn::Set(DU(), 0x07070707u));
      squares = QuadDot(squares, twice, twice);
    }
    StoreWord(fifth, high, 0);
    const VU mask = hn::Set(DU(), 0x0f0f0f0fu);
    for (size_t k = 0; k < 4; ++k) {
      const VU upper = hn::ShiftLeft<4>(hn::And(quads[k + 4], mask));
      StoreWord(hn::Or(hn::And(quads[k], mask), upper), high, 1 + k);
    }
    for (size_t p = 0; p < 3; ++p) StoreWord(planes[p], low, p);
    return squares;
  }
};

// `low` takes 16 rows of low bits, `norms` their norms, rounded up.
void SplitPanel(const uint8_t* q8, size_t cols, uint8_t* high, uint8_t* low, float* norms) {
  const size_t blocks = cols / kQBlock, head = HeadBytes(DType::kQ8_0, cols);
  std::memcpy(high, q8, head);
  alignas(64) float squared[kPanelRows] = {};
  for (size_t b = 0; b < blocks; ++b) {
    alignas(64) uint8_t words[3 * 64];
    for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
      const VI squares = SplitBlock{q8 + head + 512 * b + 4 * lane,
                                    high + head + 320 * b + 4 * lane, words + 4 * lane}
                             .Run();
      const VF d = LoadHalves(q8 + 2 * (kPanelRows * b + lane));
      const VF sum =
          hn::MulAdd(hn::Mul(d, d), hn::ConvertTo(DF(), squares), hn::Load(DF(), squared + lane));
      hn::Store(sum, DF(), squared + lane);
    }
    for (size_t r = 0; r < kPanelRows; ++r) {
      for (size_t p = 0; p < 3; ++p)
        std::memcpy(low + (r * blocks + b) * 12 + 4 * p, words + 64 * p + 4 * r, 4);
    }
  }
  for (size_t r = 0; r < kPanelRows; ++r) norms[r] = 0.5f * std::sqrt(squared[r]) * 1.0001f;
}

// The same low-bit quads of a block whose three words lie in v: bit p of four columns to bit p of
// four bytes.
template <int K>
static HWY_INLINE VU LowQuad(VU w0, VU w1, VU w2) {
  const VU b0 = hn::And(hn::ShiftRight<K>(w0), Ones());
  const VU b1 = hn::And(hn::ShiftRight<K>(w1), Ones());
  const VU b2 = hn::And(hn::ShiftRight<K>(w2), Ones());
  return hn::Or(b0, hn::Or(hn::ShiftLeft<1>(b1), hn::ShiftLeft<2>(b2)));
}

struct JoinBlock {
  template <int K>
  HWY_INLINE void Run() const {
    const VU high = hn::ShiftLeft<3>(format.template Quad<K>());
    StoreWord(hn::Or(high, LowQuad<K>(w0, w1, w2)), to, K);
  }
  const FormatQ5_0& format;
  VU w0, w1, w2;
  uint8_t* to;
};

void JoinPanel(const PlaneHead& plane, size_t panel, uint8_t* q8) {
  constexpr size_t kChunk = 32;  // blocks whose low bits are transposed at a time: 6 KiB
  const size_t blocks = plane.cols() / kQBlock, head = HeadBytes(DType::kQ8_0, plane.cols());
  const uint8_t* high = plane.high_panel(panel);
  std::memcpy(q8, high, head);
  alignas(64) uint8_t words[kChunk * 3 * 64];
  for (size_t first = 0; first < blocks; first += kChunk) {
    const size_t n = std::min(kChunk, blocks - first);
    const uint8_t* rows[kPanelRows];
    for (size_t r = 0; r < kPanelRows; ++r)
      rows[r] = plane.low_row(panel * kPanelRows + r) + first * 12;
    Transpose(rows, 3 * n, 0, words);
    for (size_t b = first; b < first + n; ++b) {
      // The next panel's share of both planes.
      for (size_t i = 0; i < 320; i += 64) hwy::Prefetch(high + plane.high_bytes() + 320 * b + i);
      const uint8_t* next_low = plane.low_row((panel + 1) * kPanelRows) + 192 * b;
      for (size_t i = 0; i < 192; i += 64) hwy::Prefetch(next_low + i);
      for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
        const FormatQ5_0 format(high + head + 320 * b + 4 * lane,
                                high + 2 * (kPanelRows * b + lane));
        const uint8_t* w = words + (b - first) * 3 * 64 + 4 * lane;
        Unroll<0, 8>(JoinBlock{format, LoadWord(w, 0), LoadWord(w, 1), LoadWord(w, 2),
                               q8 + head + 512 * b + 4 * lane});
      }
    }
  }
}

void UpperBounds(const PlaneHead& plane, const PlaneToken& token, size_t first, size_t last,
                 float* upper, float* panel_upper) {
  constexpr size_t kPanelBlock = 352;  // bytes of a block of 16 rows, scales included
  constexpr size_t V = kRowVectors;
  const size_t head = HeadBytes(DType::kQ5_0, plane.cols());
  const uint8_t* const end = plane.high_panel(last);
  for (size_t p = first; p < last; ++p) {
    const uint8_t* panel = plane.high_panel(p);
    float most = -std::numeric_limits<float>::infinity();
    for (size_t lane = 0; lane < kPanelRows; lane += kTileRows) {
      VF sum[V], center[V], bound[V];
      for (size_t v = 0; v < V; ++v) {
        sum[v] = center[v] = hn::Zero(DF());
        bound[v] = hn::Mul(hn::LoadU(DF(), plane.norms() + p * kPanelRows + lane + v * kLanes),
                           hn::Set(DF(), token.rest));
      }
      for (size_t b = 0; b < token.blocks; ++b) {
        const uint8_t* ahead = panel + kPanelBlock * b + kAhead;
        if (ahead < end) {
          for (size_t i = 0; i < kPanelBlock; i += 64) hwy::Prefetch(ahead + i);
        }
        const uint8_t* body = panel + head + 320 * b + 4 * lane;
        const uint8_t* scales = panel + 2 * (kPanelRows * b + lane);
#if HWY_TARGET == HWY_AVX2
        const FormatQ5_0 format[] = {{body, scales}, {body + 4 * kLanes, scales + 2 * kLanes}};
#else
        const FormatQ5_0 format[] = {{body, scales}};
#endif
        const XBlock* x[] = {&token.x[b]};
        VI dot[1][V];
        SubBlockDots<FormatQ5_0, 1>{format, x}.Run<0>(dot);
        const VF x_scale = hn::Set(DF(), x[0]->scale[0]);
        for (size_t v = 0; v < V; ++v) {
          const VF d = format[v].d;
          sum[v] = hn::MulAdd(hn::ConvertTo(DF(), dot[0][v]), hn::Mul(d, x_scale), sum[v]);
          center[v] = hn::MulAdd(d, hn::Set(DF(), token.center[b]), center[v]);
          bound[v] = hn::MulAdd(hn::Abs(d), hn::Set(DF(), token.large[b]), bound[v]);
        }
      }
      for (size_t v = 0; v < V; ++v) {
        const VF total = hn::Add(hn::MulAdd(hn::Set(DF(), 8.0f), sum[v], center[v]), bound[v]);
        hn::StoreU(total, DF(), upper + p * kPanelRows + lane + v * kLanes);
        most = std::max(most, hn::GetLane(hn::MaxOfLanes(DF(), total)));
      }
    }
    panel_upper[p] = most;
  }
}

float Refine(const PlaneHead& plane, const PlaneToken& token, size_t row, float upper,
             float* slack) {
  constexpr size_t kBlocks = kMaxPlaneCols / kQBlock;
  alignas(64) float d[kBlocks];
  alignas(64) uint8_t halves[2 * kBlocks];
  const uint8_t* head = plane.high_panel(row / kPanelRows) + 2 * (row % kPanelRows);
  for (size_t b = 0; b < token.blocks; ++b)
    std::memcpy(halves + 2 * b, head + 2 * kPanelRows * b, 2);
  for (size_t b = 0; b < token.blocks; b += kLanes)
    hn::Store(LoadHalves(halves + 2 * b), DF(), d + b);
  // Eight lanes hold the eight quads of a block.
  alignas(64) uint32_t shifts[16] = {0, 1, 2, 3, 4, 5, 6, 7}, ones[16] = {};
  std::fill_n(ones, 8, 0x01010101u);
  const uint8_t* low = plane.low_row(row);
  VF sum = hn::Zero(DF());
  float bound = plane.norm(row) * token.rest, center = 0, absolute = 0;
  for (size_t b = 0; b < token.blocks; ++b) {
    uint32_t w[3];
    std::memcpy(w, low + 12 * b, 12);
    const VF both = hn::Set(DF(), d[b] * token.x[b].scale[0]);
    for (size_t lane = 0; lane < 8; lane += kLanes) {
      const VU shift = hn::Load(DU(), shifts + lane), mask = hn::Load(DU(), ones + lane);
      const VU b0 = hn::And(hn::Shr(hn::Set(DU(), w[0]), shift), mask);
      const VU b1 = hn::And(hn::Shr(hn::Set(DU(), w[1]), shift), mask);
      const VU b2 = hn::And(hn::Shr(hn::Set(DU(), w[2]), shift), mask);
      const VU bits = hn::Or(b0, hn::Or(hn::ShiftLeft<1>(b1), hn::ShiftLeft<2>(b2)));
      const VU q = hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(token.x[b].q[0] + 4 * lane));
      sum = hn::MulAdd(hn::ConvertTo(DF(), QuadDot(hn::Zero(DI()), bits, q)), both, sum);
    }
    bound += std::abs(d[b]) * token.large[b];
    center += d[b] * token.center[b];
    absolute += std::abs(d[b]) * token.absolute[b];
  }
  *slack = PlaneRounding(token.blocks) * 2 * absolute + 1e-6f * (std::abs(upper) + bound);
  return upper - bound - center + hn::GetLane(hn::SumOfLanes(DF(), sum));
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(SplitPanel);
HWY_EXPORT(JoinPanel);
HWY_EXPORT(UpperBounds);
HWY_EXPORT(Refine);

namespace {
size_t Panels(size_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
}  // namespace

PlaneHead::PlaneHead(uint8_t* data, size_t rows, size_t cols)
    : data_(data), rows_(rows), cols_(cols), high_bytes_(PanelBytes(DType::kQ5_0, cols)) {
  low_ = data_ + Panels(rows) * high_bytes_;
  norms_ = reinterpret_cast<float*>(low_ + Panels(rows) * kPanelRows * (cols / kQBlock) * 12);
}

size_t PlaneHead::Bytes(size_t rows, size_t cols) {
  const size_t panel =
      PanelBytes(DType::kQ5_0, cols) + kPanelRows * (cols / kQBlock * 12 + sizeof(float));
  return (Panels(rows) * panel + 63) / 64 * 64;
}

void PlaneHead::Pack(const uint8_t* src, size_t first_row, size_t rows) {
  ChooseTarget();
  alignas(64) uint8_t q8[kMaxPlaneCols / kQBlock * 544];
  const size_t row_bytes = cols_ / kQBlock * 34;
  for (size_t r = 0; r < rows; r += kPanelRows) {
    PackPanels(DType::kQ8_0, src + r * row_bytes, std::min(kPanelRows, rows - r), cols_, q8);
    const size_t row = first_row + r;
    HWY_DYNAMIC_DISPATCH(SplitPanel)
    (q8, cols_, data_ + row / kPanelRows * high_bytes_, low_ + row * (cols_ / kQBlock) * 12,
     norms_ + row);
  }
}

void PlaneHead::UnpackRow(size_t row, float* dst) const {
  alignas(64) uint8_t q8[kMaxPlaneCols / kQBlock * 544];
  UnpackPlanePanel(*this, row / kPanelRows, q8);
  const PackedMatrix w{q8, DType::kQ8_0, kPanelRows, static_cast<uint32_t>(cols_)};
  snug::UnpackRow(w, row % kPanelRows, dst);
}

void PlaneHead::MatMul(const Activations& x, size_t first_panel, size_t last_panel, bool exact,
                       float* out, size_t out_stride) const {
  for (size_t p = first_panel; p < last_panel; ++p) {
    MatMulPanel(x, p, exact, out + p * kPanelRows, out_stride);
  }
}

void PlaneHead::MatMulPanel(const Activations& x, size_t panel, bool exact, float* out,
                            size_t out_stride) const {
  alignas(64) uint8_t q8[kMaxPlaneCols / kQBlock * 544];
  UnpackPlanePanel(*this, panel, q8);
  const size_t rows = std::min(kPanelRows, rows_ - panel * kPanelRows);
  const PackedMatrix w{q8, DType::kQ8_0, static_cast<uint32_t>(rows), static_cast<uint32_t>(cols_)};
  snug::MatMul(w, x, 0, 1, exact, out, out_stride);
}

void UnpackPlanePanel(const PlaneHead& head, size_t panel, uint8_t* q8) {
  ChooseTarget();
  HWY_DYNAMIC_DISPATCH(JoinPanel)(head, panel, q8);
}

void PlaneUpper(const PlaneHead& head, const PlaneToken& token, size_t first, size_t last,
                float* upper, float* panel_upper) {
  HWY_DYNAMIC_DISPATCH(UpperBounds)(head, token, first, last, upper, panel_upper);
}

float PlaneRefine(const PlaneHead& head, const PlaneToken& token, size_t row, float upper,
                  float* slack) {
  return HWY_DYNAMIC_DISPATCH(Refine)(head, token, row, upper, slack);
}

}  // namespace snug
#endif
