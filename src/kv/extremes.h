// The observation `layer-input extremes`: which tokens of a prompt have the largest elements of the
// residual stream that enters a layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace snug {

// The tokens, ascending, that have the `count` elements of x [tokens, width] that are the largest
// by magnitude; of equal ones the first count. At most `count` tokens.
std::vector<uint32_t> TokensOfExtremes(const float* x, size_t tokens, size_t width, uint32_t count);

}  // namespace snug
