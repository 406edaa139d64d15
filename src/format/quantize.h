// Float32 to stored types.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/dtype.h"

namespace snug {

// Whether Quantize encodes this type.
bool CanQuantize(DType type);
// Encodes `n` weights (a multiple of the block) of `type`, one that CanQuantize knows, at dst.
// `importance` [n] weighs the squared error of each weight, or is null.
void Quantize(DType type, const float* src, size_t n, const float* importance, uint8_t* dst);

}  // namespace snug
