// The slow, obvious reference of every stored type, block by block as ggml defines them.
#include <cstring>

#include "format/dtype.h"

namespace snug {
namespace {

uint16_t Word16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
uint32_t Word32(const uint8_t* p) { return Word16(p) | static_cast<uint32_t>(Word16(p + 2)) << 16; }
float Half(const uint8_t* p) { return HalfToFloat(Word16(p)); }

void Q8_0(const uint8_t* b, float* y) {
  const float d = Half(b);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<int8_t>(b[2 + i]);
}

// Nibble of column i of 32: the low ones of 16 bytes, then the high ones.
int Nibble32(const uint8_t* q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

void Q4_0(const uint8_t* b, float* y) {
  const float d = Half(b);
  for (int i = 0; i < 32; ++i) y[i] = d * (Nibble32(b + 2, i) - 8);
}
void Q4_1(const uint8_t* b, float* y) {
  const float d = Half(b), m = Half(b + 2);
  for (int i = 0; i < 32; ++i) y[i] = d * Nibble32(b + 4, i) + m;
}
void Q5_0(const uint8_t* b, float* y) {
  const float d = Half(b);
  const uint32_t fifth = Word32(b + 2);
  for (int i = 0; i < 32; ++i) {
    const int q = Nibble32(b + 6, i) | static_cast<int>(fifth >> i & 1) << 4;
    y[i] = d * (q - 16);
  }
}
void Q5_1(const uint8_t* b, float* y) {
  const float d = Half(b), m = Half(b + 2);
  const uint32_t fifth = Word32(b + 4);
  for (int i = 0; i < 32; ++i) {
    const int q = Nibble32(b + 8, i) | static_cast<int>(fifth >> i & 1) << 4;
    y[i] = d * q + m;
  }
}

// Bit pair of column i of 256, from 64 bytes: pair s of byte l of a half is column 32 s + l of it.
int BitPair(const uint8_t* q, int i) { return q[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3; }

void Q2_K(const uint8_t* b, float* y) {
  const float d = Half(b + 80), dmin = Half(b + 82);
  for (int i = 0; i < 256; ++i) {
    const uint8_t scale_min = b[i / 16];
    y[i] = d * (scale_min & 15) * BitPair(b + 16, i) - dmin * (scale_min >> 4);
  }
}
void Q3_K(const uint8_t* b, float* y) {
  const float d = Half(b + 108);
  const uint8_t* s = b + 96;
  for (int i = 0; i < 256; ++i) {
    const int j = i / 16;
    const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4, high = s[8 + j % 4] >> (j / 4 * 2) & 3;
    const int third = b[i % 32] >> (i / 32) & 1;
    y[i] = d * ((low | high << 4) - 32) * (BitPair(b + 32, i) + 4 * third - 4);
  }
}

// The 6-bit scale and minimum of sub-block j of Q4_K and Q5_K.
struct ScaleMin {
  int scale, min;
};
ScaleMin ScaleMinOf(const uint8_t* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4};
}

void Q4_K(const uint8_t* b, float* y) {
  const float d = Half(b), dmin = Half(b + 2);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, min] = ScaleMinOf(b + 4, i / 32);
    const uint8_t q = b[16 + i / 64 * 32 + i % 32];
    y[i] = d * scale * (i % 64 < 32 ? q & 15 : q >> 4) - dmin * min;
  }
}
void Q5_K(const uint8_t* b, float* y) {
  const float d = Half(b), dmin = Half(b + 2);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, min] = ScaleMinOf(b + 4, i / 32);
    const uint8_t q = b[48 + i / 64 * 32 + i % 32];
    const int fifth = b[16 + i % 32] >> (i / 32) & 1;
    y[i] = d * scale * ((i % 64 < 32 ? q & 15 : q >> 4) | fifth << 4) - dmin * min;
  }
}
void Q6_K(const uint8_t* b, float* y) {
  const float d = Half(b + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i / 32 % 4, l = i % 32;
    const uint8_t low = b[half * 64 + quarter % 2 * 32 + l];
    const int high = b[128 + half * 32 + l] >> (2 * quarter) & 3;
    const int q = (quarter < 2 ? low & 15 : low >> 4) | high << 4;
    y[i] = d * static_cast<int8_t>(b[192 + i / 16]) * (q - 32);
  }
}

void IQ4_NL(const uint8_t* b, float* y) {
  const float d = Half(b);
  for (int i = 0; i < 32; ++i) y[i] = d * kIq4Codes[Nibble32(b + 2, i)];
}
void IQ4_XS(const uint8_t* b, float* y) {
  const float d = Half(b);
  for (int i = 0; i < 256; ++i) {
    const int j = i / 32;
    const int scale = (b[4 + j / 2] >> (j % 2 * 4) & 15) | (Word16(b + 2) >> (2 * j) & 3) << 4;
    y[i] = d * (scale - 32) * kIq4Codes[Nibble32(b + 8 + 16 * j, i % 32)];
  }
}
void MXFP4(const uint8_t* b, float* y) {
  const float d = Mxfp4Scale(b[0]);
  for (int i = 0; i < 32; ++i) y[i] = d * kMxfp4Codes[Nibble32(b + 1, i)];
}

// Five trits a byte: times three, what passes 256 is the next one.
int Trit(uint8_t byte, int n) {
  for (; n > 0; --n) byte = static_cast<uint8_t>(byte * 3);
  return byte * 3 >> 8;
}
void TQ1_0(const uint8_t* b, float* y) {
  const float d = Half(b + 52);
  for (int i = 0; i < 160; ++i) y[i] = d * (Trit(b[i % 32], i / 32) - 1);
  for (int i = 0; i < 80; ++i) y[160 + i] = d * (Trit(b[32 + i % 16], i / 16) - 1);
  for (int i = 0; i < 16; ++i) y[240 + i] = d * (Trit(b[48 + i % 4], i / 4) - 1);
}
void TQ2_0(const uint8_t* b, float* y) {
  const float d = Half(b + 64);
  for (int i = 0; i < 256; ++i) y[i] = d * (BitPair(b, i) - 1);
}

using DecodeBlock = void (*)(const uint8_t* block, float* y);
DecodeBlock DecodeOf(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
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
    case DType::kIQ4_NL:
      return IQ4_NL;
    case DType::kIQ4_XS:
      return IQ4_XS;
    case DType::kTQ1_0:
      return TQ1_0;
    case DType::kTQ2_0:
      return TQ2_0;
    case DType::kMXFP4:
      return MXFP4;
  }
  return nullptr;
}

}  // namespace

void Dequantize(DType type, const uint8_t* src, size_t n, float* dst) {
  switch (type) {
    case DType::kF32:
      std::memcpy(dst, src, n * sizeof(float));
      return;
    case DType::kF16:
      for (size_t i = 0; i < n; ++i) dst[i] = Half(src + 2 * i);
      return;
    case DType::kBF16:
      for (size_t i = 0; i < n; ++i) dst[i] = BFloatToFloat(Word16(src + 2 * i));
      return;
    default:
      break;
  }
  const DTypeInfo& info = Info(type);
  const DecodeBlock block = DecodeOf(type);
  for (size_t i = 0; i < n; i += info.block, src += info.bytes) block(src, dst + i);
}

}  // namespace snug
