#include "text/normalizer.h"

#include <algorithm>

#include "text/byte_alphabet.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace snug {

void ReplaceAll(std::string_view text, std::string_view from, std::string_view to,
                std::string* out) {
  for (size_t at; (at = text.find(from)) != text.npos; text.remove_prefix(at + from.size()))
    out->append(text.substr(0, at)).append(to);
  out->append(text);
}

namespace {

using Kind = NormalStep::Kind;

// Calls character(code point, its bytes) for each; bytes that are no valid UTF-8 count as U+FFFD.
template <class Fn>
void ForEachCharacter(std::string_view text, const Fn& character) {
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text, i);
    character(c.value, text.substr(i, c.bytes));
    i += c.bytes;
  }
}

void AppendLower(uint32_t c, std::string_view bytes, std::string* out) {
  if (c == 0x130) {  // the one whose lower case is two characters
    out->append("i\u0307");
  } else if (const uint32_t lower = LowerOf(c); lower != c) {
    AppendUtf8(lower, out);
  } else {
    out->append(bytes);
  }
}

void ReplaceRuns(std::string_view text, size_t least, bool any_white, std::string_view to,
                 std::string* out) {
  const CharTable& table = CharTable::Get();
  for (size_t i = 0; i < text.size();) {
    size_t end = i, n = 0;
    while (end < text.size()) {
      const CodePoint c = DecodeUtf8(text, end);
      if (any_white ? (table[c.value] & kIsSpace) == 0 : c.value != ' ') break;
      end += c.bytes;
      ++n;
    }
    if (n >= least) {
      out->append(to);
    } else if (n > 0) {
      out->append(text.substr(i, end - i));
    } else {
      end = i + DecodeUtf8(text, i).bytes;
      out->append(text.substr(i, end - i));
    }
    i = end;
  }
}

std::string_view Strip(std::string_view text, bool left, bool right) {
  const CharTable& table = CharTable::Get();
  size_t first = text.size(), past = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text, i);
    if ((table[c.value] & kIsSpace) == 0) {
      first = std::min(first, i);
      past = i + c.bytes;
    }
    i += c.bytes;
  }
  const size_t begin = left ? first : 0, end = right ? past : text.size();
  return text.substr(begin, end - std::min(begin, end));
}

bool IsIdeograph(uint32_t c) {  // as BERT's normalizer lists them, its slip of 0x2B920 included
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void Bert(const NormalStep& step, std::string_view text, std::string* out, std::string* scratch) {
  const CharTable& table = CharTable::Get();
  scratch->clear();
  ForEachCharacter(text, [&](uint32_t c, std::string_view bytes) {
    const CharBits bits = table[c];
    if (step.clean) {
      if ((bits & kIsSpace) != 0) {
        scratch->push_back(' ');
        return;
      }
      if (c == 0 || c == 0xFFFD || (bits & kIsControl) != 0) return;
    }
    if (step.ideographs && IsIdeograph(c)) {
      scratch->append(" ").append(bytes).append(" ");
    } else {
      scratch->append(bytes);
    }
  });
  std::string decomposed;
  std::string_view rest = *scratch;
  const bool ascii = std::all_of(rest.begin(), rest.end(), [](char c) { return c >= 0; });
  if (step.accents && !ascii) {
    AppendNormalized(NormalForm::kNfd, rest, &decomposed);
    rest = decomposed;
  }
  ForEachCharacter(rest, [&](uint32_t c, std::string_view bytes) {
    if (step.accents && c >= 0x300 && (table[c] & kIsNonspacing) != 0) return;
    if (step.lower) {
      AppendLower(c, bytes, out);
    } else {
      out->append(bytes);
    }
  });
}

void ByRules(const Charsmap& map, const Vocabulary* keep, std::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size();) {
    if (keep != nullptr) {
      if (const auto whole = keep->WholeAt(text, i, false, true); whole.id >= 0) {
        out->append(text.substr(i, whole.end - i));
        i = whole.end;
        continue;
      }
    }
    if (const Charsmap::Match match = map.Find(text.substr(i), true); match.bytes != 0) {
      out->append(match.text);
      i += match.bytes;
      continue;
    }
    const CodePoint c = DecodeUtf8(text, i);
    if (c.bytes == 1 && c.value == 0xFFFD) {
      out->append("\uFFFD");
    } else {
      out->append(text.substr(i, c.bytes));
    }
    i += c.bytes;
  }
}

// Bytes of the grapheme that starts at text[i], where it has up to 5; of longer ones at least 6.
// (UAX 29; of clusters so short only a line's end and marks after a character matter.)
size_t ShortGrapheme(std::string_view text, size_t i) {
  constexpr size_t kEnough = 6;
  const CharTable& table = CharTable::Get();
  const CodePoint first = DecodeUtf8(text, i);
  size_t end = i + first.bytes;
  if (first.value == '\r' && text.substr(end, 1) == "\n") return 2;
  if ((table[first.value] & (kIsControl | kIsSeparator)) != 0 && first.value != ' ' &&
      first.value != 0x200C && first.value != 0x200D)
    return end - i;
  while (end < text.size() && end - i < kEnough) {
    const CodePoint c = DecodeUtf8(text, end);
    if ((table[c.value] & kIsMark) == 0 && c.value != 0x200C && c.value != 0x200D) break;
    end += c.bytes;
  }
  return end - i;
}

void ByCharacter(const Charsmap& map, std::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size();) {
    const size_t cluster = ShortGrapheme(text, i);
    if (cluster < 6) {
      if (const auto match = map.Find(text.substr(i, cluster), false); match.bytes != 0) {
        out->append(match.text);
        i += cluster;
        continue;
      }
    }
    const std::string_view bytes = text.substr(i, DecodeUtf8(text, i).bytes);
    const auto match = map.Find(bytes, false);
    out->append(match.bytes != 0 ? match.text : bytes);
    i += bytes.size();
    // The marks of this grapheme go one by one too.
    if (cluster <= bytes.size()) continue;
    const CharTable& table = CharTable::Get();
    while (i < text.size()) {
      const CodePoint c = DecodeUtf8(text, i);
      if ((table[c.value] & kIsMark) == 0 && c.value != 0x200C && c.value != 0x200D) break;
      const std::string_view mark = text.substr(i, c.bytes);
      const auto m = map.Find(mark, false);
      out->append(m.bytes != 0 ? m.text : mark);
      i += c.bytes;
    }
  }
}

// Controls that go, and characters that become a space, in nmt_nfkc.
void Nmt(std::string_view text, std::string* out) {
  ForEachCharacter(text, [&](uint32_t c, std::string_view bytes) {
    const bool goes = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                      c == 0x8F || c == 0x9F;
    const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    if (!goes) out->append(space ? " " : bytes);
  });
}

void Words(const NormalStep& step, std::string_view text, std::string* out) {
  bool prefixed = false, in_word = false;
  for (const char c : text) {
    if (c == ' ') {
      in_word = false;
      if (!step.merge) out->append(step.to);
      continue;
    }
    if (!in_word && ((step.prefix && !prefixed) || step.merge)) {
      out->append(step.to);
      prefixed = true;
    }
    in_word = true;
    out->push_back(c);
  }
  if (step.suffix) out->append(step.to);
}

void Spaces(const NormalStep& step, std::string_view text, std::string* out) {
  if (step.merge) text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  if (text.empty()) return;
  if (step.prefix) out->append(step.to);
  bool after_space = step.merge;
  for (const char c : text) {
    if (c != ' ') {
      out->push_back(c);
    } else if (!(after_space && step.merge)) {
      out->append(step.to);
    }
    after_space = c == ' ';
  }
  const auto ends = [&] {
    return out->size() >= step.to.size() &&
           out->compare(out->size() - step.to.size(), step.to.size(), step.to) == 0;
  };
  while (step.merge && ends()) out->resize(out->size() - step.to.size());
  if (step.suffix) out->append(step.to);
}

// Bytes that a step makes of `bytes`, at most.
uint64_t MostAfter(const NormalStep& step, const Charsmap* charsmap, uint64_t bytes) {
  constexpr uint64_t kComposed = 3, kCompatible = 11;  // UAX 15, table 5: UTF-8's worst growth
  const bool compatible = step.form == NormalForm::kNfkc || step.form == NormalForm::kNfkd;
  switch (step.kind) {
    case Kind::kForm:
      return (compatible ? kCompatible : kComposed) * bytes;
    case Kind::kPrepend:
      return bytes + step.to.size();
    case Kind::kReplace:
    case Kind::kReplaceSpaces:
    case Kind::kReplaceWhite: {
      const uint64_t least = step.kind == Kind::kReplace ? step.from.size() : 1;
      return std::max(bytes, bytes / std::max<uint64_t>(least, 1) * step.to.size() + least);
    }
    case Kind::kCharsmap:
    case Kind::kCharsmapByCharacter:
      return std::max<uint64_t>(charsmap->longest_text(), 3) * bytes;
    case Kind::kWords:
    case Kind::kSpaces:
      return (bytes + 2) * (step.to.size() + 1);
    case Kind::kBert:
    case Kind::kByteAlphabet:
    case Kind::kLowercase:
      return kComposed * bytes;
    case Kind::kStrip:
    case Kind::kStripAccents:
    case Kind::kNmt:
      break;
  }
  return bytes;
}

}  // namespace

std::string_view Normalize(const std::vector<NormalStep>& steps, const Charsmap* charsmap,
                           const Vocabulary* keep, uint64_t room, std::string_view text,
                           std::string* a, std::string* b) {
  std::string *out = a, *other = b;
  for (const NormalStep& step : steps) {
    if (MostAfter(step, charsmap, text.size()) > room) continue;
    if (step.kind == Kind::kStrip) {
      text = Strip(text, step.left, step.right);
      continue;
    }
    const bool idle =
        (step.kind == Kind::kReplace && (step.from.empty() || text.find(step.from) == text.npos)) ||
        (step.kind == Kind::kPrepend && text.empty());
    if (idle) continue;
    out->clear();
    switch (step.kind) {
      case Kind::kForm:
        AppendNormalized(step.form, text, out);
        break;
      case Kind::kLowercase:
        ForEachCharacter(text,
                         [&](uint32_t c, std::string_view bytes) { AppendLower(c, bytes, out); });
        break;
      case Kind::kPrepend:
        out->reserve(step.to.size() + text.size());
        out->append(step.to).append(text);
        break;
      case Kind::kReplace:
        ReplaceAll(text, step.from, step.to, out);
        break;
      case Kind::kReplaceSpaces:
        ReplaceRuns(text, 2, false, step.to, out);
        break;
      case Kind::kReplaceWhite:
        ReplaceRuns(text, 1, true, step.to, out);
        break;
      case Kind::kStripAccents:
        ForEachCharacter(text, [&](uint32_t c, std::string_view bytes) {
          if ((CharTable::Get()[c] & kIsMark) == 0) out->append(bytes);
        });
        break;
      case Kind::kBert: {
        std::string scratch;
        Bert(step, text, out, &scratch);
        break;
      }
      case Kind::kCharsmap:
        ByRules(*charsmap, keep, text, out);
        break;
      case Kind::kCharsmapByCharacter:
        ByCharacter(*charsmap, text, out);
        break;
      case Kind::kNmt:
        Nmt(text, out);
        break;
      case Kind::kByteAlphabet:
        AppendAsChars(text, out);
        break;
      case Kind::kWords:
        Words(step, text, out);
        break;
      case Kind::kSpaces:
        Spaces(step, text, out);
        break;
      case Kind::kStrip:
        break;
    }
    text = *out;
    std::swap(out, other);
  }
  return text;
}

}  // namespace snug
