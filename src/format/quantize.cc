#include "format/quantize.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "format/block_bits.h"
#include "format/quantize_search.h"
#include "format/quantize_simple.h"

namespace snug {
namespace {

// --- blocks of 32

template <int kLo>
void Centered(const float* x, const float* w, uint8_t* scale, uint8_t (&q)[32]) {
  constexpr CodeRange kRange{kLo, -kLo - 1};
  const uint16_t d = FloatToHalf(FitScale(x, w, 32, kRange));
  std::memcpy(scale, &d, 2);
  int8_t code[32];
  NearestCodes(x, 32, HalfToFloat(d), 0, kRange, code);
  for (int i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(code[i] - kLo);
}

template <int kHi>
void Ranged(const float* x, const float* w, uint8_t* scale_and_min, uint8_t (&q)[32]) {
  const ScaleOffset fit = FitScaleOffset(x, w, 32, kHi, true);
  const uint16_t d = FloatToHalf(fit.scale), m = FloatToHalf(fit.offset);
  std::memcpy(scale_and_min, &d, 2);
  std::memcpy(scale_and_min + 2, &m, 2);
  int8_t code[32];
  NearestCodes(x, 32, HalfToFloat(d), HalfToFloat(m), {0, kHi}, code);
  for (int i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(code[i]);
}

void Q4_0(const float* x, const float* w, uint8_t* b) {
  uint8_t q[32];
  Centered<-8>(x, w, b, q);
  PutNibbles(b + 2, q);
}
void Q4_1(const float* x, const float* w, uint8_t* b) {
  uint8_t q[32];
  Ranged<15>(x, w, b, q);
  PutNibbles(b + 4, q);
}
void Q5_0(const float* x, const float* w, uint8_t* b) {
  uint8_t q[32];
  Centered<-16>(x, w, b, q);
  PutFifthBits(b + 2, q);
  PutNibbles(b + 6, q);
}
void Q5_1(const float* x, const float* w, uint8_t* b) {
  uint8_t q[32];
  Ranged<31>(x, w, b, q);
  PutFifthBits(b + 4, q);
  PutNibbles(b + 8, q);
}
void IQ4_NL(const float* x, const float* w, uint8_t* b) {
  const uint16_t d = FloatToHalf(FitTableScale(x, w, 32, kIq4Codes));
  std::memcpy(b, &d, 2);
  uint8_t q[32];
  NearestTableCodes(x, 32, HalfToFloat(d), kIq4Codes, q);
  PutNibbles(b + 2, q);
}

// --- super-blocks of 256

void PutHalves(uint8_t* p, const SuperBlock& s) {
  std::memcpy(p, &s.d, 2);
  std::memcpy(p + 2, &s.dmin, 2);
}

// Bit pairs of 256 columns in 64 bytes: column 32 s + l of a half is pair s of its byte l.
void PutPairs(uint8_t* p, const SuperBlock& s, int shift) {
  std::memset(p, 0, 64);
  for (int i = 0; i < 256; ++i) {
    const int pair = (s.codes[static_cast<size_t>(i)] + shift) & 3;
    p[i / 128 * 32 + i % 32] |= static_cast<uint8_t>(pair << (i / 32 % 4 * 2));
  }
}

// Low nibbles of 256 columns in 128 bytes: of each 64, the first 32 are the low halves.
void PutNibblesOf64(uint8_t* p, const SuperBlock& s) {
  for (int i = 0; i < 256; i += 64) {
    for (int l = 0; l < 32; ++l) {
      const auto at = static_cast<size_t>(i + l);
      p[i / 2 + l] = static_cast<uint8_t>((s.codes[at] & 15) | (s.codes[at + 32] & 15) << 4);
    }
  }
}

void Q2_K(const float* x, const float* w, uint8_t* b) {
  const SuperBlock s =
      FitSuperBlock(x, w, {.sub_blocks = 16, .codes = {0, 3}, .scales = {0, 15}, .max_min = 15});
  for (size_t j = 0; j < 16; ++j) b[j] = static_cast<uint8_t>(s.scales[j] | s.mins[j] << 4);
  PutPairs(b + 16, s, 0);
  PutHalves(b + 80, s);
}

void Q3_K(const float* x, const float* w, uint8_t* b) {
  const SuperBlock s =
      FitSuperBlock(x, w, {.sub_blocks = 16, .codes = {-4, 3}, .scales = {-32, 31}});
  std::memset(b, 0, 110);
  for (int i = 0; i < 256; ++i) {
    const int third = (s.codes[static_cast<size_t>(i)] + 4) >> 2;
    b[i % 32] |= static_cast<uint8_t>(third << (i / 32));
  }
  PutPairs(b + 32, s, 4);
  for (int j = 0; j < 16; ++j) {
    const int scale = s.scales[static_cast<size_t>(j)] + 32;
    b[96 + j % 8] |= static_cast<uint8_t>((scale & 15) << (j < 8 ? 0 : 4));
    b[104 + j % 4] |= static_cast<uint8_t>(scale >> 4 << (j / 4 * 2));
  }
  std::memcpy(b + 108, &s.d, 2);
}

// The 6-bit scales and mins of eight sub-blocks in 12 bytes.
void PutScalesAndMins(uint8_t* p, const SuperBlock& s) {
  std::memset(p, 0, 12);
  for (size_t j = 0; j < 8; ++j) {
    const int scale = s.scales[j], min = s.mins[j];
    if (j < 4) {
      p[j] |= static_cast<uint8_t>(scale);
      p[j + 4] |= static_cast<uint8_t>(min);
    } else {
      p[j + 4] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
      p[j - 4] |= static_cast<uint8_t>(scale >> 4 << 6);
      p[j] |= static_cast<uint8_t>(min >> 4 << 6);
    }
  }
}

void Q4_K(const float* x, const float* w, uint8_t* b) {
  const SuperBlock s =
      FitSuperBlock(x, w, {.sub_blocks = 8, .codes = {0, 15}, .scales = {0, 63}, .max_min = 63});
  PutHalves(b, s);
  PutScalesAndMins(b + 4, s);
  PutNibblesOf64(b + 16, s);
}

void Q5_K(const float* x, const float* w, uint8_t* b) {
  const SuperBlock s =
      FitSuperBlock(x, w, {.sub_blocks = 8, .codes = {0, 31}, .scales = {0, 63}, .max_min = 63});
  PutHalves(b, s);
  PutScalesAndMins(b + 4, s);
  std::memset(b + 16, 0, 32);
  for (int i = 0; i < 256; ++i)
    b[16 + i % 32] |= static_cast<uint8_t>(s.codes[static_cast<size_t>(i)] >> 4 << (i / 32));
  PutNibblesOf64(b + 48, s);
}

void Q6_K(const float* x, const float* w, uint8_t* b) {
  const SuperBlock s =
      FitSuperBlock(x, w, {.sub_blocks = 16, .codes = {-32, 31}, .scales = {-128, 127}});
  std::memset(b, 0, 192);
  for (int i = 0; i < 256; ++i) {
    const int q = s.codes[static_cast<size_t>(i)] + 32;
    const int half = i / 128, quarter = i / 32 % 4, l = i % 32;
    b[half * 64 + quarter % 2 * 32 + l] |= static_cast<uint8_t>((q & 15) << (quarter / 2 * 4));
    b[128 + half * 32 + l] |= static_cast<uint8_t>(q >> 4 << (2 * quarter));
  }
  for (size_t j = 0; j < 16; ++j) b[192 + j] = static_cast<uint8_t>(s.scales[j]);
  std::memcpy(b + 208, &s.d, 2);
}

void IQ4_XS(const float* x, const float* w, uint8_t* b) {
  const SuperBlock s = FitSuperBlock(
      x, w, {.sub_blocks = 8, .codes = {-127, 113}, .scales = {-32, 31}, .table = kIq4Codes});
  std::memset(b, 0, 136);
  std::memcpy(b, &s.d, 2);
  uint16_t high = 0;
  for (size_t j = 0; j < 8; ++j) {
    const int scale = s.scales[j] + 32;
    b[4 + j / 2] |= static_cast<uint8_t>((scale & 15) << (j % 2 * 4));
    high |= static_cast<uint16_t>(scale >> 4 << (2 * j));
    uint8_t q[32];
    for (size_t i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(s.codes[32 * j + i]);
    PutNibbles(b + 8 + 16 * j, q);
  }
  std::memcpy(b + 2, &high, 2);
}

using SearchBlock = void (*)(const float* x, const float* w, uint8_t* block);
SearchBlock SearchOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return Q4_0;
    case DType::kQ4_1:
      return Q4_1;
    case DType::kQ5_0:
      return Q5_0;
    case DType::kQ5_1:
      return Q5_1;
    case DType::kIQ4_NL:
      return IQ4_NL;
    case DType::kQ2_K:
      return Q2_K;
    case DType::kQ3_K:
      return Q3_K;
    case DType::kQ4_K:
      return Q4_K;
    case DType::kQ5_K:
      return Q5_K;
    case DType::kQ6_K:
      return Q6_K;
    case DType::kIQ4_XS:
      return IQ4_XS;
    default:
      return nullptr;
  }
}

// What the squared error of each weight of a block counts: its column's importance, times what
// ggml's quantizers weigh by, which makes larger weights count more: the root of the block's mean
// square, doubled where an importance is given, plus the weight's own.
void Weigh(const float* x, const float* importance, size_t n, float* w) {
  float squares = 0, total = 0;
  for (size_t i = 0; i < n; ++i) squares += x[i] * x[i];
  for (size_t i = 0; importance != nullptr && i < n; ++i) total += importance[i];
  if (!(total > 0)) importance = nullptr;
  const float mean = (importance == nullptr ? 1.0f : 2.0f) * squares / static_cast<float>(n);
  // Columns that calibration never saw count a little, lest their weights become anything.
  const float least = 1e-4f * total / static_cast<float>(n);
  for (size_t i = 0; i < n; ++i) {
    const float own = importance == nullptr ? 1 : std::max(importance[i], least);
    w[i] = own * std::sqrt(mean + x[i] * x[i]);
  }
}

}  // namespace

bool CanQuantize(DType type) { return SearchOf(type) != nullptr || HasSimpleQuantizer(type); }

void Quantize(DType type, const float* src, size_t n, const float* importance, uint8_t* dst) {
  assert(CanQuantize(type));
  const SearchBlock search = SearchOf(type);
  if (search == nullptr) return QuantizeSimple(type, src, n, dst);
  const DTypeInfo& info = Info(type);
  float w[256];
  for (size_t i = 0; i < n; i += info.block, dst += info.bytes) {
    Weigh(src + i, importance == nullptr ? nullptr : importance + i, info.block, w);
    search(src + i, w, dst);
  }
}

}  // namespace snug
