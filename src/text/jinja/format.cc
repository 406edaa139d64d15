#include "text/jinja/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja/access.h"
#include "text/jinja/chars.h"
#include "text/jinja/dict.h"
#include "text/jinja/numbers.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

constexpr int64_t kMaxPrecision = 1000;

std::string_view SignOf(const Field& field, bool negative) {
  return negative ? "-" : field.sign == '+' ? "+" : field.sign == ' ' ? " " : "";
}

int64_t CountChars(std::string_view s) {
  int64_t n = 0;
  for (size_t at = 0; at < s.size(); at += DecodeUtf8(s, at).bytes) ++n;
  return n;
}

// Digits from "text", -1 where there are none. Bounded, so that no sum of widths overflows.
Result<int64_t> ReadNumber(std::string_view text, size_t* at) {
  constexpr int64_t kMost = int64_t{1} << 40;
  if (*at >= text.size() || text[*at] < '0' || text[*at] > '9') return -1;
  int64_t n = 0;
  for (; *at < text.size() && text[*at] >= '0' && text[*at] <= '9'; ++*at) {
    n = n * 10 + (text[*at] - '0');
    if (n > kMost) return Fail("a width or precision in a format is too large");
  }
  return n;
}

}  // namespace

void AppendPadded(const Field& field, std::string_view sign, std::string_view digits, Text* out) {
  const int64_t missing = field.width - CountChars(sign) - CountChars(digits);
  const int64_t left = field.align == '<' ? 0 : field.align == '^' ? missing / 2 : missing;
  if (missing <= 0) {
    out->Append(sign);
    out->Append(digits);
  } else if (field.align == '=') {
    out->Append(sign);
    out->Fill(field.fill, missing);
    out->Append(digits);
  } else {
    out->Fill(field.fill, left);
    out->Append(sign);
    out->Append(digits);
    out->Fill(field.fill, missing - left);
  }
}

Status AppendInteger(const Field& field, char conversion, int64_t value, Text* out) {
  if (conversion == 'c') {
    if (value < 0 || value > 0x10ffff) return Fail("%c needs the number of a character");
    std::string c;
    AppendUtf8(static_cast<uint32_t>(value), &c);
    AppendPadded(field, "", c, out);
    return {};
  }
  const unsigned base = conversion == 'b'                        ? 2
                        : conversion == 'o'                      ? 8
                        : conversion == 'x' || conversion == 'X' ? 16
                                                                 : 10;
  const bool negative = value < 0;
  const uint64_t magnitude =
      negative ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits = Digits(magnitude, base, conversion == 'X');
  std::string sign(SignOf(field, negative));
  if (field.alternate && base != 10) sign += {'0', conversion};
  if (field.precision > kMaxPrecision) return Fail("the precision of a format is too large");
  if (static_cast<int64_t>(digits.size()) < field.precision) {
    digits.insert(0, static_cast<size_t>(field.precision) - digits.size(), '0');
  }
  if (field.separator != 0) digits = Grouped(digits, field.separator, base == 10 ? 3 : 4);
  AppendPadded(field, sign, digits, out);
  return {};
}

Status AppendFloat(const Field& field, char conversion, double value, Text* out) {
  if (field.precision > kMaxPrecision) return Fail("the precision of a format is too large");
  const bool percent = conversion == '%';
  if (percent) value *= 100;
  const char c = percent ? 'f' : conversion;
  const int precision = field.precision < 0 ? 6 : static_cast<int>(field.precision);
  const char format[] = {'%',
                         field.alternate ? '#' : '.',
                         field.alternate ? '.' : '*',
                         field.alternate ? '*' : c,
                         field.alternate ? c : '\0',
                         '\0'};
  std::string text(static_cast<size_t>(precision) + 330, '\0');
  const int n = std::snprintf(text.data(), text.size(), format, precision, std::fabs(value));
  text.resize(static_cast<size_t>(n));
  if (field.separator != 0 && std::isfinite(value)) {
    const size_t whole = std::min(text.find_first_not_of("0123456789"), text.size());
    text =
        Grouped(std::string_view(text).substr(0, whole), field.separator, 3) + text.substr(whole);
  }
  if (percent) text += '%';
  const bool negative = std::signbit(value) && !std::isnan(value);
  Field f = field;
  if (!std::isfinite(value) && f.align == '=' && f.fill == "0") f.fill = " ";
  AppendPadded(f, SignOf(field, negative), text, out);
  return {};
}

void AppendString(Field field, std::string_view text, Text* out) {
  if (field.precision >= 0) {
    size_t at = 0;
    for (int64_t n = 0; n < field.precision && at < text.size(); ++n)
      at += DecodeUtf8(text, at).bytes;
    text = text.substr(0, at);
  }
  if (field.align == 0) field.align = '<';
  AppendPadded(field, "", text, out);
}

namespace {

// ---- "..." % values

class PercentFormatter {
 public:
  PercentFormatter(Runtime& rt, const Value& format, const Value& values)
      : rt_(rt), s_(format.text()), markup_(format.str().markup), values_(values), out_(rt) {
    if (!values.is(Kind::kTuple)) single_ = &values;
  }

  Result<Value> Run() {
    while (at_ < s_.size()) {
      const size_t percent = std::min(s_.find('%', at_), s_.size());
      out_.Append(s_.substr(at_, percent - at_));
      at_ = percent + 1;
      if (percent < s_.size()) SNUG_TRY(Conversion());
      if (out_.full()) return rt_.TooLarge();
      if (!rt_.Spend()) return rt_.Exhausted();
    }
    // What Python can index may be left over: it might have been asked for by keys.
    const bool indexed = values_.is(Kind::kDict) || values_.is(Kind::kList) ||
                         values_.is(Kind::kRange) || !values_.defined();
    const bool left_over = single_ != nullptr ? !used_ && !indexed : next_ < values_.items().size();
    if (left_over) return Fail("not all arguments were converted during string formatting");
    return out_.Finish(markup_);
  }

 private:
  Result<Value> NextValue() {
    if (single_ != nullptr) {
      if (used_) return Fail("not enough arguments for format string");
      used_ = true;
      return *single_;
    }
    if (next_ >= values_.items().size()) return Fail("not enough arguments for format string");
    return values_.items()[next_++];
  }

  Result<int64_t> NumberOrStar() {
    if (at_ >= s_.size() || s_[at_] != '*') return ReadNumber(s_, &at_);
    ++at_;
    SNUG_ASSIGN(const Value v, NextValue());
    if (!v.is_integral()) return Fail("* in a format wants an int");
    if (v.integer() < -(int64_t{1} << 40) || v.integer() > (int64_t{1} << 40)) {
      return Fail("a width or precision in a format is too large");
    }
    return v.integer();
  }

  // What follows a %.
  Status Conversion() {
    std::optional<Value> value;
    if (at_ < s_.size() && s_[at_] == '(') {
      SNUG_ASSIGN(value, ByKey());
    }
    Field field;
    bool zero = false, left = false;
    for (; at_ < s_.size(); ++at_) {
      const char c = s_[at_];
      if (c == '-')
        left = true;
      else if (c == '+')
        field.sign = '+';
      else if (c == ' ')
        field.sign = field.sign == '+' ? '+' : ' ';
      else if (c == '#')
        field.alternate = true;
      else if (c == '0')
        zero = true;
      else
        break;
    }
    SNUG_ASSIGN(const int64_t width, NumberOrStar());
    left = left || width < -1;
    field.width = width == -1 ? 0 : std::abs(width);
    if (at_ < s_.size() && s_[at_] == '.') {
      ++at_;
      SNUG_ASSIGN(const int64_t precision, NumberOrStar());
      field.precision = std::max<int64_t>(precision, 0);
    }
    while (at_ < s_.size() && (s_[at_] == 'l' || s_[at_] == 'h' || s_[at_] == 'L')) ++at_;
    if (at_ >= s_.size()) return Fail("incomplete format");
    const char c = s_[at_++];
    if (c == '%') {
      out_.Append('%');
      return {};
    }
    if (!value) {
      SNUG_ASSIGN(value, NextValue());
    }
    field.align = left ? '<' : '>';
    if (zero && !left && std::string_view("diuoxXeEfFgG").find(c) != std::string_view::npos) {
      field.align = '=';
      field.fill = "0";
    }
    return Append(c, field, *value);
  }

  Result<Value> ByKey() {
    if (!values_.is(Kind::kDict)) return Fail("format requires a mapping");
    const size_t start = ++at_;
    int open = 1;
    for (; at_ < s_.size(); ++at_) {
      if (s_[at_] == '(') ++open;
      if (s_[at_] == ')' && --open == 0) break;
    }
    if (open != 0) return Fail("incomplete format key");
    const std::string_view key = s_.substr(start, at_++ - start);
    const Value* found = values_.dict().Find(key);
    if (found == nullptr) return Fail(fmt::format("the format's key '{}' is missing", key));
    used_ = true;
    return *found;
  }

  Status Append(char c, const Field& field, const Value& value) {
    switch (c) {
      case 's':
      case 'r':
      case 'a':
        return AppendAsText(c, field, value);
      case 'd':
      case 'i':
      case 'u':
        if (value.is(Kind::kFloat)) {
          if (!(std::fabs(value.number()) < 9e18)) return Fail("the float is too large for an int");
          return AppendInteger(field, 'd', static_cast<int64_t>(value.number()), &out_);
        }
        [[fallthrough]];
      case 'o':
      case 'x':
      case 'X':
        if (!value.is_integral()) return WrongNumber(c, value);
        return AppendInteger(field, c == 'i' || c == 'u' ? 'd' : c, value.integer(), &out_);
      case 'c':
        if (value.is_integral()) return AppendInteger(field, 'c', value.integer(), &out_);
        if (!value.is(Kind::kString) || value.str().size() != 1)
          return Fail("%c requires an int or a char");
        AppendPadded(field, "", value.text(), &out_);
        return {};
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.is_number()) return WrongNumber(c, value);
        return AppendFloat(field, c, value.number(), &out_);
      default:
        return Fail(fmt::format("unsupported format character '{}'", c));
    }
  }

  Error WrongNumber(char c, const Value& value) {
    if (!value.defined()) return FailUndefined(value);
    return Fail(fmt::format("%{} format needs a number, not {}", c, TypeName(value)));
  }

  Status AppendAsText(char c, const Field& field, const Value& value) {
    std::string text;
    if (c == 's') {
      SNUG_ASSIGN(text, TextWithin(rt_, markup_, value));
    } else {
      Text repr(rt_);
      SNUG_TRY(AppendRepr(value, &repr));
      SNUG_ASSIGN(text, repr.Take());
    }
    AppendString(field, text, &out_);
    return {};
  }

  Runtime& rt_;
  const std::string_view s_;
  const bool markup_;
  const Value& values_;
  const Value* single_ = nullptr;  // the one value, where it is no tuple
  Text out_;
  size_t at_ = 0, next_ = 0;
  bool used_ = false;
};

}  // namespace

Result<Value> FormatPercent(Runtime& rt, const Value& format, const Value& values) {
  return PercentFormatter(rt, format, values).Run();
}

// ---- format(value, spec)

namespace {

struct Spec {
  Field field;
  char type = 0;
};

Result<Spec> ParseSpec(std::string_view s) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [&](size_t i) {
    return i < s.size() && std::string_view("<>=^").find(s[i]) != std::string_view::npos;
  };
  const uint32_t first = s.empty() ? 0 : DecodeUtf8(s, 0).bytes;
  bool filled = false;
  if (first > 0 && is_align(first)) {
    spec.field.fill = std::string(s.substr(0, first));
    spec.field.align = s[first];
    at = first + 1;
    filled = true;
  } else if (is_align(0)) {
    spec.field.align = s[at++];
  }
  if (at < s.size() && (s[at] == '+' || s[at] == '-' || s[at] == ' ')) spec.field.sign = s[at++];
  if (at < s.size() && s[at] == '#') {
    spec.field.alternate = true;
    ++at;
  }
  if (at < s.size() && s[at] == '0') {
    if (!filled) spec.field.fill.assign(1, '0');
    if (spec.field.align == 0) spec.field.align = '=';
    ++at;
  }
  SNUG_ASSIGN(const int64_t width, ReadNumber(s, &at));
  spec.field.width = std::max<int64_t>(width, 0);
  if (at < s.size() && (s[at] == ',' || s[at] == '_')) spec.field.separator = s[at++];
  if (at < s.size() && s[at] == '.') {
    ++at;
    SNUG_ASSIGN(spec.field.precision, ReadNumber(s, &at));
    if (spec.field.precision < 0) return Fail("a format lacks its precision");
  }
  if (at < s.size()) spec.type = s[at++];
  if (at != s.size()) return Fail(fmt::format("invalid format specifier '{}'", s));
  return spec;
}

Error UnknownType(char type, const Value& v) {
  return Fail(fmt::format("unknown format code '{}' for '{}'", type, TypeName(v)));
}

// A float without a type: like g, but as repr() where no precision is given, and with a point.
Status AppendPlainFloat(const Field& field, double value, Text* out) {
  std::string digits;
  if (field.precision < 0) {
    digits = FloatText(std::fabs(value));
  } else {
    if (field.precision > kMaxPrecision) return Fail("the precision of a format is too large");
    const int precision = std::max(static_cast<int>(field.precision), 1);
    digits = fmt::format("{:.{}g}", std::fabs(value), precision);
    const size_t e = digits.find('e');
    if (e == std::string::npos && digits.find_first_not_of("0123456789") == std::string::npos) {
      if (static_cast<int>(digits.size()) >= precision) {
        digits = fmt::format("{:.{}e}", std::fabs(value), precision - 1);
        const size_t mantissa_end = digits.find('e');
        size_t keep = mantissa_end;
        if (digits.find('.') < mantissa_end) {
          while (digits[keep - 1] == '0') --keep;
          if (digits[keep - 1] == '.') --keep;
        }
        digits.erase(keep, mantissa_end - keep);
      } else {
        digits += ".0";
      }
    }
  }
  const bool negative = std::signbit(value) && !std::isnan(value);
  if (field.separator != 0) {
    const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
    digits = Grouped(std::string_view(digits).substr(0, whole), field.separator, 3) +
             digits.substr(whole);
  }
  AppendPadded(field, SignOf(field, negative), digits, out);
  return {};
}

Status FormatNumber(const Value& v, Spec spec, Text* out) {
  if (spec.field.align == 0) spec.field.align = '>';
  const std::string_view floats = "eEfFgG%";
  if (v.is(Kind::kFloat) || floats.find(spec.type) != std::string_view::npos) {
    if (spec.type == 0) return AppendPlainFloat(spec.field, v.number(), out);
    if (spec.type == 'n') spec.type = 'g';
    if (floats.find(spec.type) == std::string_view::npos) return UnknownType(spec.type, v);
    return AppendFloat(spec.field, spec.type, v.number(), out);
  }
  if (spec.field.precision >= 0) return Fail("a precision is not allowed in an integer's format");
  if (spec.type == 0 || spec.type == 'n') spec.type = 'd';
  if (std::string_view("dboxXc").find(spec.type) == std::string_view::npos)
    return UnknownType(spec.type, v);
  return AppendInteger(spec.field, spec.type, v.integer(), out);
}

}  // namespace

Status FormatValue(const Value& value, std::string_view text, Text* out) {
  if (text.empty()) return AppendText(value, out);
  SNUG_ASSIGN(const Spec spec, ParseSpec(text));
  if (value.is(Kind::kString)) {
    if (spec.type != 0 && spec.type != 's') return UnknownType(spec.type, value);
    if (spec.field.align == '=' && spec.field.fill != "0")
      return Fail("'=' alignment is for numbers");
    Field field = spec.field;
    if (field.align == '=') field.align = '<';
    AppendString(field, value.text(), out);
    return {};
  }
  if (value.is_number()) return FormatNumber(value, spec, out);
  return Fail(fmt::format("unsupported format string for '{}'", TypeName(value)));
}

// ---- "...".format(values)

namespace {

class BraceFormatter {
 public:
  BraceFormatter(Runtime& rt, bool markup, const Args& args)
      : rt_(rt), markup_(markup), args_(args), out_(rt) {}

  Result<Value> Run(std::string_view s) {
    SNUG_TRY(Expand(s, 2, &out_));
    return out_.Finish(markup_);
  }

 private:
  // `levels`: how deep fields may lie in the specs of others, as in "{:{width}}".
  Status Expand(std::string_view s, int levels, Text* out) {
    if (levels == 0) return Fail("the fields of a format are nested too deep");
    for (size_t at = 0; at < s.size();) {
      if (!rt_.Spend()) return rt_.Exhausted();
      const size_t brace = std::min(s.find_first_of("{}", at), s.size());
      out->Append(s.substr(at, brace - at));
      at = brace;
      if (at == s.size()) break;
      if (at + 1 < s.size() && s[at + 1] == s[at]) {
        out->Append(s[at]);
        at += 2;
        continue;
      }
      if (s[at] == '}') return Fail("single '}' in a format string");
      size_t end = at + 1;
      int open = 1;
      for (; end < s.size(); ++end) {
        if (s[end] == '{') ++open;
        if (s[end] == '}' && --open == 0) break;
      }
      if (open != 0) return Fail("expected '}' before the end of a format string");
      SNUG_TRY(AppendField(s.substr(at + 1, end - at - 1), levels, out));
      at = end + 1;
    }
    return {};
  }

  Status AppendField(std::string_view field, int levels, Text* out) {
    // A bracketed index may hold any of the separators.
    size_t name_end = 0;
    bool bracket = false;
    for (; name_end < field.size(); ++name_end) {
      if (field[name_end] == '[') bracket = true;
      if (field[name_end] == ']') bracket = false;
      if (!bracket && (field[name_end] == '!' || field[name_end] == ':')) break;
    }
    SNUG_ASSIGN(Value value, Lookup(field.substr(0, name_end)));
    std::string_view rest = field.substr(name_end);
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':')) {
        return Fail("a conversion in a format string is one letter, then ':' or '}'");
      }
      SNUG_ASSIGN(value, Convert(rest[1], value));
      rest.remove_prefix(2);
    }
    Text spec(rt_);
    if (!rest.empty()) SNUG_TRY(Expand(rest.substr(1), levels - 1, &spec));
    if (!markup_) return FormatValue(value, spec.str(), out);
    Text plain(rt_);
    SNUG_TRY(FormatValue(value, spec.str(), &plain));
    SNUG_ASSIGN(const Value text, plain.Finish(value.is(Kind::kString) && value.str().markup));
    SNUG_ASSIGN(const std::string escaped, TextWithin(rt_, true, text));
    out->Append(escaped);
    return {};
  }

  Result<Value> Convert(char conversion, const Value& value) {
    if (conversion == 's') return ToText(rt_, value);
    if (conversion != 'r' && conversion != 'a') {
      return Fail(fmt::format("unknown conversion '{}' in a format string", conversion));
    }
    Text repr(rt_);
    SNUG_TRY(AppendRepr(value, &repr));
    return repr.Finish();
  }

  Result<Value> Lookup(std::string_view name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    SNUG_ASSIGN(Value value, First(name.substr(0, at)));
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        SNUG_ASSIGN(value, GetAttribute(rt_, value, name.substr(at + 1, end - at - 1)));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == std::string_view::npos) return Fail("missing ']' in a format string");
        const std::string_view index = name.substr(at + 1, end - at - 1);
        size_t digits = 0;
        SNUG_ASSIGN(const int64_t number, ReadNumber(index, &digits));
        const bool numeric = number >= 0 && digits == index.size();
        const Value key = numeric ? Value::Int(number) : rt_.NewString(std::string(index));
        SNUG_ASSIGN(value, GetItem(rt_, value, key));
        at = end + 1;
      } else {
        return Fail("only '.' or '[' may follow ']' in a format string");
      }
    }
    return value;
  }

  // An argument by its number, its name, or as the next one.
  Result<Value> First(std::string_view name) {
    size_t digits = 0;
    SNUG_ASSIGN(int64_t number, ReadNumber(name, &digits));
    if (digits != name.size()) {
      if (!rt_.Spend(args_.named.size())) return rt_.Exhausted();
      for (const auto& [key, value] : args_.named) {
        if (key == name) return value;
      }
      return Fail(fmt::format("the format's field '{}' was not given", name));
    }
    const bool automatic = name.empty();
    if ((automatic && numbered_) || (!automatic && automatic_)) {
      return Fail("a format string numbers all of its fields or none");
    }
    (automatic ? automatic_ : numbered_) = true;
    if (automatic) number = next_++;
    if (number >= static_cast<int64_t>(args_.positional.size())) {
      return Fail(fmt::format("the format's argument {} was not given", number));
    }
    return args_.positional[static_cast<size_t>(number)];
  }

  Runtime& rt_;
  const bool markup_;
  const Args& args_;
  Text out_;
  int64_t next_ = 0;
  bool automatic_ = false, numbered_ = false;
};

}  // namespace

Result<Value> FormatBraces(Runtime& rt, const Value& format, const Args& args) {
  return BraceFormatter(rt, format.str().markup, args).Run(format.text());
}

}  // namespace snug::jinja
