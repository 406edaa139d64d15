// Filters of text.
#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/strings.h"

namespace snug::jinja {
namespace {

template <Case kCase>
Result<Value> ChangeCase(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("a filter of case", args, {}));
  SNUG_ASSIGN(const Value text, ToText(rt, self));
  return Recase(rt, text, kCase);
}

Result<Value> CapitalizeFilter(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("capitalize", args, {}));
  SNUG_ASSIGN(const Value text, ToText(rt, self));
  return Capitalize(rt, text);
}

// The first letter of every word in upper case, all others in lower.
Result<Value> Title(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("title", args, {}));
  SNUG_ASSIGN(const Value text, ToText(rt, self));
  const std::string_view s = text.text();
  if (!rt.Fits(3 * s.size())) return rt.TooLarge();
  if (!rt.SpendOn(4 * s.size())) return rt.Exhausted();
  const auto separates = [](uint32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c);
  };
  std::string out;
  for (size_t at = 0; at < s.size();) {
    const CodePoint first = DecodeUtf8(s, at);
    if (separates(first.value)) {
      out.append(s.substr(at, first.bytes));
      at += first.bytes;
      continue;
    }
    size_t end = at + first.bytes;
    const size_t rest = end;
    while (end < s.size()) {
      const CodePoint c = DecodeUtf8(s, end);
      if (separates(c.value)) break;
      end += c.bytes;
    }
    out += ToCase(s.substr(at, first.bytes), Case::kUpper);
    out += ToCase(s.substr(rest, end - rest), Case::kLower);
    at = end;
  }
  return Like(rt, text, std::move(out));
}

Result<Value> Trim(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("trim", args, {"chars"}));
  SNUG_ASSIGN(const Value text, ToText(rt, self));
  return Strip(rt, text, p.has(0) ? &p[0] : nullptr, Side::kBoth);
}

Result<Value> String(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("string", args, {}));
  return ToText(rt, self);
}

Result<Value> ReplaceFilter(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("replace", args, {"old", "new", "count"}, 2));
  SNUG_ASSIGN(const std::string s, TextWithin(rt, false, self));
  SNUG_ASSIGN(const std::string old, TextWithin(rt, false, p[0]));
  SNUG_ASSIGN(const std::string with, TextWithin(rt, false, p[1]));
  const bool all = !p.has(2) || p[2].is(Kind::kNone);
  SNUG_ASSIGN(const int64_t count, all ? Result<int64_t>(-1) : p.Int(2, -1));
  return Replace(rt, rt.NewString(s), old, with, count);
}

Result<Value> Format(Runtime& rt, const Value& self, const Args& args) {
  if (!args.positional.empty() && !args.named.empty()) {
    return Fail("format() takes positional or named arguments, not both");
  }
  SNUG_ASSIGN(const Value text, ToText(rt, self));
  if (args.named.empty()) return FormatPercent(rt, text, rt.NewTuple(args.positional));
  const Builtin dict = FindGlobal("dict");
  SNUG_ASSIGN(const Value values, dict(rt, Value(), args));
  return FormatPercent(rt, text, values);
}

Result<Value> Indent(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("indent", args, {"width", "first", "blank"}));
  if (!self.defined()) return FailUndefined(self);
  if (!self.is(Kind::kString))
    return Fail(fmt::format("indent() wants a str, not {}", TypeName(self)));
  Text by(rt);
  if (p.has(0) && p[0].is(Kind::kString)) {
    by.Append(p[0].text());
  } else {
    SNUG_ASSIGN(const int64_t width, p.Int(0, 4));
    by.Fill(" ", width);
  }
  SNUG_ASSIGN(const std::string indent, by.Take());
  const bool first = p.True(1, false), blank = p.True(2, false);
  // A newline more, so that a last line that is empty counts as one.
  SNUG_ASSIGN(const Value ended, Arithmetic(rt, Operator::kAdd, self, rt.NewString("\n")));
  SNUG_ASSIGN(const std::vector<Value> lines, SplitLines(rt, ended, false));
  Text out(rt);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.Append('\n');
    if (i == 0 ? first : (blank || !lines[i].text().empty())) out.Append(indent);
    out.Append(lines[i].text());
    if (out.full()) return rt.TooLarge();
  }
  return out.Finish(self.str().markup);
}

Result<Value> Center(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("center", args, {"width"}));
  SNUG_ASSIGN(const int64_t width, p.Int(0, 80));
  SNUG_ASSIGN(const Value text, ToText(rt, self));
  const int64_t missing = std::max<int64_t>(width - text.str().size(), 0);
  const int64_t left = missing / 2 + (missing & width & 1);
  Text out(rt);
  out.Fill(" ", left);
  out.Append(text.text());
  out.Fill(" ", missing - left);
  return out.Finish(text.str().markup);
}

Result<Value> Truncate(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p,
              Params::Bind("truncate", args, {"length", "killwords", "end", "leeway"}));
  SNUG_ASSIGN(const int64_t length, p.Int(0, 255));
  SNUG_ASSIGN(const std::string_view end, p.String(2, "..."));
  constexpr int64_t kLeeway = 5;  // jinja2's default policy
  const bool no_leeway = !p.has(3) || p[3].is(Kind::kNone);
  SNUG_ASSIGN(const int64_t leeway, no_leeway ? Result<int64_t>(kLeeway) : p.Int(3, kLeeway));
  const int64_t end_size = rt.NewString(std::string(end)).str().size();
  if (length < end_size)
    return Fail(fmt::format("truncate() wants a length of at least {}", end_size));
  if (leeway < 0) return Fail("truncate() wants a leeway of at least 0");
  const std::optional<int64_t> size = Length(self);
  if (!size) return Fail(fmt::format("object of type '{}' has no len()", TypeName(self)));
  if (*size - leeway <= length) return self;
  if (!self.is(Kind::kString))
    return Fail(fmt::format("truncate() wants a str, not {}", TypeName(self)));
  if (!rt.SpendOn(self.text().size())) return rt.Exhausted();
  std::string_view kept = self.text().substr(0, self.str().Offset(length - end_size));
  if (!p.True(1, false)) kept = kept.substr(0, kept.rfind(' '));
  return Arithmetic(rt, Operator::kAdd, Like(rt, self, std::string(kept)),
                    rt.NewString(std::string(end)));
}

Result<Value> WordCount(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("wordcount", args, {}));
  SNUG_ASSIGN(const Value text, ToText(rt, self));
  const std::string_view s = text.text();
  if (!rt.SpendOn(s.size())) return rt.Exhausted();
  int64_t words = 0;
  bool within = false;
  for (size_t at = 0; at < s.size();) {
    const CodePoint c = DecodeUtf8(s, at);
    const bool word = IsWordChar(c.value);
    if (word && !within) ++words;
    within = word;
    at += c.bytes;
  }
  return Value::Int(words);
}

Result<Value> Safe(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("safe", args, {}));
  SNUG_ASSIGN(std::string text, TextWithin(rt, false, self));
  return rt.NewString(std::move(text), true);
}

Result<Value> EscapeFilter(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("escape", args, {}));
  return Escape(rt, self);
}

Result<Value> ForceEscape(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("forceescape", args, {}));
  SNUG_ASSIGN(std::string text, TextWithin(rt, false, self));
  return Escape(rt, rt.NewString(std::move(text)));
}

Result<Value> XmlAttributes(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("xmlattr", args, {"autospace"}));
  if (!self.is(Kind::kDict))
    return Fail(fmt::format("xmlattr() wants a dict, not {}", TypeName(self)));
  Text out(rt);
  for (const Dict::Entry& e : self.dict().entries) {
    if (e.value.is(Kind::kNone) || !e.value.defined()) continue;
    if (!e.key.is(Kind::kString) ||
        e.key.text().find_first_of(" \t\n\r\f\v/>=") != std::string_view::npos) {
      return Fail("xmlattr(): a key is no attribute name");
    }
    SNUG_ASSIGN(const std::string key, TextWithin(rt, true, e.key));
    SNUG_ASSIGN(const std::string value, TextWithin(rt, true, e.value));
    if (out.size() > 0 || p.True(0, true)) out.Append(' ');
    out.Append(key);
    out.Append("=\"");
    out.Append(value);
    out.Append('"');
  }
  return out.Finish();
}

Status AppendUrl(Runtime& rt, const Value& v, bool query, Text* out) {
  SNUG_ASSIGN(const std::string text, TextWithin(rt, false, v));
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
    if (plain) {
      out->Append(c);
    } else if (c == ' ' && query) {
      out->Append('+');
    } else {
      out->Append(fmt::format("%{:02X}", static_cast<unsigned char>(c)));
    }
  }
  return {};
}

Result<Value> UrlEncode(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("urlencode", args, {}));
  Text out(rt);
  if (self.is(Kind::kString) || !IsIterable(self)) {
    SNUG_TRY(AppendUrl(rt, self, false, &out));
    return out.Finish();
  }
  Value pairs = self;
  if (self.is(Kind::kDict)) {
    pairs = Value(Kind::kView, rt.heap.New<View>(0, self, View::Part::kItems).get());
  }
  const auto append = [&](const Value& item) -> Status {
    SNUG_ASSIGN(const std::vector<Value> pair, ToVector(rt, item));
    if (pair.size() != 2) return Fail("urlencode() wants pairs");
    if (out.size() > 0) out.Append('&');
    SNUG_TRY(AppendUrl(rt, pair[0], true, &out));
    out.Append('=');
    return AppendUrl(rt, pair[1], true, &out);
  };
  SNUG_TRY(ForEach(rt, pairs, append));
  return out.Finish();
}

template <const char* kName>
Result<Value> NotSupported(Runtime&, const Value&, const Args&) {
  return Fail(fmt::format("the filter {} is not supported", kName));
}
constexpr char kPprint[] = "pprint", kRandom[] = "random", kStripTags[] = "striptags",
               kUrlize[] = "urlize", kWordWrap[] = "wordwrap";

}  // namespace

const NamedFilter kTextFilters[] = {
    {"capitalize", CapitalizeFilter},
    {"center", Center},
    {"e", EscapeFilter},
    {"escape", EscapeFilter},
    {"forceescape", ForceEscape},
    {"format", Format},
    {"indent", Indent},
    {"lower", ChangeCase<Case::kLower>},
    {"pprint", NotSupported<kPprint>},
    {"random", NotSupported<kRandom>},
    {"replace", ReplaceFilter},
    {"safe", Safe},
    {"string", String},
    {"striptags", NotSupported<kStripTags>},
    {"title", Title},
    {"trim", Trim},
    {"truncate", Truncate},
    {"upper", ChangeCase<Case::kUpper>},
    {"urlencode", UrlEncode},
    {"urlize", NotSupported<kUrlize>},
    {"wordcount", WordCount},
    {"wordwrap", NotSupported<kWordWrap>},
    {"xmlattr", XmlAttributes},
    {nullptr, nullptr},
};

}  // namespace snug::jinja
