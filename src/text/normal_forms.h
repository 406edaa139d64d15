// Unicode normalization forms (UAX 15).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/unicode.h"

namespace snug {

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

// Appends `text` in the form. Bytes that are no valid UTF-8 stay as they are. Time is linear but
// for the sorting of long runs of marks; holds the longest run between two characters that never
// change or combine.
void AppendNormalized(NormalForm form, std::string_view text, std::string* out);

// The generated tables.
struct CanonicalPair {               // sorted by composed
  uint32_t composed, first, second;  // second is 0 for a mapping to one character
  bool composes;                     // takes part in composition
};
struct CompatibleText {  // sorted by code point
  uint32_t code_point;
  uint16_t offset, length;  // of kCompatiblePool
};
struct CombiningRun {  // sorted; the combining class of the code points from first to last
  uint32_t first, last;
  uint8_t combining;
};
extern const CanonicalPair kCanonicalPairs[];
extern const MapRun kCompatibleRuns[];  // full compatibility decompositions of one character
extern const CompatibleText kCompatibleTexts[];  // of more; NFKD where it differs from NFD
extern const uint32_t kCompatiblePool[];
extern const CombiningRun kCombiningRuns[];
extern const size_t kCanonicalPairsCount, kCompatibleRunsCount, kCompatibleTextsCount,
    kCompatiblePoolCount, kCombiningRunsCount;

}  // namespace snug
