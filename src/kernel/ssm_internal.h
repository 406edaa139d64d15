// What the recurrences share; not for other folders.
#pragma once

#include <cstddef>
#include <cstring>

namespace snug {

// Floats [at, at + n) of the state that steps start from.
inline void BeginState(const float* from, size_t at, size_t n, float* to) {
  if (from == nullptr) {
    std::memset(to + at, 0, n * sizeof(float));
  } else {
    std::memcpy(to + at, from + at, n * sizeof(float));
  }
}

}  // namespace snug
