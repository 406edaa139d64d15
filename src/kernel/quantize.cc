// Activations to int8: blocks of 32 columns, each with the scale max|x| / 127, rounded to nearest
// even.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/quantize.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/compat-inl.h"
#include "kernel/matmul.h"
#include "kernel/matmul_internal.h"
#include "kernel/targets.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

inline constexpr size_t kVectors = kQBlock / kLanes;
// Blocks below this are stored as zeros: 127 / max would overflow.
inline constexpr float kTiny = 1e-30f;

// Rounds v * inverse to int8 at q [32]; returns the sums of both halves.
struct Halves {
  int32_t first, second;
};
static HWY_INLINE Halves RoundBlock(const VF (&v)[kVectors], VF inverse, int8_t* q) {
#if HWY_TARGET == HWY_AVX3_DL
  const VI q0 = hn::NearestInt(hn::Mul(v[0], inverse)), q1 = hn::NearestInt(hn::Mul(v[1], inverse));
  const __m256i bytes = _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm512_cvtsepi32_epi8(q0.raw)), _mm512_cvtsepi32_epi8(q1.raw), 1);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), bytes);
  // On 512 bits: for 256 compilers choose AVX-VNNI, which not every CPU with AVX-512 VNNI has.
  const __m256i quads = _mm512_castsi512_si256(_mm512_dpbusd_epi32(
      _mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_zextsi256_si512(bytes)));
  const __m128i pairs =
      _mm_hadd_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256(quads, 1));
  const __m128i sums = _mm_hadd_epi32(pairs, pairs);
  return {_mm_cvtsi128_si32(sums), _mm_extract_epi32(sums, 1)};
#else
  const hn::Rebind<int8_t, DF> d8;
  VI half[2] = {hn::Zero(DI()), hn::Zero(DI())};
  for (size_t i = 0; i < kVectors; ++i) {
    const VI rounded = hn::NearestInt(hn::Mul(v[i], inverse));
    hn::StoreU(hn::DemoteTo(d8, rounded), d8, q + i * kLanes);
    half[i * kLanes / 16] = hn::Add(half[i * kLanes / 16], rounded);
  }
  return {hn::GetLane(hn::SumOfLanes(DI(), half[0])), hn::GetLane(hn::SumOfLanes(DI(), half[1]))};
#endif
}

static HWY_INLINE float MaxOf(VF v) {
#if HWY_TARGET == HWY_AVX3_DL
  return _mm512_reduce_max_ps(v.raw);
#else
  return hn::GetLane(hn::MaxOfLanes(DF(), v));
#endif
}

// Quantizes one block into `slot`; returns max|x|.
static HWY_INLINE float QuantizeBlock(const VF (&v)[kVectors], size_t slot, XBlock& block) {
  VF most = hn::Abs(v[0]);
  for (size_t i = 1; i < kVectors; ++i) most = hn::Max(most, hn::Abs(v[i]));
  const float amax = MaxOf(most);
  const float inverse = amax < kTiny ? 0.0f : 127.0f / amax;
  const float scale = amax < kTiny ? 0.0f : amax * (1.0f / 127.0f);
  const Halves sums = RoundBlock(v, hn::Set(DF(), inverse), block.q[slot]);
  const int32_t sum = sums.first + sums.second;
  block.scale[slot] = scale;
  block.sum[slot] = scale * static_cast<float>(sum);
  block.neg[slot] = -sum;
  block.neg_half[slot] = -sums.first;
  return amax;
}

// Returns whether the row counts as two.
bool QuantizeRow(const float* x, size_t cols, size_t slot, XBlock* blocks) {
  float most = 0;
  int64_t bits = 0, nonzero = 0;
  for (size_t b = 0; b < cols / kQBlock; ++b) {
    VF v[kVectors];
    for (size_t i = 0; i < kVectors; ++i) v[i] = hn::LoadU(DF(), x + b * kQBlock + i * kLanes);
    const float amax = QuantizeBlock(v, slot, blocks[b]);
    if (amax < kTiny) continue;
    most = std::max(most, amax);
    bits += std::bit_cast<int32_t>(amax);
    ++nonzero;
  }
  return nonzero > 0 && IsOutlier(most, bits / nonzero);
}

void QuantizeLowRow(const float* x, const XBlock* high, size_t slot, size_t blocks, size_t low_slot,
                    XBlock* low) {
  const hn::Rebind<int8_t, DF> d8;
  for (size_t b = 0; b < blocks; ++b) {
    VF v[kVectors];
    const VF scale = hn::Set(DF(), high[b].scale[slot]);
    for (size_t i = 0; i < kVectors; ++i) {
      const VI q = hn::PromoteTo(DI(), hn::LoadU(d8, high[b].q[slot] + i * kLanes));
      v[i] = hn::NegMulAdd(scale, hn::ConvertTo(DF(), q),
                           hn::LoadU(DF(), x + b * kQBlock + i * kLanes));
    }
    QuantizeBlock(v, low_slot, low[b]);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(QuantizeRow);
HWY_EXPORT(QuantizeLowRow);

size_t Activations::Bytes(size_t tokens, size_t cols) {
  const size_t blocks = (tokens + 3) / 4 * (cols / kQBlock) * sizeof(XBlock);
  const size_t lists = tokens * (sizeof(uint8_t) + sizeof(uint32_t)) + 4;
  return blocks + (lists + 63) / 64 * 64;
}

void Activations::Bind(uint8_t* memory, size_t tokens_max, size_t cols_max) {
  blocks = reinterpret_cast<XBlock*>(memory);
  uint8_t* lists = memory + (tokens_max + 3) / 4 * (cols_max / kQBlock) * sizeof(XBlock);
  extra = reinterpret_cast<uint32_t*>(lists);
  outlier = lists + tokens_max * sizeof(uint32_t);
  max_tokens = tokens_max;
  max_cols = cols_max;
  n_extra = 0;
}

void Activations::Quantize(const float* rows, size_t row_stride, size_t columns, size_t first,
                           size_t last) {
  ChooseTarget();
  const size_t row_blocks = columns / kQBlock;
  for (size_t t = first; t < last; ++t) {
    XBlock* row = blocks + t / 4 * row_blocks;
    outlier[t] = HWY_DYNAMIC_DISPATCH(QuantizeRow)(rows + t * row_stride, columns, t % 4, row);
  }
}

void Activations::Seal(const float* rows, size_t row_stride, size_t n, size_t columns) {
  x = rows;
  stride = row_stride;
  tokens = n;
  cols = columns;
  n_extra = 0;
  if (outlier == nullptr || columns % kQBlock != 0) return;
  for (size_t t = 0; t < n; ++t) {
    if (outlier[t] != 0) extra[n_extra++] = static_cast<uint32_t>(t);
  }
}

void QuantizeLow(const Activations& x, size_t token, size_t first, size_t cols, size_t slot,
                 XBlock* low) {
  const XBlock* high = x.blocks + token / 4 * (x.cols / kQBlock) + first / kQBlock;
  HWY_DYNAMIC_DISPATCH(QuantizeLowRow)
  (x.x + token * x.stride + first, high, token % 4, cols / kQBlock, slot, low);
}

}  // namespace snug
#endif
