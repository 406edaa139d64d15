// Encoders of stored types that take one pass over a block: the scale follows from the block's
// extremes, each weight goes to its nearest code. Those of the types that the PyPI package gguf
// encodes give its bytes. No search and no importance: better codes for the same bytes exist.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/dtype.h"

namespace snug {

// Whether QuantizeSimple encodes this type.
bool HasSimpleQuantizer(DType type);
// Encodes `n` finite weights (a multiple of the block) to n / block * bytes at `dst`. What is not
// finite gives some code, never a fault. `type` must be one that HasSimpleQuantizer knows.
void QuantizeSimple(DType type, const float* src, size_t n, uint8_t* dst);

}  // namespace snug
