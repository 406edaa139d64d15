#include "text/unicode.h"

#include <algorithm>

namespace snug {
namespace {

bool In(const UnicodeRange* ranges, size_t n, uint32_t c) {
  const UnicodeRange* r = std::lower_bound(
      ranges, ranges + n, c, [](const UnicodeRange& a, uint32_t v) { return a.last < v; });
  return r != ranges + n && r->first <= c;
}

bool IsSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

}  // namespace

CharClass ClassOf(uint32_t c) {
  if (c < 0x80) {
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return CharClass::kLetter;
    if (c >= '0' && c <= '9') return CharClass::kNumber;
    return IsSpace(c) ? CharClass::kSpace : CharClass::kOther;
  }
  if (In(kLetters, kLettersCount, c)) return CharClass::kLetter;
  if (In(kNumbers, kNumbersCount, c)) return CharClass::kNumber;
  return IsSpace(c) ? CharClass::kSpace : CharClass::kOther;
}

CodePoint DecodeUtf8(std::string_view text, size_t i) {
  const auto at = [&](size_t j) { return j < text.size() ? static_cast<uint8_t>(text[j]) : 0u; };
  const uint32_t b = at(i);
  if (b < 0x80) return {b, 1};
  const uint32_t n = b >= 0xc2 && b <= 0xdf   ? 2
                     : b >= 0xe0 && b <= 0xef ? 3
                     : b >= 0xf0 && b <= 0xf4 ? 4
                                              : 0;
  if (n == 0) return {0xfffd, 1};
  uint32_t value = b & (0xff >> (n + 1));
  for (uint32_t k = 1; k < n; ++k) {
    const uint32_t c = at(i + k);
    if ((c & 0xc0) != 0x80) return {0xfffd, 1};
    value = value << 6 | (c & 0x3f);
  }
  // Overlong forms, surrogates and values past the last plane are no characters.
  const bool bad = (n == 3 && value < 0x800) || (n == 4 && (value < 0x10000 || value > 0x10ffff)) ||
                   (value >= 0xd800 && value <= 0xdfff);
  return bad ? CodePoint{0xfffd, 1} : CodePoint{value, n};
}

}  // namespace snug
