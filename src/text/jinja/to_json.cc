#include "text/jinja/to_json.h"

#include <cmath>

#include "text/jinja/chars.h"
#include "text/jinja/iterate.h"
#include "text/jinja/numbers.h"
#include "text/jinja/operators.h"
#include "text/jinja/sort.h"

namespace snug::jinja {
namespace {

class Writer {
 public:
  Writer(Runtime& rt, Text* out) : rt_(rt), out_(*out) {}

  Status Configure(const Params& p) {
    ascii_ = p.True(0, false);
    sort_ = p.True(3, false);
    if (p.has(1) && !p[1].is(Kind::kNone)) {
      pretty_ = true;
      item_separator_.assign(1, ',');
      if (p[1].is(Kind::kString)) {
        indent_ = std::string(p[1].text());
      } else {
        SNUG_ASSIGN(const int64_t width, p.Int(1, 0));
        if (!rt_.Fits(static_cast<uint64_t>(std::max<int64_t>(width, 0)))) return rt_.TooLarge();
        indent_ = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
      }
    }
    if (p.has(2) && !p[2].is(Kind::kNone)) {
      SNUG_ASSIGN(const std::vector<Value> pair, ToVector(rt_, p[2]));
      if (pair.size() != 2 || !pair[0].is(Kind::kString) || !pair[1].is(Kind::kString)) {
        return Fail("tojson(): separators must be two strings");
      }
      item_separator_ = std::string(pair[0].text());
      key_separator_ = std::string(pair[1].text());
    }
    return {};
  }

  Status Write(const Value& v) {
    if (!rt_.Spend()) return rt_.Exhausted();
    if (out_.full()) return rt_.TooLarge();
    switch (v.kind()) {
      case Kind::kNone:
        out_.Append("null");
        return {};
      case Kind::kBool:
        out_.Append(v.boolean() ? "true" : "false");
        return {};
      case Kind::kInt:
        out_.Append(fmt::format("{}", v.integer()));
        return {};
      case Kind::kFloat:
        out_.Append(Number(v.number()));
        return {};
      case Kind::kString:
        return WriteString(v.text());
      case Kind::kList:
      case Kind::kTuple:
        return WriteList(v.items());
      case Kind::kDict:
        return WriteDict(v.dict());
      default:
        return Fail(fmt::format("an object of type {} cannot be written as JSON", TypeName(v)));
    }
  }

 private:
  static std::string Number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return FloatText(d);
  }

  Status WriteString(std::string_view s) {
    if (!rt_.SpendOn(s.size())) return rt_.Exhausted();
    out_.Append('"');
    size_t plain = 0;  // start of what needs no escape
    for (size_t at = 0; at < s.size();) {
      const unsigned char b = static_cast<unsigned char>(s[at]);
      if (b >= 0x20 && b != '"' && b != '\\' && (!ascii_ || b < 0x7f)) {
        ++at;
        continue;
      }
      out_.Append(s.substr(plain, at - plain));
      const CodePoint c = DecodeUtf8(s, at);
      AppendEscape(c.value);
      at += c.bytes;
      plain = at;
    }
    out_.Append(s.substr(plain));
    out_.Append('"');
    return {};
  }

  void AppendEscape(uint32_t c) {
    switch (c) {
      case '"':
        return out_.Append("\\\"");
      case '\\':
        return out_.Append("\\\\");
      case '\n':
        return out_.Append("\\n");
      case '\r':
        return out_.Append("\\r");
      case '\t':
        return out_.Append("\\t");
      case '\f':
        return out_.Append("\\f");
      case '\b':
        return out_.Append("\\b");
      default:
        break;
    }
    if (c < 0x10000) return out_.Append(fmt::format("\\u{:04x}", c));
    c -= 0x10000;
    out_.Append(fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (c >> 10), 0xdc00 + (c & 0x3ff)));
  }

  void NewLine() {
    if (!pretty_) return;
    out_.Append('\n');
    out_.Fill(indent_, level_);
  }

  Status WriteList(const std::vector<Value>& items) {
    if (items.empty()) {
      out_.Append("[]");
      return {};
    }
    const Runtime::Nest nest(rt_);
    if (nest.too_deep()) return rt_.TooDeep();
    out_.Append('[');
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.Append(item_separator_);
      NewLine();
      SNUG_TRY(Write(items[i]));
    }
    --level_;
    NewLine();
    out_.Append(']');
    return {};
  }

  Status WriteDict(const Dict& dict) {
    if (dict.entries.empty()) {
      out_.Append("{}");
      return {};
    }
    const Runtime::Nest nest(rt_);
    if (nest.too_deep()) return rt_.TooDeep();
    std::vector<size_t> order(dict.entries.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (sort_) {
      std::vector<Value> keys;
      for (const Dict::Entry& e : dict.entries) keys.push_back(e.key);
      SNUG_ASSIGN(order, SortedOrder(rt_, keys, false));
    }
    out_.Append('{');
    ++level_;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) out_.Append(item_separator_);
      NewLine();
      const Dict::Entry& e = dict.entries[order[i]];
      SNUG_TRY(WriteKey(e.key));
      out_.Append(key_separator_);
      SNUG_TRY(Write(e.value));
    }
    --level_;
    NewLine();
    out_.Append('}');
    return {};
  }

  Status WriteKey(const Value& key) {
    if (key.is(Kind::kString)) return WriteString(key.text());
    if (key.is(Kind::kNone)) return WriteString("null");
    if (key.is(Kind::kBool)) return WriteString(key.boolean() ? "true" : "false");
    if (key.is(Kind::kInt)) return WriteString(fmt::format("{}", key.integer()));
    if (key.is(Kind::kFloat)) return WriteString(Number(key.number()));
    return Fail(fmt::format("a key of type {} cannot be written as JSON", TypeName(key)));
  }

  Runtime& rt_;
  Text& out_;
  bool ascii_ = false, sort_ = false, pretty_ = false;
  std::string indent_, item_separator_ = ", ", key_separator_ = ": ";
  int64_t level_ = 0;
};

}  // namespace

Result<Value> ToJson(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p,
              Params::Bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  Text out(rt);
  Writer writer(rt, &out);
  SNUG_TRY(writer.Configure(p));
  SNUG_TRY(writer.Write(self));
  return out.Finish();
}

}  // namespace snug::jinja
