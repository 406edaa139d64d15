#include "format/quantize.h"

#include <cassert>
#include <cstring>

namespace snug {
namespace {

template <uint16_t (*kEncode)(float)>
void EncodeWords(const float* src, size_t n, uint8_t* dst) {
  for (size_t i = 0; i < n; ++i) {
    const uint16_t word = kEncode(src[i]);
    std::memcpy(dst + 2 * i, &word, 2);
  }
}

}  // namespace

bool CanQuantize(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

void Quantize(DType type, const float* src, size_t n, const float*, uint8_t* dst) {
  assert(CanQuantize(type));
  switch (type) {
    case DType::kF16:
      return EncodeWords<FloatToHalf>(src, n, dst);
    case DType::kBF16:
      return EncodeWords<FloatToBFloat>(src, n, dst);
    default:
      std::memcpy(dst, src, n * sizeof(float));
  }
}

}  // namespace snug
