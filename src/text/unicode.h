// UTF-8, and what pre-tokenizers and normalizers ask of a character (Unicode Character Database).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace snug {

struct CodePoint {
  uint32_t value = 0;
  uint32_t bytes = 1;
};
CodePoint DecodeMultibyte(std::string_view text, size_t i);
// The code point at text[i]; a byte that starts no valid sequence counts as U+FFFD of one byte.
inline CodePoint DecodeUtf8(std::string_view text, size_t i) {
  const auto byte = static_cast<uint8_t>(text[i]);
  return byte < 0x80 ? CodePoint{byte, 1} : DecodeMultibyte(text, i);
}
void AppendUtf8(uint32_t code_point, std::string* out);

// What a character is, as bits: its general category (letters apart by case; the rest by major
// class, with those apart that some expression names) and White_Space.
using CharBits = uint32_t;
inline constexpr CharBits kIsUpper = 1 << 0, kIsLower = 1 << 1, kIsTitle = 1 << 2,
                          kIsModifier = 1 << 3, kIsOtherLetter = 1 << 4, kIsNonspacing = 1 << 5,
                          kIsOtherMark = 1 << 6, kIsDecimal = 1 << 7, kIsLetterNumber = 1 << 8,
                          kIsOtherNumber = 1 << 9, kIsConnector = 1 << 10,
                          kIsOtherPunctuation = 1 << 11, kIsSymbol = 1 << 12,
                          kIsControl = 1 << 13,                    // Cc, Cf, Cn, Co, Cs
    kIsSeparator = 1 << 14, kIsSpace = 1 << 15, kIsEnd = 1 << 16;  // past the text
inline constexpr CharBits kIsLetter = kIsUpper | kIsLower | kIsTitle | kIsModifier | kIsOtherLetter,
                          kIsMark = kIsNonspacing | kIsOtherMark,
                          kIsNumber = kIsDecimal | kIsLetterNumber | kIsOtherNumber,
                          kIsPunctuation = kIsConnector | kIsOtherPunctuation;

class CharTable {
 public:
  // Built on first use (64 KiB).
  static const CharTable& Get();

  CharBits operator[](uint32_t code_point) const {
    return kBits[code_point < plane_.size() ? plane_[code_point] : Search(code_point)];
  }

 private:
  CharTable();
  static uint8_t Search(uint32_t code_point);
  static const std::array<CharBits, 32> kBits;  // by kind
  std::array<uint8_t, 0x10000> plane_;          // kinds of the basic plane
};

// The simple lower case; the character itself where there is none.
uint32_t LowerOf(uint32_t code_point);

// The generated tables.
struct MapRun {  // code points from first to last, step apart, map to themselves plus delta
  uint32_t first, last, step;
  int32_t delta;
};
// The code point that the runs, sorted by first, map `code_point` to, or itself.
uint32_t MapByRuns(const MapRun* runs, size_t n, uint32_t code_point);
extern const uint32_t kKindRuns[];  // where a kind begins: the code point << 8 | kind
extern const size_t kKindRunsCount;
extern const MapRun kLowerRuns[];
extern const size_t kLowerRunsCount;

}  // namespace snug
