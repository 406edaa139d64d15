// Repacks raw GGUF rows into panels of 16: rows transposed in words of 32 bits (lane = row), f16
// block scales that would break the words' alignment collected ahead of them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/pack.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernel/compat-inl.h"
#include "kernel/matmul.h"
#include "kernel/matmul_internal.h"
#include "kernel/targets.h"
#include "kernel/transpose-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

template <size_t kBytes>
static HWY_INLINE void Scales(const uint8_t* const (&src)[kPanelRows], size_t offset,
                              uint8_t* head) {
  for (size_t r = 0; r < kPanelRows; ++r) std::memcpy(head + kBytes * r, src[r] + offset, kBytes);
}

// Exchanges, in every lane, bits `mask << kDistance` with bits `mask`.
template <int kDistance>
static HWY_INLINE VU SwapBits(VU x, uint32_t mask) {
  const VU t = hn::And(hn::Xor(x, hn::ShiftRight<kDistance>(x)), hn::Set(DU(), mask));
  return hn::Xor(x, hn::Or(t, hn::ShiftLeft<kDistance>(t)));
}

// The fifth bits of Q5_0 and Q5_1: bit 4 k + c of each row's word (column 4 k + c) moves to bit 8 c
// + k, where one shift and mask gives those of four columns. Index bits k2 k1 k0 c1 c0 become c1 c0
// k2 k1 k0, two exchanged a step.
static HWY_INLINE void SpreadFifthBits(uint8_t* word) {
  for (size_t lane = 0; lane < kPanelRows; lane += kLanes) {
    uint32_t* p = reinterpret_cast<uint32_t*>(word) + lane;
    VU v = SwapBits<14>(hn::LoadU(DU(), p), 0x0000ccccu);
    v = SwapBits<7>(v, 0x00aa00aau);
    v = SwapBits<2>(v, 0x0c0c0c0cu);
    hn::StoreU(SwapBits<1>(v, 0x22222222u), DU(), p);
  }
}

// One panel of 1..16 rows; the missing ones are zeros.
void PackPanel(const PanelLayout& layout, const uint8_t* src, size_t rows, size_t cols,
               uint8_t* dst) {
  static constexpr uint8_t kZeros[256] = {};  // at least a unit
  const size_t row_bytes = cols * layout.bytes / layout.cols;
  const uint8_t* unit[kPanelRows];
  const size_t head_bytes = layout.HeadBytes(cols);
  uint8_t* body = dst + head_bytes;
  size_t u = 0;
  for (size_t at = 0; at + layout.bytes <= row_bytes; at += layout.bytes, ++u) {
    for (size_t r = 0; r < kPanelRows; ++r) unit[r] = r < rows ? src + r * row_bytes + at : kZeros;
    uint8_t* scales = dst + layout.scale_bytes * kPanelRows * u;
    if (layout.scale_bytes == 2) Scales<2>(unit, layout.scale_at, scales);
    if (layout.scale_bytes == 1) Scales<1>(unit, layout.scale_at, scales);
    for (size_t r = 0; r < kPanelRows; ++r) unit[r] += layout.body_at;
    Transpose(unit, layout.words, layout.flip, body);
    if (layout.fifth_word >= 0) SpreadFifthBits(body + 64 * layout.fifth_word);
    body += 64 * layout.words;
  }
  // Float types in units of 64 columns: what is left, and half a word where the columns are odd in
  // number.
  const size_t done = u * layout.bytes, left = row_bytes - done;
  if (left > 0) {
    uint8_t tail[kPanelRows][256] = {};
    for (size_t r = 0; r < rows; ++r) std::memcpy(tail[r], src + r * row_bytes + done, left);
    for (size_t r = 0; r < kPanelRows; ++r) unit[r] = tail[r];
    Transpose(unit, (left + 3) / 4, 0, body);
  }
  const size_t scales = layout.scale_bytes * kPanelRows * u;
  if (scales < head_bytes) std::memset(dst + scales, 0, head_bytes - scales);
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#if HWY_ONCE
namespace snug {
HWY_EXPORT(PackPanel);

namespace {
// Undoes SpreadFifthBits for one row.
uint32_t GatherFifthBits(uint32_t v) {
  uint32_t word = 0;
  for (int i = 0; i < 32; ++i) word |= (v >> (i % 4 * 8 + i / 4) & 1) << i;
  return word;
}
}  // namespace

const PanelLayout& LayoutOf(DType type) {
  static constexpr PanelLayout kF32{.cols = 64, .bytes = 256, .words = 64};
  static constexpr PanelLayout kF16{.cols = 64, .bytes = 128, .words = 32};
  static constexpr PanelLayout kQ8_0{
      .cols = 32, .bytes = 34, .scale_bytes = 2, .body_at = 2, .words = 8, .flip = 0x80808080u};
  static constexpr PanelLayout kQ4_0{
      .cols = 32, .bytes = 18, .scale_bytes = 2, .body_at = 2, .words = 4};
  static constexpr PanelLayout kQ4_1{.cols = 32, .bytes = 20, .words = 5};
  static constexpr PanelLayout kQ5_0{
      .cols = 32, .bytes = 22, .scale_bytes = 2, .body_at = 2, .words = 5, .fifth_word = 0};
  static constexpr PanelLayout kQ5_1{.cols = 32, .bytes = 24, .words = 6, .fifth_word = 1};
  static constexpr PanelLayout kQ2_K{.cols = 256, .bytes = 84, .words = 21};
  static constexpr PanelLayout kQ3_K{
      .cols = 256, .bytes = 110, .scale_bytes = 2, .scale_at = 108, .words = 27};
  static constexpr PanelLayout kQ4_K{.cols = 256, .bytes = 144, .words = 36};
  static constexpr PanelLayout kQ5_K{.cols = 256, .bytes = 176, .words = 44};
  static constexpr PanelLayout kQ6_K{
      .cols = 256, .bytes = 210, .scale_bytes = 2, .scale_at = 208, .words = 52};
  static constexpr PanelLayout kIQ4_XS{.cols = 256, .bytes = 136, .words = 34};
  static constexpr PanelLayout kTQ1_0{
      .cols = 256, .bytes = 54, .scale_bytes = 2, .scale_at = 52, .words = 13};
  static constexpr PanelLayout kTQ2_0{
      .cols = 256, .bytes = 66, .scale_bytes = 2, .scale_at = 64, .words = 16};
  static constexpr PanelLayout kMXFP4{
      .cols = 32, .bytes = 17, .scale_bytes = 1, .body_at = 1, .words = 4};
  switch (type) {
    case DType::kF32:
      return kF32;
    case DType::kF16:
    case DType::kBF16:
      return kF16;
    case DType::kQ8_0:
      return kQ8_0;
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return kQ4_0;
    case DType::kQ4_1:
      return kQ4_1;
    case DType::kQ5_0:
      return kQ5_0;
    case DType::kQ5_1:
      return kQ5_1;
    case DType::kQ2_K:
      return kQ2_K;
    case DType::kQ3_K:
      return kQ3_K;
    case DType::kQ4_K:
      return kQ4_K;
    case DType::kQ5_K:
      return kQ5_K;
    case DType::kQ6_K:
      return kQ6_K;
    case DType::kIQ4_XS:
      return kIQ4_XS;
    case DType::kTQ1_0:
      return kTQ1_0;
    case DType::kTQ2_0:
      return kTQ2_0;
    case DType::kMXFP4:
      return kMXFP4;
  }
  return kF32;
}

size_t HeadBytes(DType type, size_t cols) { return LayoutOf(type).HeadBytes(cols); }

size_t PanelBytes(DType type, size_t cols) {
  const PanelLayout& layout = LayoutOf(type);
  if (layout.cols == 64) return (cols * layout.bytes / 64 + 3) / 4 * 64;
  return layout.HeadBytes(cols) + cols / layout.cols * layout.words * 64;
}

void PackPanels(DType type, const uint8_t* src, size_t rows, size_t cols, uint8_t* dst) {
  ChooseTarget();
  const PanelLayout& layout = LayoutOf(type);
  const size_t row_bytes = cols * layout.bytes / layout.cols, panel_bytes = PanelBytes(type, cols);
  for (size_t r = 0; r < rows; r += kPanelRows) {
    HWY_DYNAMIC_DISPATCH(PackPanel)
    (layout, src + r * row_bytes, std::min(kPanelRows, rows - r), cols,
     dst + r / kPanelRows * panel_bytes);
  }
}

void UnpackRow(const PackedMatrix& w, size_t row, float* dst) {
  const PanelLayout& layout = LayoutOf(w.type);
  const uint8_t* panel = w.data + row / kPanelRows * PanelBytes(w.type, w.cols);
  const size_t lane = row % kPanelRows;
  const uint8_t* body = panel + layout.HeadBytes(w.cols) + 4 * lane;
  const size_t block = Info(w.type).block;
  uint8_t unit[256 + 4];
  size_t u = 0;
  for (size_t c = 0; c < w.cols; c += layout.cols, ++u, body += 64 * layout.words) {
    const size_t cols = std::min<size_t>(layout.cols, w.cols - c);
    const size_t words = block > 1 ? layout.words : (cols * layout.bytes / 64 + 3) / 4;
    std::memcpy(unit + layout.scale_at, panel + layout.scale_bytes * (kPanelRows * u + lane),
                layout.scale_bytes);
    for (size_t i = 0; i < words; ++i) {
      uint32_t v;
      std::memcpy(&v, body + 64 * i, 4);
      v ^= layout.flip;
      if (static_cast<int>(i) == layout.fifth_word) v = GatherFifthBits(v);
      std::memcpy(unit + layout.body_at + 4 * i, &v, 4);
    }
    Dequantize(w.type, unit, cols, dst + c);
  }
}

}  // namespace snug
#endif
