// How GgufFile keeps one metadata value.
#pragma once

#include <string>

#include "format/gguf.h"

namespace snug {

struct GgufFile::Value {
  GgufType type = GgufType::kU8;
  uint64_t bits = 0;  // integers (sign-extended), bools, and the bit pattern of a double for floats
  std::string text;   // strings
  GgufArray array;    // arrays
};

// Bytes of a scalar of that type, 0 for strings and arrays.
uint32_t GgufScalarBytes(GgufType type);
const char* GgufTypeName(GgufType type);

}  // namespace snug
