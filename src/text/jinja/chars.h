// Characters as Python's str sees them: spaces, case, how repr() and HTML escape them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/unicode.h"

namespace snug::jinja {

// str.isspace(), also what strip() and regular expressions take for white space.
bool IsSpace(uint32_t c);
// Where the white space at the start of `s` ends; where that at its end begins.
size_t SkipSpaces(std::string_view s, size_t at);
size_t BeforeSpaces(std::string_view s);
// The character that ends before s[end].
CodePoint DecodeBefore(std::string_view s, size_t end);

enum class Case : uint8_t { kUpper, kLower, kTitle, kFold };
// Appends the character in that case, which may be several characters.
void AppendCase(uint32_t c, Case to, std::string* out);
// Whole strings; lower case knows the final sigma.
std::string ToCase(std::string_view s, Case to);
// 'A' is kUpper, 'a' kLower; false for what has no case.
bool HasCase(uint32_t c, Case which);

bool IsWordChar(uint32_t c);  // letters, numbers, _
bool IsPrintable(uint32_t c);

void AppendUtf8(uint32_t c, std::string* out);
// The text as repr() writes it, quotes included.
std::string Quote(std::string_view s, bool ascii = false);
std::string EscapeHtml(std::string_view s);

// The tables of case_tables.cc.
struct CaseRun {
  uint32_t first, last, step;
  int32_t delta;
};
struct UnicodeRange {
  uint32_t first, last;
};
struct CaseText {
  uint32_t c;
  const char* text;
};
extern const CaseRun kUpper[], kLower[], kTitle[], kFold[];
extern const CaseText kUpperText[], kLowerText[], kTitleText[], kFoldText[];
extern const UnicodeRange kEscaped[];
extern const size_t kUpperCount, kLowerCount, kTitleCount, kFoldCount;
extern const size_t kUpperTextCount, kLowerTextCount, kTitleTextCount, kFoldTextCount;
extern const size_t kEscapedCount;

}  // namespace snug::jinja
