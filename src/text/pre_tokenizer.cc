#include "text/pre_tokenizer.h"

#include <algorithm>
#include <iterator>

#include "text/byte_alphabet.h"
#include "text/unicode.h"

namespace snug {
namespace {

// Walks the characters of a text.
struct Cursor {
  Cursor(std::string_view t, size_t i) : text(t), at(i) { Load(); }
  void Load() {
    if (at >= text.size()) {
      bits = kIsEnd;
      value = UINT32_MAX;
      bytes = 0;
      return;
    }
    const CodePoint c = DecodeUtf8(text, at);
    value = c.value;
    bytes = c.bytes;
    bits = CharTable::Get()[value];
  }
  bool end() const { return (bits & kIsEnd) != 0; }
  bool Is(CharBits any) const { return (bits & any) != 0; }
  bool newline() const { return value == '\n' || value == '\r'; }
  void Step() {
    at += bytes;
    Load();
  }
  Cursor Next() const {
    Cursor c = *this;
    c.Step();
    return c;
  }
  void Skip(CharBits any) {
    while (Is(any)) Step();
  }
  void SkipNot(CharBits any) {
    while (!Is(any | kIsEnd)) Step();
  }
  void SkipNewlines(bool and_slash = false) {
    while (newline() || (and_slash && value == '/')) Step();
  }

  std::string_view text;
  size_t at;
  uint32_t value, bytes;
  CharBits bits;
};

// Each scanner returns the bytes of the match that starts at the cursor, 0 where there is none.

// 's|'t|'re|'ve|'m|'ll|'d, with any_case as (?i:...), where the long s is an s too.
size_t Contraction(const Cursor& c, bool any_case) {
  if (c.value != '\'') return 0;
  const std::string_view text = c.text;
  const auto letter = [&](size_t j) {
    const char ch = j < text.size() ? text[j] : '\0';
    return any_case && ch >= 'A' && ch <= 'Z' ? static_cast<char>(ch - 'A' + 'a') : ch;
  };
  const char a = letter(c.at + 1), b = letter(c.at + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return any_case && text.substr(c.at + 1, 2) == "\u017F" ? 3 : 0;
}

// `\s+(?!\S)|\s+`: a run of white space, less its last character where a word follows.
size_t SpaceRun(Cursor c) {
  const size_t start = c.at;
  size_t last = start;
  while (c.Is(kIsSpace)) {
    last = c.at;
    c.Step();
  }
  return (c.end() || last == start ? c.at : last) - start;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t Gpt2(Cursor c) {
  if (const size_t n = Contraction(c, false)) return n;
  const Cursor first = c;
  if (c.value == ' ') c.Step();
  if (c.Is(kIsSpace | kIsEnd)) return SpaceRun(first);
  if (c.Is(kIsLetter | kIsNumber)) {
    c.Skip(c.Is(kIsLetter) ? kIsLetter : kIsNumber);
  } else {
    c.SkipNot(kIsLetter | kIsNumber | kIsSpace);
  }
  return c.at - first.at;
}

// \s*[\r\n]+|\s+(?!\S)|\s+
size_t SpacesAndNewlines(const Cursor& c) {
  size_t past_newline = 0;
  for (Cursor s = c; s.Is(kIsSpace); s.Step())
    if (s.newline()) past_newline = s.at + 1;
  return past_newline != 0 ? past_newline - c.at : SpaceRun(c);
}

// What the expressions of Qwen 2, Llama 3 and their kin share:
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?LETTERS+|\p{N}{1,digits}|
//   ?[^\s LETTERS \p{N}]+TAIL|\s*[\r\n]+|\s+(?!\S)|\s+
struct Family {
  int digits;
  CharBits letters = kIsLetter;
  bool tail = true;  // [\r\n]*
};

size_t Numbers(Cursor c, int most) {
  const size_t start = c.at;
  for (; most > 0 && c.Is(kIsNumber); --most) c.Step();
  return c.at - start;
}

size_t ScanFamily(const Family& f, Cursor c) {
  if (const size_t n = Contraction(c, true)) return n;
  const size_t start = c.at;
  if (c.Is(kIsNumber)) return Numbers(c, f.digits);
  // The optional first character may itself be a mark of LETTERS; either way the run is the same.
  if (!c.Is(f.letters) && !c.newline() && c.Next().Is(f.letters)) c.Step();
  if (c.Is(f.letters)) {
    c.Skip(f.letters);
    return c.at - start;
  }
  const CharBits words = f.letters | kIsNumber | kIsSpace;
  if (c.value == ' ' && !c.Next().Is(words | kIsEnd)) c.Step();
  if (!c.Is(words)) {
    c.SkipNot(words);
    if (f.tail) c.SkipNewlines();
    return c.at - start;
  }
  return SpacesAndNewlines(c);
}

// UPPER = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], LOWER = [\p{Ll}\p{Lm}\p{Lo}\p{M}]:
//   UPPER*LOWER+ or, where that fails, UPPER+LOWER*
constexpr CharBits kUpperWord = kIsUpper | kIsTitle | kIsModifier | kIsOtherLetter | kIsMark,
                   kLowerWord = kIsLower | kIsModifier | kIsOtherLetter | kIsMark;

size_t UpperThenLower(Cursor c, bool need_lower) {
  const size_t start = c.at;
  size_t past_both = 0;  // the end of the last character of the UPPER run that is in LOWER too
  while (c.Is(kUpperWord)) {
    const bool both = c.Is(kLowerWord);
    c.Step();
    if (both) past_both = c.at;
  }
  const size_t upper = c.at;
  c.Skip(kLowerWord);
  if (c.at > upper) return c.at - start;
  if (need_lower) return past_both != 0 ? past_both - start : 0;
  return upper - start;
}

// [^\r\n\p{L}\p{N}]?UPPER*LOWER+(SUFFIX)?|[^\r\n\p{L}\p{N}]?UPPER+LOWER*(SUFFIX)?|\p{N}{1,digits}|
//  ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+, SUFFIX = (?i:'s|'t|'re|'ve|'m|'ll|'d)
size_t CaseWords(Cursor c, int digits, bool suffix) {
  if (c.Is(kIsNumber)) return Numbers(c, digits);
  const Cursor first = c;
  for (const bool need_lower : {true, false}) {
    for (const bool prefix : {true, false}) {
      if (prefix && (first.Is(kIsLetter) || first.newline())) continue;
      const Cursor word = prefix ? first.Next() : first;
      const size_t n = UpperThenLower(word, need_lower);
      if (n == 0) continue;
      const size_t end = word.at + n;
      return end - first.at + (suffix ? Contraction(Cursor(c.text, end), true) : 0);
    }
  }
  constexpr CharBits kWords = kIsLetter | kIsNumber | kIsSpace;
  if (c.value == ' ' && !c.Next().Is(kWords | kIsEnd)) c.Step();
  if (!c.Is(kWords)) {
    c.SkipNot(kWords);
    c.SkipNewlines(true);
    return c.at - first.at;
  }
  return SpacesAndNewlines(first);
}

bool IsAsciiLetter(uint32_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
bool IsAsciiPunctuation(uint32_t c) {
  return c > 0x20 && c < 0x7F && !IsAsciiLetter(c) && (c < '0' || c > '9');
}

// [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|
// \s*[\r\n]+|\s+(?!\S)|\s+
size_t DeepSeek3(Cursor c) {
  const Cursor first = c;
  if (IsAsciiPunctuation(c.value)) {
    c.Step();
    if (c.value < 0x80 && IsAsciiLetter(c.value)) {
      while (c.value < 0x80 && IsAsciiLetter(c.value)) c.Step();
      return c.at - first.at;
    }
    c = first;
  }
  constexpr CharBits kWords = kIsLetter | kIsMark, kSigns = kIsPunctuation | kIsSymbol;
  if (!c.Is(kIsLetter | kSigns) && !c.newline() && c.Next().Is(kWords)) c.Step();
  if (c.Is(kWords)) {
    c.Skip(kWords);
    return c.at - first.at;
  }
  if (c.value == ' ' && c.Next().Is(kSigns)) c.Step();
  if (c.Is(kSigns)) {
    c.Skip(kSigns);
    c.SkipNewlines();
    return c.at - first.at;
  }
  return c.Is(kIsSpace) ? SpacesAndNewlines(first) : 0;
}

struct Range {
  uint32_t first, last;
};
template <size_t N>
bool In(const Range (&ranges)[N], uint32_t c) {
  const Range* r = std::lower_bound(std::begin(ranges), std::end(ranges), c,
                                    [](const Range& a, uint32_t v) { return a.last < v; });
  return r != std::end(ranges) && r->first <= c;
}

// The letters with case that DeepSeek LLM's expression lists.
constexpr Range kDeepSeekLetters[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},
    {0xD8, 0xF6},       {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},
    {0x295, 0x2AF},     {0x370, 0x373},     {0x376, 0x376},     {0x377, 0x377},
    {0x37B, 0x37D},     {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},
    {0x38C, 0x38C},     {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},
    {0x48A, 0x52F},     {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},
    {0x13F8, 0x13FD},   {0x1C90, 0x1CBA},   {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},
    {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},   {0x1F18, 0x1F1D},
    {0x1F20, 0x1F45},   {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},
    {0x1F5B, 0x1F5B},   {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},
    {0x1FB6, 0x1FBC},   {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},
    {0x1FD0, 0x1FD3},   {0x1FD6, 0x1FDB},   {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},
    {0x1FF6, 0x1FFC},   {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210A, 0x2113},
    {0x2115, 0x2115},   {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},
    {0x2128, 0x2128},   {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},
    {0x213C, 0x213F},   {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2183},
    {0x2184, 0x2184},   {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},   {0x2CEB, 0x2CEE},
    {0x2CF2, 0x2CF2},   {0x2CF3, 0x2CF3},   {0xA640, 0xA66D},   {0xA680, 0xA69B},
    {0xA722, 0xA76F},   {0xA771, 0xA787},   {0xA78B, 0xA78E},   {0xAB70, 0xABBF},
    {0xFB00, 0xFB06},   {0xFB13, 0xFB17},   {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},
    {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB}, {0x10C80, 0x10CB2},
    {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};
constexpr Range kDeepSeekPunctuation[] = {
    {'!', '/'}, {':', '~'}, {0x2018, 0x201F}, {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E},
};
constexpr Range kDeepSeekCjk[] = {{0x800, 0x4E00}, {0x4E00, 0x9FA5}, {0xAC00, 0xD7FF}};
constexpr Range kDeepSeekKana[] = {{0x3040, 0x309F}, {0x30A0, 0x30FF}, {0x4E00, 0x9FA5}};
// What ends a word of Bloom's, besides white space.
constexpr Range kBloomStops[] = {
    {'(', ')'},       {',', ','},       {'.', '.'},       {'?', '?'},
    {'|', '|'},       {0x60C, 0x60C},   {0x6D4, 0x6D4},   {0x964, 0x964},
    {0x2026, 0x2026}, {0x3001, 0x3002}, {0xFF0C, 0xFF0C},
};

// A run of characters for which in(cursor) is true, after `optional` first character.
template <class Inside>
size_t Run(Cursor c, CharBits optional, const Inside& inside) {
  const size_t start = c.at;
  if (!inside(c) && c.Is(optional)) c.Step();
  if (c.end() || !inside(c)) return 0;
  while (!c.end() && inside(c)) c.Step();
  return c.at - start;
}

bool IsPunctuation(const Cursor& c) { return c.Is(kIsPunctuation) || IsAsciiPunctuation(c.value); }

}  // namespace

// \w of Unicode (UTS 18, annex C): letters, marks, digits, connectors, joiners, and what else is
// Alphabetic, which is letter numbers and the circled and squared Latin letters.
bool IsWordCharacter(uint32_t value) {
  const CharBits bits = CharTable::Get()[value];
  constexpr Range kAlphabeticSymbols[] = {
      {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
  if ((bits & (kIsLetter | kIsMark | kIsDecimal | kIsConnector | kIsLetterNumber)) != 0)
    return true;
  return value == 0x200C || value == 0x200D || In(kAlphabeticSymbols, value);
}

namespace {

size_t Match(Cut cut, const Cursor& c) {
  switch (cut) {
    case Cut::kGpt2:
      return Gpt2(c);
    case Cut::kQwen2:
      return ScanFamily({1}, c);
    case Cut::kQwen35:
      return ScanFamily({1, kIsLetter | kIsMark}, c);
    case Cut::kLlama3:
      return ScanFamily({3}, c);
    case Cut::kSeedCoder:
      return ScanFamily({1, kIsLetter, false}, c);
    case Cut::kTekken:
      return CaseWords(c, 1, false);
    case Cut::kGpt4o:
      return CaseWords(c, 3, true);
    case Cut::kDeepSeek3:
      return DeepSeek3(c);
    case Cut::kDeepSeekWord:  // \s?[letters]+
      return Run(c, kIsSpace, [](const Cursor& l) { return In(kDeepSeekLetters, l.value); });
    case Cut::kDeepSeekPunctuation:  // \s?[!-/:-~！-／：-～‘-‟　-。]+, where U+3000 is \s too
      return Run(c, kIsSpace, [](const Cursor& p) { return In(kDeepSeekPunctuation, p.value); });
    case Cut::kDeepSeekCjk:
      return Run(c, 0, [](const Cursor& h) { return In(kDeepSeekCjk, h.value); });
    case Cut::kDeepSeekKana:
      return Run(c, 0, [](const Cursor& h) { return In(kDeepSeekKana, h.value); });
    case Cut::kLetters:
      return Run(c, kIsSpace, [](const Cursor& l) { return l.Is(kIsLetter); });
    case Cut::kMarks:
      return Run(c, kIsSpace, [](const Cursor& p) { return p.Is(kIsPunctuation); });
    case Cut::kTrailingSpace: {  // \s+$
      Cursor s = c;
      s.Skip(kIsSpace);
      return s.end() ? s.at - c.at : 0;
    }
    case Cut::kBloom:  //  ?[^(\s|.,!?…。，、।۔،)]+
      return c.value == ' ' || !c.Is(kIsSpace)
                 ? Run(c, kIsSpace,
                       [](const Cursor& w) {
                         return !w.Is(kIsSpace) && w.value != '!' && !In(kBloomStops, w.value);
                       })
                 : 0;
    case Cut::kNewline:
      return c.newline() ? 1 : 0;
    case Cut::kDigit:
      return Numbers(c, 1);
    case Cut::kDigits:
      return Run(c, 0, [](const Cursor& d) { return d.Is(kIsNumber); });
    case Cut::kDigits3:
      return Numbers(c, 3);
    case Cut::kAsciiDigits3: {
      const std::string_view three = c.text.substr(c.at, 3);
      const bool digits = three.find_first_not_of("0123456789") == three.npos;
      return three.size() == 3 && digits ? 3 : 0;
    }
    case Cut::kPunctuation:
      return IsPunctuation(c) ? c.bytes : 0;
    case Cut::kPunctuations:
      return Run(c, 0, IsPunctuation);
    case Cut::kPunctuationsLessGrave:
      return Run(c, 0, [](const Cursor& p) { return p.value != '`' && IsPunctuation(p); });
    case Cut::kSpace:
      return c.Is(kIsSpace) ? c.bytes : 0;
    case Cut::kWord:
      if (c.Is(kIsSpace)) return 0;
      return Run(c, 0, [word = IsWordCharacter(c.value)](const Cursor& w) {
        return !w.Is(kIsSpace) && IsWordCharacter(w.value) == word;
      });
    case Cut::kText:
    case Cut::kMetaspaceNever:
    case Cut::kMetaspaceFirst:
    case Cut::kMetaspaceAlways:
    case Cut::kPrefixSpace:
    case Cut::kByteAlphabet:
      break;
  }
  return 0;
}

}  // namespace

std::string_view ChangePiece(const CutStep& step, std::string_view piece, bool begins_input,
                             std::string* buffer) {
  if (step.cut == Cut::kPrefixSpace && (piece.empty() || piece[0] == ' ')) return piece;
  buffer->clear();
  if (step.cut == Cut::kByteAlphabet) {
    AppendAsChars(piece, buffer);
  } else if (step.cut == Cut::kPrefixSpace) {
    buffer->append(" ").append(piece);
  } else {
    const bool prepend =
        step.cut == Cut::kMetaspaceAlways || (step.cut == Cut::kMetaspaceFirst && begins_input);
    const bool has = piece.substr(0, 1) == " " || piece.substr(0, step.text.size()) == step.text;
    if (prepend && !has) buffer->append(step.text);
    for (const char c : piece) {
      if (c == ' ') {
        buffer->append(step.text);
      } else {
        buffer->push_back(c);
      }
    }
  }
  return *buffer;
}

std::string DeepSeekWordExpression() {
  std::string text = R"(\s?[)";
  for (const Range& r : kDeepSeekLetters) {
    AppendUtf8(r.first, &text);
    if (r.last == r.first) continue;
    text += '-';
    AppendUtf8(r.last, &text);
  }
  return text + "]+";
}

Piece NextPiece(const CutStep& step, std::string_view text, size_t i) {
  if (step.cut == Cut::kText) {
    const size_t at = step.text.empty() ? text.npos : text.find(step.text, i);
    if (at == i) return {step.text.size(), true};
    return {std::min(at, text.size()) - i, false};
  }
  Cursor c(text, i);
  if (const size_t n = Match(step.cut, c)) return {n, true};
  do {
    // Of a run of white space that does not end the text, no part does.
    if (step.cut == Cut::kTrailingSpace && c.Is(kIsSpace)) {
      c.Skip(kIsSpace);
    } else {
      c.Step();
    }
  } while (!c.end() && Match(step.cut, c) == 0);
  return {c.at - i, false};
}

}  // namespace snug
