// The methods of Python's str.
#include <algorithm>
#include <array>
#include <unordered_set>

#include "text/jinja/access.h"
#include "text/jinja/chars.h"
#include "text/jinja/format.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/strings.h"

namespace snug::jinja {

Value Like(Runtime& rt, const Value& self, std::string text) {
  return rt.NewString(std::move(text), self.str().markup);
}

Result<Value> Strip(Runtime& rt, const Value& self, const Value* chars, Side side) {
  const std::string_view s = self.text();
  if (!rt.SpendOn(s.size())) return rt.Exhausted();
  size_t from = 0, to = s.size();
  if (chars == nullptr || chars->is(Kind::kNone)) {
    if (side != Side::kRight) from = SkipSpaces(s, 0);
    if (side != Side::kLeft) to = std::max(from, BeforeSpaces(s));
    return Like(rt, self, std::string(s.substr(from, to - from)));
  }
  if (!chars->is(Kind::kString)) return Fail("strip() wants a str or none");
  if (!rt.SpendOn(chars->text().size())) return rt.Exhausted();
  std::unordered_set<uint32_t> set;
  for (size_t at = 0; at < chars->text().size();) {
    const CodePoint c = DecodeUtf8(chars->text(), at);
    set.insert(c.value);
    at += c.bytes;
  }
  while (side != Side::kRight && from < to) {
    const CodePoint c = DecodeUtf8(s, from);
    if (set.count(c.value) == 0) break;
    from += c.bytes;
  }
  while (side != Side::kLeft && from < to) {
    const CodePoint c = DecodeBefore(s, to);
    if (set.count(c.value) == 0) break;
    to -= c.bytes;
  }
  return Like(rt, self, std::string(s.substr(from, to - from)));
}

Result<Value> Recase(Runtime& rt, const Value& self, Case to) {
  const std::string_view s = self.text();
  if (!rt.Fits(3 * s.size())) return rt.TooLarge();
  if (!rt.SpendOn(4 * s.size())) return rt.Exhausted();
  return Like(rt, self, ToCase(s, to));
}

Result<Value> Capitalize(Runtime& rt, const Value& self) {
  const std::string_view s = self.text();
  if (!rt.Fits(3 * s.size())) return rt.TooLarge();
  if (!rt.SpendOn(4 * s.size())) return rt.Exhausted();
  if (s.empty()) return self;
  const CodePoint first = DecodeUtf8(s, 0);
  std::string out = ToCase(s.substr(0, first.bytes), Case::kTitle);
  // Lower case of the whole, so that the rest sees what it follows.
  std::string lower = ToCase(s, Case::kLower);
  return Like(rt, self, out + lower.substr(ToCase(s.substr(0, first.bytes), Case::kLower).size()));
}

Result<Value> Replace(Runtime& rt, const Value& self, std::string_view old, std::string_view with,
                      int64_t count) {
  const std::string_view s = self.text();
  Text out(rt);
  size_t at = 0;
  if (old.empty()) {  // between all characters, and at both ends
    for (; count != 0; --count) {
      if (!rt.Spend()) return rt.Exhausted();
      out.Append(with);
      if (at >= s.size()) {
        at = s.size();
        break;
      }
      const uint32_t n = DecodeUtf8(s, at).bytes;
      out.Append(s.substr(at, n));
      if (out.full()) return rt.TooLarge();
      at += n;
    }
  }
  while (!old.empty() && count != 0) {
    const size_t found = FindText(s, old, at);
    if (found == std::string_view::npos) break;
    if (!rt.Spend()) return rt.Exhausted();
    out.Append(s.substr(at, found - at));
    out.Append(with);
    if (out.full()) return rt.TooLarge();
    at = found + old.size();
    --count;
  }
  if (at < s.size()) out.Append(s.substr(at));
  return out.Finish(self.str().markup);
}

Result<std::vector<Value>> SplitLines(Runtime& rt, const Value& self, bool keep_ends) {
  const std::string_view s = self.text();
  if (!rt.SpendOn(s.size())) return rt.Exhausted();
  std::vector<Value> lines;
  size_t start = 0;
  for (size_t at = 0; at < s.size();) {
    const CodePoint c = DecodeUtf8(s, at);
    const bool ends = (c.value >= 0xa && c.value <= 0xd) || (c.value >= 0x1c && c.value <= 0x1e) ||
                      c.value == 0x85 || c.value == 0x2028 || c.value == 0x2029;
    size_t next = at + c.bytes;
    if (ends) {
      if (!rt.Spend()) return rt.Exhausted();
      if (c.value == '\r' && next < s.size() && s[next] == '\n') ++next;
      lines.push_back(
          Like(rt, self, std::string(s.substr(start, (keep_ends ? next : at) - start))));
      start = next;
    }
    at = next;
  }
  if (start < s.size()) lines.push_back(Like(rt, self, std::string(s.substr(start))));
  return lines;
}

namespace {

// The part of a text that find(), count() and startswith() look at.
struct Window {
  size_t from = 0, to = 0;  // bytes
  bool empty = false;       // the start lies beyond the end
};

Result<Window> WindowOf(const Str& s, const Params& p, size_t start) {
  Window w{0, s.text.size(), false};
  if (!p.has(start)) return w;
  const int64_t size = s.size();
  int64_t bounds[2] = {0, size};
  for (size_t i = 0; i < 2; ++i) {
    if (!p.has(start + i) || p[start + i].is(Kind::kNone)) continue;
    SNUG_ASSIGN(bounds[i], p.Int(start + i, 0));
    if (bounds[i] < 0) bounds[i] = std::max<int64_t>(bounds[i] + size, 0);
  }
  w.empty = bounds[0] > std::min(bounds[1], size);
  if (w.empty) return w;
  w.from = s.Offset(bounds[0]);
  w.to = s.Offset(std::min(bounds[1], size));
  return w;
}

Result<int64_t> Find(Runtime& rt, const Value& self, const Args& args, bool last) {
  SNUG_ASSIGN(const Params p, Params::Bind("find", args, {"/sub", "/start", "/end"}, 1));
  SNUG_ASSIGN(const std::string_view sub, p.String(0, ""));
  SNUG_ASSIGN(const Window w, WindowOf(self.str(), p, 1));
  if (w.empty) return -1;
  if (!rt.SpendOn(self.text().size())) return rt.Exhausted();
  const std::string_view in = self.text().substr(w.from, w.to - w.from);
  const size_t at = last ? FindLastText(in, sub) : FindText(in, sub, 0);
  return at == std::string_view::npos ? -1 : self.str().Index(w.from + at);
}

template <bool kLast, bool kMust>
Result<Value> FindMethodOf(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const int64_t at, Find(rt, self, args, kLast));
  if (kMust && at < 0) return Fail("substring not found");
  return Value::Int(at);
}

Result<Value> Count(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("count", args, {"/sub", "/start", "/end"}, 1));
  SNUG_ASSIGN(const std::string_view sub, p.String(0, ""));
  SNUG_ASSIGN(const Window w, WindowOf(self.str(), p, 1));
  if (w.empty) return Value::Int(0);
  if (!rt.SpendOn(self.text().size())) return rt.Exhausted();
  const std::string_view in = self.text().substr(w.from, w.to - w.from);
  if (sub.empty()) return Value::Int(self.str().Index(w.to) - self.str().Index(w.from) + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = FindText(in, sub, at)) != std::string_view::npos; at += sub.size()) ++n;
  return Value::Int(n);
}

template <bool kEnd>
Result<Value> Affix(Runtime& rt, const Value& self, const Args& args) {
  const char* name = kEnd ? "endswith" : "startswith";
  SNUG_ASSIGN(const Params p, Params::Bind(name, args, {"/prefix", "/start", "/end"}, 1));
  SNUG_ASSIGN(const Window w, WindowOf(self.str(), p, 1));
  const std::string_view in = self.text().substr(w.from, w.to - w.from);
  if (!rt.SpendOn(in.size())) return rt.Exhausted();
  const auto matches = [&](const Value& v) {
    const std::string_view s = v.text();
    return !w.empty && in.size() >= s.size() &&
           (kEnd ? in.substr(in.size() - s.size()) : in.substr(0, s.size())) == s;
  };
  if (p[0].is(Kind::kString)) return Value::Bool(matches(p[0]));
  if (!p[0].defined()) return FailUndefined(p[0]);
  if (!p[0].is(Kind::kTuple)) return Fail(fmt::format("{}() wants a str or a tuple of str", name));
  bool any = false;
  for (const Value& v : p[0].items()) {
    if (!rt.Spend()) return rt.Exhausted();
    if (!v.is(Kind::kString)) return Fail(fmt::format("{}() wants a str or a tuple of str", name));
    any = any || matches(v);
  }
  return Value::Bool(any);
}

template <Side kSide>
Result<Value> StripMethod(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("strip", args, {"/chars"}));
  return Strip(rt, self, p.has(0) ? &p[0] : nullptr, kSide);
}

template <Case kCase>
Result<Value> CaseMethod(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("a method of case", args, {}));
  return Recase(rt, self, kCase);
}

Result<Value> CapitalizeMethod(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("capitalize", args, {}));
  return Capitalize(rt, self);
}

// Maps character by character; `cased_before` says whether the one before has case.
template <class F>
Result<Value> MapChars(Runtime& rt, const Value& self, const F& map) {
  const std::string_view s = self.text();
  if (!rt.Fits(3 * s.size())) return rt.TooLarge();
  if (!rt.SpendOn(8 * s.size())) return rt.Exhausted();
  std::string out;
  bool cased_before = false;
  for (size_t at = 0; at < s.size();) {
    const CodePoint c = DecodeUtf8(s, at);
    map(c.value, cased_before, &out);
    cased_before = HasCase(c.value, Case::kUpper) || HasCase(c.value, Case::kLower);
    at += c.bytes;
  }
  return Like(rt, self, std::move(out));
}

Result<Value> TitleMethod(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("title", args, {}));
  return MapChars(rt, self, [](uint32_t c, bool cased_before, std::string* out) {
    AppendCase(c, cased_before ? Case::kLower : Case::kTitle, out);
  });
}

Result<Value> SwapCase(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("swapcase", args, {}));
  return MapChars(rt, self, [](uint32_t c, bool, std::string* out) {
    AppendCase(c, HasCase(c, Case::kUpper) ? Case::kLower : Case::kUpper, out);
  });
}

// Pieces between separators, or between runs of white space; from the right when `right`.
Result<std::vector<Value>> SplitText(Runtime& rt, const Value& self, const Value* separator,
                                     int64_t most, bool right) {
  const std::string_view s = self.text();
  if (!rt.SpendOn(s.size())) return rt.Exhausted();
  std::vector<Value> parts;
  const auto add = [&](size_t from, size_t to) {
    parts.push_back(Like(rt, self, std::string(s.substr(from, to - from))));
    return rt.Spend();
  };
  if (separator != nullptr && !separator->is(Kind::kNone)) {
    if (!separator->is(Kind::kString)) return Fail("split() wants a str or none");
    const std::string_view sep = separator->text();
    if (sep.empty()) return Fail("empty separator");
    std::vector<size_t> cuts;
    if (right) {
      const std::string back(s.rbegin(), s.rend()), sep_back(sep.rbegin(), sep.rend());
      for (size_t at = 0; most != 0 && (at = FindText(back, sep_back, at)) != std::string::npos;
           at += sep.size(), --most) {
        cuts.push_back(s.size() - at - sep.size());
      }
      std::reverse(cuts.begin(), cuts.end());
    } else {
      for (size_t at = 0; most != 0 && (at = FindText(s, sep, at)) != std::string_view::npos;
           at += sep.size(), --most) {
        cuts.push_back(at);
      }
    }
    size_t from = 0;
    for (const size_t cut : cuts) {
      if (!add(from, cut)) return rt.Exhausted();
      from = cut + sep.size();
    }
    if (!add(from, s.size())) return rt.Exhausted();
    return parts;
  }
  if (right) {
    for (size_t to = BeforeSpaces(s); to > 0; --most) {
      size_t from = to;
      while (most != 0 && from > 0) {
        const CodePoint c = DecodeBefore(s, from);
        if (IsSpace(c.value)) break;
        from -= c.bytes;
      }
      if (most == 0) from = 0;
      if (!add(from, to)) return rt.Exhausted();
      if (most == 0) break;
      to = BeforeSpaces(s.substr(0, from));
    }
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  for (size_t from = SkipSpaces(s, 0); from < s.size(); --most) {
    size_t to = from;
    while (most != 0 && to < s.size()) {
      const CodePoint c = DecodeUtf8(s, to);
      if (IsSpace(c.value)) break;
      to += c.bytes;
    }
    if (most == 0) to = s.size();
    if (!add(from, to)) return rt.Exhausted();
    if (most == 0) break;
    from = SkipSpaces(s, to);
  }
  return parts;
}

template <bool kRight>
Result<Value> Split(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("split", args, {"sep", "maxsplit"}));
  SNUG_ASSIGN(const int64_t most, p.Int(1, -1));
  SNUG_ASSIGN(std::vector<Value> parts,
              SplitText(rt, self, p.has(0) ? &p[0] : nullptr, most < 0 ? -1 : most, kRight));
  return rt.NewList(std::move(parts));
}

Result<Value> SplitLinesMethod(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("splitlines", args, {"keepends"}));
  SNUG_ASSIGN(std::vector<Value> lines, SplitLines(rt, self, p.True(0, false)));
  return rt.NewList(std::move(lines));
}

template <bool kRight>
Result<Value> Partition(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("partition", args, {"/sep"}, 1));
  SNUG_ASSIGN(const std::string_view sep, p.String(0, ""));
  if (sep.empty()) return Fail("empty separator");
  const std::string_view s = self.text();
  if (!rt.SpendOn(s.size())) return rt.Exhausted();
  const size_t at = kRight ? FindLastText(s, sep) : FindText(s, sep, 0);
  const auto make = [&](std::string_view part) { return Like(rt, self, std::string(part)); };
  if (at == std::string_view::npos) {
    if (kRight) return rt.NewTuple({make(""), make(""), make(s)});
    return rt.NewTuple({make(s), make(""), make("")});
  }
  return rt.NewTuple({make(s.substr(0, at)), make(sep), make(s.substr(at + sep.size()))});
}

Result<Value> ReplaceMethod(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("replace", args, {"/old", "/new", "count"}, 2));
  SNUG_ASSIGN(const std::string_view old, p.String(0, ""));
  SNUG_TRY(p.String(1, ""));
  SNUG_ASSIGN(const int64_t count, p.Int(2, -1));
  SNUG_ASSIGN(const std::string with, TextWithin(rt, self.str().markup, p[1]));
  return Replace(rt, self, old, with, count);
}

Result<Value> JoinMethod(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("join", args, {"/iterable"}, 1));
  Text out(rt);
  bool first = true;
  SNUG_TRY(ForEach(rt, p[0], [&](const Value& item) -> Status {
    if (!item.is(Kind::kString)) {
      return Fail(fmt::format("join() wants str items, not {}", TypeName(item)));
    }
    if (!first) out.Append(self.text());
    first = false;
    SNUG_ASSIGN(const std::string text, TextWithin(rt, self.str().markup, item));
    out.Append(text);
    return out.full() ? Status(rt.TooLarge()) : Status();
  }));
  return out.Finish(self.str().markup);
}

enum class Justify : uint8_t { kLeft, kRight, kCenter };
template <Justify kWhere>
Result<Value> Pad(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("a method that pads", args, {"/width", "/fillchar"}, 1));
  SNUG_ASSIGN(const int64_t width, p.Int(0, 0));
  SNUG_ASSIGN(const std::string_view fill, p.String(1, " "));
  if (p.has(1) && p[1].str().size() != 1) return Fail("the fill character must be one character");
  const int64_t missing = width - self.str().size();
  const int64_t left = kWhere == Justify::kLeft    ? 0
                       : kWhere == Justify::kRight ? missing
                                                   : missing / 2 + (missing & width & 1);
  Text out(rt);
  if (missing > 0) out.Fill(fill, left);
  out.Append(self.text());
  if (missing > 0) out.Fill(fill, missing - left);
  return out.Finish(self.str().markup);
}

Result<Value> ZeroFill(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("zfill", args, {"/width"}, 1));
  SNUG_ASSIGN(const int64_t width, p.Int(0, 0));
  std::string_view s = self.text();
  Text out(rt);
  const int64_t missing = width - self.str().size();
  if (!s.empty() && (s[0] == '+' || s[0] == '-')) {
    out.Append(s[0]);
    s.remove_prefix(1);
  }
  out.Fill("0", missing);
  out.Append(s);
  return out.Finish(self.str().markup);
}

Result<Value> ExpandTabs(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("expandtabs", args, {"tabsize"}));
  SNUG_ASSIGN(const int64_t size, p.Int(0, 8));
  const std::string_view s = self.text();
  Text out(rt);
  int64_t column = 0;
  for (size_t at = 0; at < s.size();) {
    const uint32_t n = DecodeUtf8(s, at).bytes;
    if (s[at] == '\t') {
      const int64_t gap = size > 0 ? size - column % size : 0;
      out.Fill(" ", gap);
      column += gap;
    } else {
      out.Append(s.substr(at, n));
      column = s[at] == '\n' || s[at] == '\r' ? 0 : column + 1;
    }
    if (out.full()) return rt.TooLarge();
    at += n;
  }
  return out.Finish(self.str().markup);
}

template <bool kEnd>
Result<Value> RemoveAffix(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("removeprefix", args, {"/affix"}, 1));
  SNUG_ASSIGN(const std::string_view affix, p.String(0, ""));
  std::string_view s = self.text();
  if (!rt.SpendOn(s.size())) return rt.Exhausted();
  if (s.size() >= affix.size()) {
    if (kEnd && s.substr(s.size() - affix.size()) == affix) s.remove_suffix(affix.size());
    if (!kEnd && s.substr(0, affix.size()) == affix) s.remove_prefix(affix.size());
  }
  return Like(rt, self, std::string(s));
}

Result<Value> FormatMap(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("format_map", args, {"/mapping"}, 1));
  if (!p[0].is(Kind::kDict)) return Fail("format_map() wants a dict");
  Args named;
  for (const Dict::Entry& e : p[0].dict().entries) {
    if (!rt.Spend()) return rt.Exhausted();
    if (e.key.is(Kind::kString)) named.named.emplace_back(e.key.text(), e.value);
  }
  return FormatBraces(rt, self, named);
}

template <class F>
Result<Value> AllChars(Runtime& rt, const Value& self, const Args& args, bool of_empty,
                       const F& is) {
  SNUG_TRY(Params::Bind("a method of characters", args, {}));
  const std::string_view s = self.text();
  if (!rt.SpendOn(8 * s.size())) return rt.Exhausted();
  if (s.empty()) return Value::Bool(of_empty);
  for (size_t at = 0; at < s.size();) {
    const CodePoint c = DecodeUtf8(s, at);
    if (!is(c.value)) return Value::Bool(false);
    at += c.bytes;
  }
  return Value::Bool(true);
}

bool IsNumberChar(uint32_t c) { return (CharTable::Get()[c] & kIsNumber) != 0; }
bool IsAlphanumeric(uint32_t c) { return c != '_' && IsWordChar(c); }
bool IsLetterChar(uint32_t c) { return (CharTable::Get()[c] & kIsLetter) != 0; }

template <bool (*kIs)(uint32_t), bool kOfEmpty = false>
Result<Value> Is(Runtime& rt, const Value& self, const Args& args) {
  return AllChars(rt, self, args, kOfEmpty, kIs);
}

template <Case kCase>
Result<Value> IsCase(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("a method of case", args, {}));
  if (!rt.SpendOn(8 * self.text().size())) return rt.Exhausted();
  return Value::Bool(IsInCase(self.text(), kCase));
}

Result<Value> IsTitle(Runtime& rt, const Value& self, const Args& args) {
  bool any = false;
  bool before = false, good = true;
  SNUG_ASSIGN(const Value ran, AllChars(rt, self, args, true, [&](uint32_t c) {
                const bool upper = HasCase(c, Case::kLower) ? false : HasCase(c, Case::kUpper);
                const bool lower = HasCase(c, Case::kLower);
                good = good && !(upper && before) && !(lower && !before);
                before = upper || lower;
                any = any || before;
                return true;
              }));
  return Value::Bool(ran.boolean() && any && good);
}

Result<Value> IsIdentifier(Runtime& rt, const Value& self, const Args& args) {
  const std::string_view s = self.text();
  if (!s.empty() && s[0] >= '0' && s[0] <= '9') return Value::Bool(false);
  return AllChars(rt, self, args, false, IsWordChar);
}

Result<Value> Unsupported(Runtime&, const Value&, const Args&) {
  return Fail("encode(), translate() and maketrans() are not supported");
}

bool IsAsciiChar(uint32_t c) { return c < 0x80; }

// Sorted by name.
constexpr Method kMethods[] = {
    {"capitalize", CapitalizeMethod},
    {"casefold", CaseMethod<Case::kFold>},
    {"center", Pad<Justify::kCenter>},
    {"count", Count},
    {"encode", Unsupported},
    {"endswith", Affix<true>},
    {"expandtabs", ExpandTabs},
    {"find", FindMethodOf<false, false>},
    {"format", FormatBraces},
    {"format_map", FormatMap},
    {"index", FindMethodOf<false, true>},
    {"isalnum", Is<IsAlphanumeric>},
    {"isalpha", Is<IsLetterChar>},
    {"isascii", Is<IsAsciiChar, true>},
    {"isdecimal", Is<IsNumberChar>},
    {"isdigit", Is<IsNumberChar>},
    {"isidentifier", IsIdentifier},
    {"islower", IsCase<Case::kLower>},
    {"isnumeric", Is<IsNumberChar>},
    {"isprintable", Is<IsPrintable, true>},
    {"isspace", Is<IsSpace>},
    {"istitle", IsTitle},
    {"isupper", IsCase<Case::kUpper>},
    {"join", JoinMethod},
    {"ljust", Pad<Justify::kLeft>},
    {"lower", CaseMethod<Case::kLower>},
    {"lstrip", StripMethod<Side::kLeft>},
    {"maketrans", Unsupported},
    {"partition", Partition<false>},
    {"removeprefix", RemoveAffix<false>},
    {"removesuffix", RemoveAffix<true>},
    {"replace", ReplaceMethod},
    {"rfind", FindMethodOf<true, false>},
    {"rindex", FindMethodOf<true, true>},
    {"rjust", Pad<Justify::kRight>},
    {"rpartition", Partition<true>},
    {"rsplit", Split<true>},
    {"rstrip", StripMethod<Side::kRight>},
    {"split", Split<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", Affix<false>},
    {"strip", StripMethod<Side::kBoth>},
    {"swapcase", SwapCase},
    {"title", TitleMethod},
    {"translate", Unsupported},
    {"upper", CaseMethod<Case::kUpper>},
    {"zfill", ZeroFill},
};

}  // namespace

bool IsInCase(std::string_view s, Case which) {
  const Case other = which == Case::kUpper ? Case::kLower : Case::kUpper;
  bool any = false;
  for (size_t at = 0; at < s.size();) {
    const CodePoint c = DecodeUtf8(s, at);
    if (HasCase(c.value, other)) return false;
    any = any || HasCase(c.value, which);
    at += c.bytes;
  }
  return any;
}

const Method* FindStringMethod(std::string_view name) {
  const Method* m =
      std::lower_bound(std::begin(kMethods), std::end(kMethods), name,
                       [](const Method& method, std::string_view n) { return method.name < n; });
  return m != std::end(kMethods) && m->name == name ? m : nullptr;
}

}  // namespace snug::jinja
