#include "text/unicode.h"

#include <algorithm>

namespace snug {

// In the order of make_unicode_tables.py; the second half is White_Space too.
const std::array<CharBits, 32> CharTable::kBits = [] {
  constexpr CharBits kOrder[] = {kIsControl,          kIsUpper,        kIsLower,       kIsTitle,
                                 kIsModifier,         kIsOtherLetter,  kIsNonspacing,  kIsOtherMark,
                                 kIsDecimal,          kIsLetterNumber, kIsOtherNumber, kIsConnector,
                                 kIsOtherPunctuation, kIsSymbol,       kIsSeparator,   0};
  std::array<CharBits, 32> bits{};
  for (size_t i = 0; i < 16; ++i) {
    bits[i] = kOrder[i];
    bits[i + 16] = kOrder[i] | kIsSpace;
  }
  return bits;
}();

CharTable::CharTable() {
  for (size_t i = 0; i < kKindRunsCount; ++i) {
    const size_t first = kKindRuns[i] >> 8;
    if (first >= plane_.size()) break;
    const size_t end = i + 1 < kKindRunsCount ? kKindRuns[i + 1] >> 8 : plane_.size();
    std::fill(plane_.begin() + static_cast<ptrdiff_t>(first),
              plane_.begin() + static_cast<ptrdiff_t>(std::min(end, plane_.size())),
              static_cast<uint8_t>(kKindRuns[i]));
  }
}

const CharTable& CharTable::Get() {
  static const CharTable table;
  return table;
}

uint8_t CharTable::Search(uint32_t code_point) {
  const uint32_t* after =
      std::upper_bound(kKindRuns, kKindRuns + kKindRunsCount, code_point << 8 | 0xFF);
  return static_cast<uint8_t>(after[-1]);
}

uint32_t MapByRuns(const MapRun* runs, size_t n, uint32_t c) {
  const MapRun* r =
      std::lower_bound(runs, runs + n, c, [](const MapRun& a, uint32_t v) { return a.last < v; });
  if (r == runs + n || c < r->first || (c - r->first) % r->step != 0) return c;
  return c + static_cast<uint32_t>(r->delta);
}

uint32_t LowerOf(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return MapByRuns(kLowerRuns, kLowerRunsCount, c);
}

CodePoint DecodeMultibyte(std::string_view text, size_t i) {
  const auto at = [&](size_t j) { return j < text.size() ? static_cast<uint8_t>(text[j]) : 0u; };
  const uint32_t b = at(i);
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

void AppendUtf8(uint32_t c, std::string* out) {
  const auto tail = [&](int shift) {
    out->push_back(static_cast<char>(0x80 | (c >> shift & 0x3F)));
  };
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace snug
