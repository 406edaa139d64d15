#include "kernel/weights.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace snug::testing {
namespace {

struct Block {
  size_t cols, bytes;
};
Block BlockOf(DType type) {
  switch (type) {
    case DType::kF32:
      return {1, 4};
    case DType::kF16:
      return {1, 2};
    case DType::kBF16:
      return {1, 2};
    case DType::kQ4_0:
      return {32, 18};
    case DType::kQ4_1:
      return {32, 20};
    case DType::kQ5_0:
      return {32, 22};
    case DType::kQ5_1:
      return {32, 24};
    case DType::kQ8_0:
      return {32, 34};
    case DType::kQ2_K:
      return {256, 84};
    case DType::kQ3_K:
      return {256, 110};
    case DType::kQ4_K:
      return {256, 144};
    case DType::kQ5_K:
      return {256, 176};
    case DType::kQ6_K:
      return {256, 210};
    case DType::kIQ4_NL:
      return {32, 18};
    case DType::kIQ4_XS:
      return {256, 136};
    case DType::kTQ1_0:
      return {256, 54};
    case DType::kTQ2_0:
      return {256, 66};
    case DType::kMXFP4:
      return {32, 17};
  }
  return {1, 1};
}

double Half(const uint8_t* p) {
  const int bits = p[0] | p[1] << 8;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 != 0 ? -magnitude : magnitude;
}

// An f16 near `value` with random low bits and sign.
void PutHalf(uint8_t* p, double value, bool may_be_negative, std::mt19937& rng) {
  int exponent = 0;
  std::frexp(value, &exponent);
  const int bits = (exponent + 14) << 10 | static_cast<int>(rng() & 1023) |
                   (may_be_negative && (rng() & 1) != 0 ? 1 << 15 : 0);
  p[0] = static_cast<uint8_t>(bits);
  p[1] = static_cast<uint8_t>(bits >> 8);
}

// The 6-bit scale and minimum of sub-block j of Q4_K and Q5_K.
void ScaleMin(const uint8_t* s, size_t j, int* scale, int* min) {
  if (j < 4) {
    *scale = s[j] & 63;
    *min = s[j + 4] & 63;
  } else {
    *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
  }
}

int Iq4(int nibble) {
  constexpr int kValues[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                             1,    13,   25,  38,  53,  69,  89,  113};
  return kValues[nibble];
}

double BlockWeight(DType type, const uint8_t* b, size_t i) {
  switch (type) {
    case DType::kF32: {
      float f;
      std::memcpy(&f, b, 4);
      return f;
    }
    case DType::kF16:
      return Half(b);
    case DType::kBF16:
      return std::bit_cast<float>(static_cast<uint32_t>(b[0] | b[1] << 8) << 16);
    case DType::kQ8_0:
      return Half(b) * static_cast<int8_t>(b[2 + i]);
    case DType::kQ4_0:
      return Half(b) * ((i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4) - 8);
    case DType::kQ4_1:
      return Half(b) * (i < 16 ? b[4 + i] & 15 : b[4 + i - 16] >> 4) + Half(b + 2);
    case DType::kQ5_0:
    case DType::kQ5_1: {
      const uint8_t* q = b + (type == DType::kQ5_0 ? 2 : 4);
      const int low = i < 16 ? q[4 + i] & 15 : q[4 + i - 16] >> 4;
      const int code = low | (q[i / 8] >> (i % 8) & 1) << 4;
      return type == DType::kQ5_0 ? Half(b) * (code - 16) : Half(b) * code + Half(b + 2);
    }
    case DType::kQ2_K: {
      const int q = b[16 + i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3;
      return Half(b + 80) * (b[i / 16] & 15) * q - Half(b + 82) * (b[i / 16] >> 4);
    }
    case DType::kQ3_K: {
      // Scales 4 g + k: byte 96 + 4 (g % 2) + k holds low nibbles, byte 104 + k two more bits each.
      const size_t g = i / 64, k = i / 16 % 4;
      const int low = b[96 + 4 * (g % 2) + k] >> (g < 2 ? 0 : 4) & 15;
      const int scale = (low | (b[104 + k] >> (2 * g) & 3) << 4) - 32;
      int q = b[32 + i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3;
      if ((b[i % 32] >> (i / 32) & 1) == 0) q -= 4;
      return Half(b + 108) * scale * q;
    }
    case DType::kQ4_K:
    case DType::kQ5_K: {
      int scale, min;
      ScaleMin(b + 4, i / 32, &scale, &min);
      const uint8_t* low = b + (type == DType::kQ4_K ? 16 : 48) + i / 64 * 32 + i % 32;
      int q = i / 32 % 2 == 0 ? *low & 15 : *low >> 4;
      if (type == DType::kQ5_K) q |= (b[16 + i % 32] >> (i / 32) & 1) << 4;
      return Half(b) * scale * q - Half(b + 2) * min;
    }
    case DType::kQ6_K: {
      const size_t half = i / 128, quarter = i / 32 % 4, l = i % 32;
      const uint8_t low = b[half * 64 + quarter % 2 * 32 + l];
      const int q =
          (quarter < 2 ? low & 15 : low >> 4) | (b[128 + half * 32 + l] >> (2 * quarter) & 3) << 4;
      return Half(b + 208) * static_cast<int8_t>(b[192 + i / 16]) * (q - 32);
    }
    case DType::kIQ4_NL:
      return Half(b) * Iq4(i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4);
    case DType::kIQ4_XS: {
      const size_t j = i / 32, l = i % 32;
      const int low = j % 2 == 0 ? b[4 + j / 2] & 15 : b[4 + j / 2] >> 4;
      const int scale = (low | (b[2 + j / 4] >> (j % 4 * 2) & 3) << 4) - 32;
      const uint8_t q = b[8 + 16 * j + l % 16];
      return Half(b) * scale * Iq4(l < 16 ? q & 15 : q >> 4);
    }
    case DType::kTQ1_0: {
      // The bytes that hold it, how many, and where its columns start.
      const size_t at = i < 160 ? 0 : i < 240 ? 32 : 48, n = i < 160 ? 32 : i < 240 ? 16 : 4;
      const size_t first = i < 160 ? 0 : i < 240 ? 160 : 240;
      int code = b[at + (i - first) % n];
      for (size_t k = 0; k < (i - first) / n; ++k) code = code * 3 % 256;
      return Half(b + 52) * (code * 3 / 256 - 1);
    }
    case DType::kTQ2_0:
      return Half(b + 64) * ((b[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3) - 1);
    case DType::kMXFP4: {
      // E2M1: a sign, two bits of exponent, one of mantissa.
      const int e2m1 = i < 16 ? b[1 + i] & 15 : b[1 + i - 16] >> 4;
      const int exponent = e2m1 >> 1 & 3, mantissa = e2m1 & 1;
      const double magnitude =
          exponent == 0 ? 0.5 * mantissa : std::ldexp(1 + 0.5 * mantissa, exponent - 1);
      return std::ldexp(e2m1 >= 8 ? -magnitude : magnitude, b[0] - 127);
    }
  }
  return 0;
}

}  // namespace

std::vector<uint8_t> RandomWeights(DType type, size_t rows, size_t cols, std::mt19937& rng) {
  const Block block = BlockOf(type);
  std::vector<uint8_t> raw(rows * cols / block.cols * block.bytes);
  for (uint8_t& b : raw) b = static_cast<uint8_t>(rng());
  std::normal_distribution<float> normal;
  for (size_t at = 0; at < raw.size(); at += block.bytes) {
    uint8_t* b = raw.data() + at;
    switch (type) {
      case DType::kF32: {
        const float f = normal(rng);
        std::memcpy(b, &f, 4);
        break;
      }
      case DType::kF16:
        PutHalf(b, std::abs(normal(rng)) + 1e-3, true, rng);
        break;
      case DType::kBF16: {
        const uint32_t bits = std::bit_cast<uint32_t>(normal(rng));
        b[0] = static_cast<uint8_t>(bits >> 16);
        b[1] = static_cast<uint8_t>(bits >> 24);
        break;
      }
      case DType::kQ8_0:
        PutHalf(b, 0.008, true, rng);
        break;
      case DType::kQ4_0:
        PutHalf(b, 0.1, true, rng);
        break;
      case DType::kQ4_1:
      case DType::kQ5_1:
        PutHalf(b, type == DType::kQ4_1 ? 0.1 : 0.05, true, rng);
        PutHalf(b + 2, 0.7, true, rng);
        break;
      case DType::kQ5_0:
        PutHalf(b, 0.06, true, rng);
        break;
      case DType::kQ2_K:
        PutHalf(b + 80, 0.04, false, rng);
        PutHalf(b + 82, 0.06, false, rng);
        break;
      case DType::kQ3_K:
        PutHalf(b + 108, 0.01, true, rng);
        break;
      case DType::kQ4_K:
      case DType::kQ5_K:
        PutHalf(b, type == DType::kQ4_K ? 0.002 : 0.001, false, rng);
        PutHalf(b + 2, 0.015, false, rng);
        break;
      case DType::kQ6_K:
        PutHalf(b + 208, 0.0003, true, rng);
        break;
      case DType::kIQ4_NL:
        PutHalf(b, 0.006, true, rng);
        break;
      case DType::kIQ4_XS:
        PutHalf(b, 0.0003, true, rng);
        break;
      case DType::kTQ1_0:
        PutHalf(b + 52, 0.5, true, rng);
        break;
      case DType::kTQ2_0:
        PutHalf(b + 64, 0.5, true, rng);
        break;
      case DType::kMXFP4:
        b[0] = static_cast<uint8_t>(122 + rng() % 5);
        break;
    }
  }
  return raw;
}

double WeightAt(DType type, const std::vector<uint8_t>& raw, size_t cols, size_t row, size_t col) {
  const Block block = BlockOf(type);
  const uint8_t* b = raw.data() + (row * cols + col) / block.cols * block.bytes;
  return BlockWeight(type, b, col % block.cols);
}

std::vector<float> RandomRows(size_t rows, size_t cols, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> x(rows * cols);
  for (float& v : x) v = normal(rng);
  return x;
}

}  // namespace snug::testing
