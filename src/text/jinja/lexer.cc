#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/chars.h"

namespace snug::jinja {
namespace {

constexpr auto npos = std::string_view::npos;

class Lexer {
 public:
  explicit Lexer(std::string_view source) : s_(source) {}

  Result<std::vector<LexToken>> Run() {
    while (at_ < s_.size()) {
      const size_t tag = NextTag();
      if (tag == npos) {
        Add(TokenType::kData, at_, s_.substr(at_));
        at_ = s_.size();
      } else {
        SNUG_TRY(Tag(tag));
      }
    }
    Add(TokenType::kEnd, s_.size(), "");
    return std::move(tokens_);
  }

 private:
  void Add(TokenType type, size_t at, std::string_view text) {
    tokens_.push_back({type, static_cast<uint32_t>(at), text});
  }
  Error Wrong(size_t at, std::string message) const {
    return At(MakeError(Code::kBadInput, std::move(message)), s_, at);
  }
  bool Has(size_t at, std::string_view what) const { return s_.substr(at, what.size()) == what; }

  size_t NextTag() const {
    for (size_t i = at_; (i = s_.find('{', i)) != npos; ++i) {
      if (i + 1 < s_.size() && (s_[i + 1] == '{' || s_[i + 1] == '%' || s_[i + 1] == '#')) return i;
    }
    return npos;
  }

  // The text before a tag, stripped as the tag's sign or lstrip_blocks wants it.
  void AddData(size_t tag, char sign, bool strip_line) {
    std::string_view text = s_.substr(at_, tag - at_);
    if (sign == '-') {
      text = text.substr(0, BeforeSpaces(text));
    } else if (sign != '+' && strip_line) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == npos ? 0 : newline + 1;
      if ((line > 0 || line_starts_) && SkipSpaces(text, line) == text.size()) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) Add(TokenType::kData, at_, text);
  }

  char SignAt(size_t at) const {
    return at < s_.size() && (s_[at] == '-' || s_[at] == '+') ? s_[at] : '\0';
  }

  Status Tag(size_t tag) {
    const char kind = s_[tag + 1];
    const char sign = SignAt(tag + 2);
    const size_t inside = tag + 2 + (sign != '\0' ? 1 : 0);
    AddData(tag, sign, kind != '{');
    at_ = inside;
    if (kind == '#') return Comment(tag);
    if (kind == '%' && BeginsRaw()) return Raw(tag);
    Add(kind == '{' ? TokenType::kVariableBegin : TokenType::kBlockBegin, tag, s_.substr(tag, 2));
    return Expression(kind == '%');
  }

  // Past the end of a tag at `end`: all white space after "-", one newline after a block.
  void Leave(size_t end, char sign, bool trim_newline) {
    const size_t start = end;
    if (sign == '-') {
      end = SkipSpaces(s_, end);
    } else if (sign != '+' && trim_newline && end < s_.size() && s_[end] == '\n') {
      ++end;
    }
    line_starts_ = end > start && s_[end - 1] == '\n';
    at_ = end;
  }

  Status Comment(size_t tag) {
    const size_t end = s_.find("#}", at_);
    if (end == npos) return Wrong(tag, "a comment is not closed");
    const char sign = end > at_ ? SignAt(end - 1) : '\0';
    Leave(end + 2, sign, true);
    return {};
  }

  // "raw %}" after the begin of a block; moves past it.
  bool BeginsRaw() {
    size_t at = SkipSpaces(s_, at_);
    if (!Has(at, "raw")) return false;
    at = SkipSpaces(s_, at + 3);
    const char sign = Has(at, "-%}") ? '-' : '\0';
    if (sign != '\0') ++at;
    if (!Has(at, "%}")) return false;
    Leave(at + 2, sign, false);
    return true;
  }

  Status Raw(size_t tag) {
    for (size_t end = at_; (end = s_.find("{%", end)) != npos; ++end) {
      const char sign = SignAt(end + 2);
      size_t at = SkipSpaces(s_, end + 2 + (sign != '\0' ? 1 : 0));
      if (!Has(at, "endraw")) continue;
      at = SkipSpaces(s_, at + 6);
      const char close = SignAt(at);
      if (close != '\0') ++at;
      if (!Has(at, "%}")) continue;
      AddData(end, sign, true);
      Leave(at + 2, close, true);
      return {};
    }
    return Wrong(tag, "a raw block is not closed");
  }

  // The tokens up to the end of a block or variable.
  Status Expression(bool block) {
    const size_t begin = at_;
    std::string open;  // brackets waiting for these
    const char* const end_tag = block ? "%}" : "}}";
    while (true) {
      at_ = SkipSpaces(s_, at_);
      if (at_ >= s_.size()) return Wrong(begin, "a tag is not closed");
      if (open.empty()) {
        const char sign = s_[at_] == '-' || (block && s_[at_] == '+') ? s_[at_] : '\0';
        const size_t end = at_ + (sign != '\0' ? 1 : 0);
        if (Has(end, end_tag)) {
          Add(block ? TokenType::kBlockEnd : TokenType::kVariableEnd, at_, s_.substr(end, 2));
          Leave(end + 2, sign, block);
          return {};
        }
      }
      SNUG_TRY(Next(&open));
    }
  }

  Status Next(std::string* open) {
    const char c = s_[at_];
    if (c == '"' || c == '\'') return QuotedString();
    if (c >= '0' && c <= '9') return Number();
    if (IsWordChar(DecodeUtf8(s_, at_).value)) return Name();
    return Operator(open);
  }

  Status QuotedString() {
    size_t end = at_ + 1;
    while (end < s_.size() && s_[end] != s_[at_]) end += s_[end] == '\\' ? 2 : 1;
    if (end >= s_.size()) return Wrong(at_, "a string is not closed");
    Add(TokenType::kString, at_, s_.substr(at_, end + 1 - at_));
    at_ = end + 1;
    return {};
  }

  Status Name() {
    size_t end = at_;
    while (end < s_.size()) {
      const CodePoint c = DecodeUtf8(s_, end);
      if (!IsWordChar(c.value)) break;
      end += c.bytes;
    }
    constexpr size_t kLongest = 1000;  // bytes, so that errors and look-ups stay cheap
    if (end - at_ > kLongest) return Wrong(at_, "a name is too long");
    Add(TokenType::kName, at_, s_.substr(at_, end - at_));
    at_ = end;
    return {};
  }

  // Where digits of that base end, single underscores between them allowed.
  template <class F>
  size_t EndOfDigits(size_t at, const F& digit) const {
    while (at < s_.size() &&
           (digit(s_[at]) || (s_[at] == '_' && at + 1 < s_.size() && digit(s_[at + 1])))) {
      ++at;
    }
    return at;
  }

  Status Number() {
    const auto decimal = [](char c) { return c >= '0' && c <= '9'; };
    const size_t whole = EndOfDigits(at_, decimal);
    size_t end = whole;
    // "a.0.1" holds no float.
    const bool after_dot = at_ > 0 && s_[at_ - 1] == '.';
    if (!after_dot) {
      if (end + 1 < s_.size() && s_[end] == '.' && decimal(s_[end + 1]))
        end = EndOfDigits(end + 1, decimal);
      size_t e = end;
      if (e < s_.size() && (s_[e] | 0x20) == 'e') {
        ++e;
        if (e < s_.size() && (s_[e] == '+' || s_[e] == '-')) ++e;
        if (e < s_.size() && decimal(s_[e])) end = EndOfDigits(e, decimal);
      }
    }
    TokenType type = end > whole ? TokenType::kFloat : TokenType::kInteger;
    if (end == whole && s_[at_] == '0') {
      // A prefix makes another base; without one, zeros stand alone.
      const char x = at_ + 1 < s_.size() ? static_cast<char>(s_[at_ + 1] | 0x20) : '\0';
      const auto digit = [x](char c) {
        if (x == 'x') return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        return c >= '0' && c <= (x == 'o' ? '7' : '1');
      };
      size_t prefixed = at_ + 2;
      if (x == 'x' || x == 'o' || x == 'b') prefixed = EndOfDigits(at_ + 2, digit);
      end = prefixed > at_ + 2 ? prefixed : EndOfDigits(at_, [](char c) { return c == '0'; });
    }
    Add(type, at_, s_.substr(at_, end - at_));
    at_ = end;
    return {};
  }

  Status Operator(std::string* open) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!Has(at_, op)) continue;
      const char c = op[0];
      if (op.size() == 1 && (c == '(' || c == '[' || c == '{')) {
        open->push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
      } else if (c == ')' || c == ']' || c == '}') {
        if (open->empty()) return Wrong(at_, fmt::format("unexpected '{}'", c));
        if (open->back() != c) {
          return Wrong(at_, fmt::format("unexpected '{}', expected '{}'", c, open->back()));
        }
        open->pop_back();
      }
      Add(TokenType::kOperator, at_, s_.substr(at_, op.size()));
      at_ += op.size();
      return {};
    }
    return Wrong(at_, fmt::format("unexpected character {}",
                                  Quote(s_.substr(at_, DecodeUtf8(s_, at_).bytes))));
  }

  const std::string_view s_;
  size_t at_ = 0;
  bool line_starts_ = true;  // the text from at_ on begins a line
  std::vector<LexToken> tokens_;
};

// Digits of an escape: `most` of them, at least `least`.
bool ReadEscape(std::string_view s, size_t* at, int base, size_t least, size_t most,
                uint32_t* out) {
  *out = 0;
  size_t n = 0;
  for (; n < most && *at < s.size(); ++n, ++*at) {
    const char c = s[*at];
    const int digit = c >= '0' && c <= '9'                     ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                               : 99;
    if (digit >= base) break;
    *out = *out * static_cast<uint32_t>(base) + static_cast<uint32_t>(digit);
  }
  return n >= least && *out <= 0x10ffff && (*out < 0xd800 || *out > 0xdfff);
}

}  // namespace

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

Result<std::vector<LexToken>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

Error At(Error error, std::string_view source, size_t at) {
  const std::string_view before = source.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  int64_t column = 1;
  for (size_t i = newline == npos ? 0 : newline + 1; i < at; i += DecodeUtf8(source, i).bytes)
    ++column;
  error.message = fmt::format("line {}, column {}: {}", line, column, error.message);
  error.values.emplace_back("line", fmt::format("{}", line));
  error.values.emplace_back("column", fmt::format("{}", column));
  return error;
}

Result<std::string> Unquote(std::string_view token) {
  const std::string_view s = token.substr(1, token.size() - 2);
  std::string out;
  out.reserve(s.size());
  for (size_t at = 0; at < s.size();) {
    if (s[at] != '\\' || at + 1 == s.size()) {
      out += s[at++];
      continue;
    }
    const char c = s[at + 1];
    static constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeant = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t i = kLetters.find(c); i != npos) {
      out += kMeant[i];
      at += 2;
      continue;
    }
    if (c == '\n') {
      at += 2;
      continue;
    }
    uint32_t code = 0;
    bool good = true;
    if (c >= '0' && c <= '7') {
      at += 1;
      good = ReadEscape(s, &at, 8, 1, 3, &code);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      at += 2;
      good = ReadEscape(s, &at, 16, n, n, &code);
    } else if (c == 'N') {
      return MakeError(Code::kBadInput, "characters by name, \\N{...}, are not supported");
    } else {  // no escape after all
      out += '\\';
      ++at;
      continue;
    }
    if (!good) return MakeError(Code::kBadInput, "a string has an invalid escape");
    AppendUtf8(code, &out);
  }
  return out;
}

}  // namespace snug::jinja
