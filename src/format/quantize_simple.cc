#include "format/quantize_simple.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "format/block_bits.h"

namespace snug {
namespace {

void PutHalf(uint8_t* p, float v) {
  const uint16_t h = FloatToHalf(v);
  p[0] = static_cast<uint8_t>(h);
  p[1] = static_cast<uint8_t>(h >> 8);
}
// Towards zero, within [0, most]; 0 where v is no number.
uint8_t CodeOf(float v, int most) {
  if (!(v > 0)) return 0;
  return static_cast<uint8_t>(v < static_cast<float>(most) ? static_cast<int>(v) : most);
}
// The value of the largest magnitude, the first of several.
float Extreme(const float* x, size_t n) {
  float extreme = 0;
  for (size_t i = 0; i < n; ++i) {
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  }
  return extreme;
}

void Q8_0(const float* x, uint8_t* b) {
  const float d = std::abs(Extreme(x, 32)) / 127, id = Inverse(d);
  PutHalf(b, d);
  for (int i = 0; i < 32; ++i) {
    const float v = std::round(x[i] * id);
    b[2 + i] = v < 0 ? static_cast<uint8_t>(-CodeOf(-v, 127)) : CodeOf(v, 127);
  }
}

// Types whose code 0 is the extreme value, -kHalf times the scale.
template <int kHalf>
float CenteredCodes(const float* x, uint8_t (&q)[32]) {
  const float d = Extreme(x, 32) / -kHalf, id = Inverse(d);
  for (int i = 0; i < 32; ++i) q[i] = CodeOf(x[i] * id + (kHalf + 0.5f), 2 * kHalf - 1);
  return d;
}
// Types with a minimum: codes 0 to kMost between both extremes.
template <int kMost>
void RangeCodes(const float* x, uint8_t (&q)[32], uint8_t* scale_and_min) {
  const auto [least, most] = std::minmax_element(x, x + 32);
  const float min = *least, d = (*most - min) / kMost, id = Inverse(d);
  PutHalf(scale_and_min, d);
  PutHalf(scale_and_min + 2, min);
  for (int i = 0; i < 32; ++i) q[i] = CodeOf((x[i] - min) * id + 0.5f, kMost);
}

void Q4_0(const float* x, uint8_t* b) {
  uint8_t q[32];
  PutHalf(b, CenteredCodes<8>(x, q));
  PutNibbles(b + 2, q);
}
void Q4_1(const float* x, uint8_t* b) {
  uint8_t q[32];
  RangeCodes<15>(x, q, b);
  PutNibbles(b + 4, q);
}
void Q5_0(const float* x, uint8_t* b) {
  uint8_t q[32];
  PutHalf(b, CenteredCodes<16>(x, q));
  PutFifthBits(b + 2, q);
  PutNibbles(b + 6, q);
}
void Q5_1(const float* x, uint8_t* b) {
  uint8_t q[32];
  RangeCodes<31>(x, q, b);
  PutFifthBits(b + 4, q);
  PutNibbles(b + 8, q);
}

// The nearest of `codes`, the first of several.
uint8_t NearestCode(const int8_t (&codes)[16], float x, float d) {
  int best = 0;
  float least = std::abs(x - d * codes[0]);
  for (int i = 1; i < 16; ++i) {
    const float error = std::abs(x - d * codes[i]);
    if (error < least) best = i, least = error;
  }
  return static_cast<uint8_t>(best);
}

// The extreme value is code 0.
void IQ4_NL(const float* x, uint8_t* b) {
  const float d = Extreme(x, 32) / kIq4Codes[0];
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = NearestCode(kIq4Codes, x[i], d);
  PutHalf(b, d);
  PutNibbles(b + 2, q);
}
// The largest magnitude's power of two becomes that of the largest code, 4 (OCP MX 1.0, 6.3).
void MXFP4(const float* x, uint8_t* b) {
  const float most = std::abs(Extreme(x, 32));
  const int e = most > 0 && std::isfinite(most) ? std::ilogb(most) - 2 + 127 : 0;
  b[0] = static_cast<uint8_t>(std::clamp(e, 0, 254));
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = NearestCode(kMxfp4Codes, x[i], Mxfp4Scale(b[0]));
  PutNibbles(b + 1, q);
}

// Trits + 1, scaled by the largest magnitude.
float TernaryCodes(const float* x, uint8_t (&q)[256]) {
  const float d = std::abs(Extreme(x, 256)), id = Inverse(d);
  for (int i = 0; i < 256; ++i) q[i] = CodeOf(std::round(x[i] * id) + 1, 2);
  return d;
}
void TQ1_0(const float* x, uint8_t* b) {
  uint8_t q[256];
  PutHalf(b + 52, TernaryCodes(x, q));
  // The first of 256 equal steps whose base-3 digits these are: trits of columns `step` apart.
  const auto byte = [](const uint8_t* trits, int count, int step) {
    int value = 0;
    for (int n = 0; n < 5; ++n) value = value * 3 + (n < count ? trits[n * step] : 0);
    return static_cast<uint8_t>((value * 256 + 242) / 243);
  };
  for (int i = 0; i < 32; ++i) b[i] = byte(q + i, 5, 32);
  for (int i = 0; i < 16; ++i) b[32 + i] = byte(q + 160 + i, 5, 16);
  for (int i = 0; i < 4; ++i) b[48 + i] = byte(q + 240 + i, 4, 4);
}
void TQ2_0(const float* x, uint8_t* b) {
  uint8_t q[256];
  PutHalf(b + 64, TernaryCodes(x, q));
  for (int i = 0; i < 64; ++i) {
    const uint8_t* pairs = q + i / 32 * 128 + i % 32;
    b[i] = static_cast<uint8_t>(pairs[0] | pairs[32] << 2 | pairs[64] << 4 | pairs[96] << 6);
  }
}

void F32(const float* x, uint8_t* b) { std::memcpy(b, x, sizeof(float)); }
void F16(const float* x, uint8_t* b) { PutHalf(b, *x); }
void BF16(const float* x, uint8_t* b) {
  const uint16_t v = FloatToBFloat(*x);
  b[0] = static_cast<uint8_t>(v);
  b[1] = static_cast<uint8_t>(v >> 8);
}

using EncodeBlock = void (*)(const float* x, uint8_t* block);
EncodeBlock EncodeOf(DType type) {
  switch (type) {
    case DType::kF32:
      return F32;
    case DType::kF16:
      return F16;
    case DType::kBF16:
      return BF16;
    case DType::kQ4_0:
      return Q4_0;
    case DType::kQ4_1:
      return Q4_1;
    case DType::kQ5_0:
      return Q5_0;
    case DType::kQ5_1:
      return Q5_1;
    case DType::kQ8_0:
      return Q8_0;
    case DType::kIQ4_NL:
      return IQ4_NL;
    case DType::kTQ1_0:
      return TQ1_0;
    case DType::kTQ2_0:
      return TQ2_0;
    case DType::kMXFP4:
      return MXFP4;
    default:
      return nullptr;
  }
}

}  // namespace

bool HasSimpleQuantizer(DType type) { return EncodeOf(type) != nullptr; }

void QuantizeSimple(DType type, const float* src, size_t n, uint8_t* dst) {
  const DTypeInfo& info = Info(type);
  const EncodeBlock block = EncodeOf(type);
  assert(block != nullptr);
  for (size_t i = 0; i < n; i += info.block, dst += info.bytes) block(src + i, dst);
}

}  // namespace snug
