// str() and repr() of values, and HTML escaping.
#include "text/jinja/chars.h"
#include "text/jinja/numbers.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

constexpr uint64_t kQuoted = 5;       // times longer that repr() can make a text
constexpr uint64_t kEscapedHtml = 6;  // times longer that escaping can

Status AppendItems(const std::vector<Value>& items, Text* out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out->Append(", ");
    SNUG_TRY(AppendRepr(items[i], out));
  }
  return {};
}

Status AppendDict(const Dict& dict, Text* out) {
  out->Append('{');
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) out->Append(", ");
    SNUG_TRY(AppendRepr(dict.entries[i].key, out));
    out->Append(": ");
    SNUG_TRY(AppendRepr(dict.entries[i].value, out));
  }
  out->Append('}');
  return {};
}

Status AppendView(const Value& v, Text* out) {
  out->Append(TypeName(v));
  out->Append("([");
  const auto& entries = v.view().dict.dict().entries;
  const View::Part part = v.view().part;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) out->Append(", ");
    if (part == View::Part::kItems) out->Append('(');
    if (part != View::Part::kValues) SNUG_TRY(AppendRepr(entries[i].key, out));
    if (part == View::Part::kItems) out->Append(", ");
    if (part != View::Part::kKeys) SNUG_TRY(AppendRepr(entries[i].value, out));
    if (part == View::Part::kItems) out->Append(')');
  }
  out->Append("])");
  return {};
}

void AppendRange(const Range& r, Text* out) {
  out->Append(r.step == 1 ? fmt::format("range({}, {})", r.start, r.stop)
                          : fmt::format("range({}, {}, {})", r.start, r.stop, r.step));
}

Status AppendQuoted(const Str& s, Text* out) {
  Runtime& rt = out->rt();
  if (!rt.Fits(kQuoted * s.text.size())) return rt.TooLarge();
  if (!rt.SpendOn(s.text.size())) return rt.Exhausted();
  if (s.markup) out->Append("Markup(");
  out->Append(Quote(s.text));
  if (s.markup) out->Append(')');
  return {};
}

}  // namespace

Status AppendRepr(const Value& v, Text* out) {
  Runtime& rt = out->rt();
  if (!rt.Spend()) return rt.Exhausted();
  if (out->full()) return rt.TooLarge();
  const Runtime::Nest nest(rt);
  if (nest.too_deep()) return rt.TooDeep();
  switch (v.kind()) {
    case Kind::kUndefined:
      out->Append("Undefined");
      return {};
    case Kind::kNone:
      out->Append("None");
      return {};
    case Kind::kBool:
      out->Append(v.boolean() ? "True" : "False");
      return {};
    case Kind::kInt:
      out->Append(fmt::format("{}", v.integer()));
      return {};
    case Kind::kFloat:
      out->Append(FloatText(v.number()));
      return {};
    case Kind::kString:
      return AppendQuoted(v.str(), out);
    case Kind::kList:
      out->Append('[');
      SNUG_TRY(AppendItems(v.items(), out));
      out->Append(']');
      return {};
    case Kind::kTuple:
      out->Append('(');
      SNUG_TRY(AppendItems(v.items(), out));
      out->Append(v.items().size() == 1 ? ",)" : ")");
      return {};
    case Kind::kDict:
      return AppendDict(v.dict(), out);
    case Kind::kView:
      return AppendView(v, out);
    case Kind::kRange:
      AppendRange(v.range(), out);
      return {};
    case Kind::kNamespace:
      out->Append("<Namespace ");
      SNUG_TRY(AppendDict(*v.ns().attributes, out));
      out->Append('>');
      return {};
    case Kind::kIterator:
    case Kind::kSpecial:
      out->Append(fmt::format("<{}>", TypeName(v)));
      return {};
  }
  return {};
}

Status AppendText(const Value& v, Text* out) {
  if (v.is(Kind::kString)) {
    out->Append(v.text());
    return {};
  }
  return v.defined() ? AppendRepr(v, out) : Status();
}

Result<Value> ToText(Runtime& rt, const Value& v) {
  if (v.is(Kind::kString)) return v;
  Text out(rt);
  SNUG_TRY(AppendText(v, &out));
  return out.Finish();
}

Result<std::string> TextWithin(Runtime& rt, bool markup, const Value& v) {
  Text out(rt);
  SNUG_TRY(AppendText(v, &out));
  SNUG_ASSIGN(std::string text, out.Take());
  if (!markup || (v.is(Kind::kString) && v.str().markup)) return text;
  if (!rt.Fits(kEscapedHtml * text.size())) return rt.TooLarge();
  return EscapeHtml(text);
}

Result<Value> Escape(Runtime& rt, const Value& v) {
  SNUG_ASSIGN(std::string text, TextWithin(rt, true, v));
  return rt.NewString(std::move(text), true);
}

}  // namespace snug::jinja
