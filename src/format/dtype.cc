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
    {DType::kF32, "F32", 1, 4},       {DType::kF16, "F16", 1, 2},
    {DType::kQ4_0, "Q4_0", 32, 18},   {DType::kQ5_0, "Q5_0", 32, 22},
    {DType::kQ8_0, "Q8_0", 32, 34},   {DType::kQ4_K, "Q4_K", 256, 144},
    {DType::kQ5_K, "Q5_K", 256, 176}, {DType::kQ6_K, "Q6_K", 256, 210},
    {DType::kBF16, "BF16", 1, 2},
};
float Half(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return HalfToFloat(h);
}
void ScaleMin(int j, const uint8_t* q, int* d, int* m) {
  if (j < 4) {
    *d = q[j] & 63;
    *m = q[j + 4] & 63;
  } else {
    *d = (q[j + 4] & 0xF) | ((q[j - 4] >> 6) << 4);
    *m = (q[j + 4] >> 4) | ((q[j] >> 6) << 4);
  }
}
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
void Dequantize(DType type, const uint8_t* src, size_t n, float* dst) {
  switch (type) {
    case DType::kF32:
      std::memcpy(dst, src, n * 4);
      return;
    case DType::kF16:
      for (size_t i = 0; i < n; ++i) dst[i] = Half(src + 2 * i);
      return;
    case DType::kBF16:
      for (size_t i = 0; i < n; ++i) {
        uint16_t b;
        std::memcpy(&b, src + 2 * i, 2);
        dst[i] = BFloatToFloat(b);
      }
      return;
    case DType::kQ8_0:
      for (; n; n -= 32, src += 34, dst += 32) {
        float d = Half(src);
        for (int i = 0; i < 32; ++i) dst[i] = d * static_cast<int8_t>(src[2 + i]);
      }
      return;
    case DType::kQ4_0:
      for (; n; n -= 32, src += 18, dst += 32) {
        float d = Half(src);
        for (int i = 0; i < 16; ++i) {
          dst[i] = d * ((src[2 + i] & 15) - 8);
          dst[i + 16] = d * ((src[2 + i] >> 4) - 8);
        }
      }
      return;
    case DType::kQ5_0:
      for (; n; n -= 32, src += 22, dst += 32) {
        float d = Half(src);
        uint32_t h;
        std::memcpy(&h, src + 2, 4);
        for (int i = 0; i < 16; ++i) {
          int a = (src[6 + i] & 15) | ((h >> i & 1) << 4),
              b = (src[6 + i] >> 4) | ((h >> (i + 16) & 1) << 4);
          dst[i] = d * (a - 16);
          dst[i + 16] = d * (b - 16);
        }
      }
      return;
    case DType::kQ4_K:
      for (; n; n -= 256, src += 144) {
        float d = Half(src), mn = Half(src + 2);
        const uint8_t* q = src + 16;
        for (int j = 0; j < 8; j += 2) {
          int s1, m1, s2, m2;
          ScaleMin(j, src + 4, &s1, &m1);
          ScaleMin(j + 1, src + 4, &s2, &m2);
          for (int l = 0; l < 32; ++l) dst[l] = d * s1 * (q[l] & 15) - mn * m1;
          for (int l = 0; l < 32; ++l) dst[32 + l] = d * s2 * (q[l] >> 4) - mn * m2;
          dst += 64;
          q += 32;
        }
      }
      return;
    case DType::kQ5_K:
      for (; n; n -= 256, src += 176) {
        float d = Half(src), mn = Half(src + 2);
        const uint8_t *h = src + 16, *q = src + 48;
        for (int j = 0; j < 8; j += 2) {
          int s1, m1, s2, m2;
          ScaleMin(j, src + 4, &s1, &m1);
          ScaleMin(j + 1, src + 4, &s2, &m2);
          for (int l = 0; l < 32; ++l)
            dst[l] = d * s1 * ((q[l] & 15) + ((h[l] >> j & 1) << 4)) - mn * m1;
          for (int l = 0; l < 32; ++l)
            dst[32 + l] = d * s2 * ((q[l] >> 4) + ((h[l] >> (j + 1) & 1) << 4)) - mn * m2;
          dst += 64;
          q += 32;
        }
      }
      return;
    case DType::kQ6_K:
      for (; n; n -= 256, src += 210) {
        const uint8_t *ql = src, *qh = src + 128;
        const int8_t* sc = reinterpret_cast<const int8_t*>(src + 192);
        float d = Half(src + 208);
        for (int k = 0; k < 256; k += 128) {
          for (int l = 0; l < 32; ++l) {
            int is = l / 16;
            int a = (ql[l] & 15) | ((qh[l] & 3) << 4),
                b = (ql[l + 32] & 15) | ((qh[l] >> 2 & 3) << 4),
                c = (ql[l] >> 4) | ((qh[l] >> 4 & 3) << 4),
                e = (ql[l + 32] >> 4) | ((qh[l] >> 6) << 4);
            dst[l] = d * sc[is] * (a - 32);
            dst[l + 32] = d * sc[is + 2] * (b - 32);
            dst[l + 64] = d * sc[is + 4] * (c - 32);
            dst[l + 96] = d * sc[is + 6] * (e - 32);
          }
          dst += 128;
          ql += 64;
          qh += 32;
          sc += 8;
        }
      }
      return;
  }
}
}  // namespace snug
