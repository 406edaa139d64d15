#include "format/dtype.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cctype>
#include <cmath>
#include <cstring>

namespace snug {
namespace {
constexpr DTypeInfo kTypes[] = {
    {DType::kF32, "F32", 1, 4},         {DType::kF16, "F16", 1, 2},
    {DType::kQ4_0, "Q4_0", 32, 18},     {DType::kQ4_1, "Q4_1", 32, 20},
    {DType::kQ5_0, "Q5_0", 32, 22},     {DType::kQ5_1, "Q5_1", 32, 24},
    {DType::kQ8_0, "Q8_0", 32, 34},     {DType::kQ2_K, "Q2_K", 256, 84},
    {DType::kQ3_K, "Q3_K", 256, 110},   {DType::kQ4_K, "Q4_K", 256, 144},
    {DType::kQ5_K, "Q5_K", 256, 176},   {DType::kQ6_K, "Q6_K", 256, 210},
    {DType::kIQ4_NL, "IQ4_NL", 32, 18}, {DType::kIQ4_XS, "IQ4_XS", 256, 136},
    {DType::kBF16, "BF16", 1, 2},       {DType::kTQ1_0, "TQ1_0", 256, 54},
    {DType::kTQ2_0, "TQ2_0", 256, 66},  {DType::kMXFP4, "MXFP4", 32, 17},
};
}  // namespace
const DTypeInfo* FindDType(uint32_t id) {
  for (auto& t : kTypes)
    if (static_cast<uint32_t>(t.type) == id) return &t;
  return nullptr;
}
const DTypeInfo& Info(DType type) {
  const DTypeInfo* i = FindDType(static_cast<uint32_t>(type));
  assert(i);
  return *i;
}
float HalfToFloat(uint16_t h) {
  const uint32_t s = (h & 0x8000u) << 16, e = (h >> 10) & 31, m = h & 1023;
  if (e == 0) {
    float f = std::ldexp(static_cast<float>(m), -24);
    return s ? -f : f;
  }
  if (e == 31) return std::bit_cast<float>(s | 0x7f800000u | m << 13);
  return std::bit_cast<float>(s | (e + 112) << 23 | m << 13);
}
uint16_t FloatToHalf(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return sign | 0x7e00u;
  if (a >= 0x477ff000u) return sign | 0x7c00u;  // rounds past 65504
  if (a < 0x38800000u) {                        // subnormal half: the sum rounds at the right bit
    const float shifted = std::bit_cast<float>(a) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((a + 0xfffu + ((a >> 13) & 1) - 0x38000000u) >> 13));
}
float Mxfp4Scale(uint8_t e) { return std::ldexp(1.0f, e - 128); }
std::optional<DType> ParseDType(std::string_view name) {
  auto same = [](char a, char b) { return std::toupper(static_cast<unsigned char>(a)) == b; };
  for (const DTypeInfo& t : kTypes) {
    if (std::equal(name.begin(), name.end(), t.name.begin(), t.name.end(), same)) return t.type;
  }
  return std::nullopt;
}
float BFloatToFloat(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }
uint16_t FloatToBFloat(float f) {
  uint32_t u = std::bit_cast<uint32_t>(f);
  if (f != f) return static_cast<uint16_t>(u >> 16 | 64);
  return static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
}  // namespace snug
