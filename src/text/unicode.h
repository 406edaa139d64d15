// UTF-8 and the three character classes that pre-tokenizers know.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace snug {

struct UnicodeRange {
  uint32_t first, last;
};
extern const UnicodeRange kLetters[], kNumbers[];
extern const size_t kLettersCount, kNumbersCount;

enum class CharClass : uint8_t { kLetter, kNumber, kSpace, kOther };
CharClass ClassOf(uint32_t code_point);

struct CodePoint {
  uint32_t value = 0;
  uint32_t bytes = 1;
};
// The code point at text[i]; a byte that starts no valid sequence counts as U+FFFD of one byte.
CodePoint DecodeUtf8(std::string_view text, size_t i);

}  // namespace snug
