#include "text/jinja/chars.h"

#include <fmt/format.h>

#include <algorithm>

namespace snug::jinja {
namespace {

struct CaseTable {
  const CaseRun* runs;
  size_t n_runs;
  const CaseText* texts;
  size_t n_texts;
};

CaseTable TableOf(Case to) {
  switch (to) {
    case Case::kUpper:
      return {kUpper, kUpperCount, kUpperText, kUpperTextCount};
    case Case::kLower:
      return {kLower, kLowerCount, kLowerText, kLowerTextCount};
    case Case::kTitle:
      return {kTitle, kTitleCount, kTitleText, kTitleTextCount};
    case Case::kFold:
      return {kFold, kFoldCount, kFoldText, kFoldTextCount};
  }
  return {};
}

uint32_t MapOne(uint32_t c, const CaseTable& table) {
  const CaseRun* end = table.runs + table.n_runs;
  const CaseRun* r = std::lower_bound(table.runs, end, c,
                                      [](const CaseRun& run, uint32_t v) { return run.last < v; });
  if (r != end && r->first <= c && (c - r->first) % r->step == 0) {
    return static_cast<uint32_t>(static_cast<int64_t>(c) + r->delta);
  }
  return c;
}

constexpr uint32_t kSigma = 0x3a3, kFinalSigma = 0x3c2;

bool IsCased(uint32_t c) { return HasCase(c, Case::kUpper) || HasCase(c, Case::kLower); }

}  // namespace

bool IsSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

size_t SkipSpaces(std::string_view s, size_t at) {
  while (at < s.size()) {
    const CodePoint c = DecodeUtf8(s, at);
    if (!IsSpace(c.value)) break;
    at += c.bytes;
  }
  return at;
}

CodePoint DecodeBefore(std::string_view s, size_t end) {
  for (size_t back = std::min<size_t>(4, end); back > 1; --back) {
    const CodePoint c = DecodeUtf8(s.substr(0, end), end - back);
    if (c.bytes == back) return c;
  }
  return DecodeUtf8(s.substr(0, end), end - 1);
}

size_t BeforeSpaces(std::string_view s) {
  size_t end = s.size();
  while (end > 0) {
    const CodePoint c = DecodeBefore(s, end);
    if (!IsSpace(c.value)) break;
    end -= c.bytes;
  }
  return end;
}

void AppendCase(uint32_t c, Case to, std::string* out) {
  if (c < 0x80) {
    const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    if (letter) c = to == Case::kLower || to == Case::kFold ? c | 0x20 : c & ~0x20u;
    out->push_back(static_cast<char>(c));
    return;
  }
  const CaseTable table = TableOf(to);
  const CaseText* end = table.texts + table.n_texts;
  const CaseText* t = std::lower_bound(table.texts, end, c,
                                       [](const CaseText& text, uint32_t v) { return text.c < v; });
  if (t != end && t->c == c) {
    out->append(t->text);
  } else {
    AppendUtf8(MapOne(c, table), out);
  }
}

bool HasCase(uint32_t c, Case which) {
  if (c < 0x80) return which == Case::kUpper ? c >= 'A' && c <= 'Z' : c >= 'a' && c <= 'z';
  std::string self, other;
  AppendUtf8(c, &self);
  AppendCase(c, which == Case::kUpper ? Case::kLower : Case::kUpper, &other);
  return self != other;
}

std::string ToCase(std::string_view s, Case to) {
  std::string out;
  out.reserve(s.size());
  bool cased_before = false;
  for (size_t at = 0; at < s.size();) {
    const CodePoint c = DecodeUtf8(s, at);
    const size_t next = at + c.bytes;
    if (c.value == 0xfffd && c.bytes == 1) {
      out.push_back(s[at]);
    } else if (c.value == kSigma && to == Case::kLower && cased_before &&
               (next == s.size() || !IsCased(DecodeUtf8(s, next).value))) {
      AppendUtf8(kFinalSigma, &out);
    } else {
      AppendCase(c.value, to, &out);
    }
    if (to == Case::kLower) cased_before = IsCased(c.value);
    at = next;
  }
  return out;
}

bool IsWordChar(uint32_t c) {
  return c == '_' || (CharTable::Get()[c] & (kIsLetter | kIsNumber)) != 0;
}

bool IsPrintable(uint32_t c) {
  if (c < 0x7f) return c >= 0x20;
  const UnicodeRange* end = kEscaped + kEscapedCount;
  const UnicodeRange* r = std::lower_bound(
      kEscaped, end, c, [](const UnicodeRange& range, uint32_t v) { return range.last < v; });
  return r == end || r->first > c;
}

void AppendUtf8(uint32_t c, std::string* out) {
  const auto tail = [&](int shift) {
    out->push_back(static_cast<char>(0x80 | ((c >> shift) & 0x3f)));
  };
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xc0 | (c >> 6)));
    tail(0);
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | (c >> 12)));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xf0 | (c >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string Quote(std::string_view s, bool ascii) {
  const bool has_single = s.find('\'') != std::string_view::npos;
  const char quote = has_single && s.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < s.size();) {
    const CodePoint c = DecodeUtf8(s, at);
    if (c.value == static_cast<uint32_t>(quote) || c.value == '\\') {
      out += '\\';
      out += s[at];
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (IsPrintable(c.value) && (!ascii || c.value < 0x80)) {
      out.append(s.substr(at, c.bytes));
    } else if (c.value < 0x100) {
      out += fmt::format("\\x{:02x}", c.value);
    } else if (c.value < 0x10000) {
      out += fmt::format("\\u{:04x}", c.value);
    } else {
      out += fmt::format("\\U{:08x}", c.value);
    }
    at += c.bytes;
  }
  out += quote;
  return out;
}

std::string EscapeHtml(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (const char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace snug::jinja
