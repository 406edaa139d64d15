// Element types of stored tensors, numbered as GGUF numbers them (ggml, docs/gguf.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace snug {

enum class DType : uint8_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

struct DTypeInfo {
  DType type;
  std::string_view name;  // "Q4_K"
  uint32_t block;         // weights per block along a row
  uint32_t bytes;         // bytes per block
};
// Null for ids this build does not read.
const DTypeInfo* FindDType(uint32_t gguf_id);
const DTypeInfo& Info(DType type);
std::optional<DType> ParseDType(std::string_view name);  // any case
// Bytes of a row of `cols` weights; cols must be a multiple of the block.
inline uint64_t RowBytes(DType type, uint64_t cols) {
  const DTypeInfo& i = Info(type);
  return cols / i.block * i.bytes;
}

// What the sixteen nibbles of IQ4_NL and IQ4_XS (ggml) and of MXFP4 (OCP Microscaling Formats 1.0,
// E2M1, doubled to integers) mean, times the block's scale.
inline constexpr int8_t kIq4Codes[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int8_t kMxfp4Codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
// MXFP4's scale of doubled codes from the block's exponent: 2^(e - 128).
float Mxfp4Scale(uint8_t e);

// The slow, obvious reference: `n` weights (a multiple of the block) of `type` to float32.
void Dequantize(DType type, const uint8_t* src, size_t n, float* dst);
inline constexpr float kMaxHalf = 65504;  // the largest finite f16
float HalfToFloat(uint16_t h);
uint16_t FloatToHalf(float f);  // round to nearest even
float BFloatToFloat(uint16_t b);
uint16_t FloatToBFloat(float f);  // round to nearest even; NaN stays NaN

}  // namespace snug
