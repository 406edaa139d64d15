#include "text/jinja/access.h"

#include <algorithm>

#include "text/jinja/chars.h"
#include "text/jinja/dict.h"
#include "text/jinja/numbers.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

Error Unsafe(const Value& v, std::string_view name) {
  return Fail(fmt::format("access to attribute '{}' of '{}' object is unsafe", name, TypeName(v)));
}

Value Missing(Runtime& rt, const Value& v, const Value& key) {
  // As Python's Jinja names what lacks an item.
  std::string owner = v.is(Kind::kNone) ? "None" : fmt::format("{} object", TypeName(v));
  if (key.is(Kind::kString)) {
    return rt.NewUndefined(fmt::format("'{}' has no attribute '{}'", owner, key.text()));
  }
  Text name(rt);
  const bool printed = AppendRepr(key, &name).ok();
  return rt.NewUndefined(
      fmt::format("{} has no element {}", owner, printed ? name.str() : "of that name"));
}

Result<Value> Element(Runtime& rt, const Value& v, int64_t index) {
  const int64_t size = *Length(v);
  if (index < 0) index += size;
  assert(index >= 0 && index < size);
  switch (v.kind()) {
    case Kind::kString: {
      const Str& s = v.str();
      const size_t at = s.Offset(index);
      const uint32_t n = s.ascii ? 1 : DecodeUtf8(s.text, at).bytes;
      return rt.NewString(s.text.substr(at, n), s.markup);
    }
    case Kind::kRange:
      return Value::Int(v.range().at(index));
    default:
      return v.items()[static_cast<size_t>(index)];
  }
}

// A slice's bounds on a sequence, as Python clips them.
struct Bounds {
  int64_t start = 0, end = 0, step = 1, count = 0;
};

Result<Bounds> Clip(int64_t size, const Value& start, const Value& stop, const Value& step) {
  for (const Value* v : {&start, &stop, &step}) {
    if (!v->is(Kind::kNone) && !v->is_integral()) {
      return Fail(fmt::format("slice indices must be ints or none, not {}", TypeName(*v)));
    }
  }
  Bounds b;
  if (!step.is(Kind::kNone)) b.step = step.integer();
  if (b.step == 0) return Fail("slice step cannot be zero");
  b.step = std::clamp(b.step, -INT64_MAX, INT64_MAX);
  const bool forward = b.step > 0;
  const int64_t low = forward ? 0 : -1, high = forward ? size : size - 1;
  const auto clipped = [&](const Value& v, int64_t fallback) {
    if (v.is(Kind::kNone)) return fallback;
    const int64_t i = v.integer();
    return std::clamp(i < 0 ? i + size : i, low, high);
  };
  b.start = clipped(start, forward ? low : high);
  b.end = clipped(stop, forward ? high : low);
  if (forward && b.end > b.start) b.count = (b.end - b.start - 1) / b.step + 1;
  if (!forward && b.end < b.start) b.count = (b.start - b.end - 1) / -b.step + 1;
  return b;
}

Result<Value> SliceString(Runtime& rt, const Str& s, const Bounds& b) {
  if (b.step == 1) {
    const size_t from = s.Offset(b.start), to = s.Offset(b.start + b.count);
    if (!rt.SpendOn(to - from)) return rt.Exhausted();
    return rt.NewString(s.text.substr(from, to - from), s.markup);
  }
  if (!rt.Spend(static_cast<uint64_t>(b.count))) return rt.Exhausted();
  std::string out;
  for (int64_t i = 0; i < b.count; ++i) {
    const size_t at = s.Offset(b.start + i * b.step);
    out.append(s.text, at, DecodeUtf8(s.text, at).bytes);
  }
  return rt.NewString(std::move(out), s.markup);
}

}  // namespace

const Method* FindMethod(const Value& v, std::string_view name) {
  switch (v.kind()) {
    case Kind::kString:
      return FindStringMethod(name);
    case Kind::kList:
      return FindListMethod(name);
    case Kind::kTuple:
      return FindTupleMethod(name);
    case Kind::kDict:
      return FindDictMethod(name);
    default:
      return nullptr;
  }
}

Result<Value> CallMethod(Runtime& rt, const Method& method, const Value& self, const Args& args) {
  if (method.call == nullptr) return Unsafe(self, method.name);
  return method.call(rt, self, args);
}

Result<std::optional<Value>> FindAttribute(Runtime& rt, const Value& v, std::string_view name) {
  if (const Method* m = FindMethod(v, name)) {
    if (m->call == nullptr) return std::optional(rt.NewUndefined(Unsafe(v, name).message));
    return std::optional(NewFunction(rt, m->call, v));
  }
  switch (v.kind()) {
    case Kind::kUndefined:
      return FailUndefined(v);
    case Kind::kNamespace: {
      const Value* found = v.ns().attributes->Find(name);
      return found == nullptr ? std::nullopt : std::optional(*found);
    }
    case Kind::kSpecial:
      return v.special().Attribute(rt, name);
    case Kind::kTuple:
      if (static_cast<const List*>(v.object())->grouped) {
        if (name == "grouper") return std::optional(v.items()[0]);
        if (name == "list") return std::optional(v.items()[1]);
      }
      break;
    default:
      break;
  }
  // Python's own attributes exist on every object, out of the sandbox's reach.
  if (name.size() > 4 && name.substr(0, 2) == "__" && name.substr(name.size() - 2) == "__") {
    return std::optional(rt.NewUndefined(Unsafe(v, name).message));
  }
  return std::optional<Value>();
}

Result<Value> GetAttribute(Runtime& rt, const Value& v, std::string_view name) {
  SNUG_ASSIGN(std::optional<Value> found, FindAttribute(rt, v, name));
  if (found) return *std::move(found);
  if (v.is(Kind::kDict)) {
    if (const Value* value = v.dict().Find(name)) return *value;
  }
  return Missing(rt, v, rt.NewString(std::string(name)));
}

Result<Value> GetItem(Runtime& rt, const Value& v, const Value& key) {
  if (!v.defined()) return FailUndefined(v);
  if (key.is(Kind::kString) && !rt.SpendOn(key.text().size())) return rt.Exhausted();
  if (v.is(Kind::kDict)) {
    if (key.is(Kind::kString)) {
      if (const Value* value = v.dict().Find(key.text())) return *value;
    } else {
      // What cannot be hashed is no key.
      const Result<const Value*> value = DictFind(rt, v.dict(), key);
      if (value.ok() && *value != nullptr) return **value;
      if (!rt.Spend()) return rt.Exhausted();
    }
  } else if (key.is_integral() && (v.is(Kind::kString) || v.is_sequence() || v.is(Kind::kRange))) {
    const int64_t size = *Length(v);
    if (key.integer() >= -size && key.integer() < size) return Element(rt, v, key.integer());
  }
  if (key.is(Kind::kString)) {
    SNUG_ASSIGN(std::optional<Value> found, FindAttribute(rt, v, key.text()));
    if (found) return *std::move(found);
  }
  return Missing(rt, v, key);
}

Result<Value> GetSlice(Runtime& rt, const Value& v, const Value& start, const Value& stop,
                       const Value& step) {
  if (!v.defined()) return FailUndefined(v);
  if (!v.is(Kind::kString) && !v.is_sequence() && !v.is(Kind::kRange)) {
    return Fail(fmt::format("'{}' object cannot be sliced", TypeName(v)));
  }
  SNUG_ASSIGN(const Bounds b, Clip(*Length(v), start, stop, step));
  if (v.is(Kind::kString)) return SliceString(rt, v.str(), b);
  if (v.is(Kind::kRange)) {
    const Range& r = v.range();
    if (b.count == 0) return rt.NewRange(0, 0, 1, 0);
    int64_t by = 0, end = 0;
    if (__builtin_mul_overflow(r.step, b.step, &by)) by = r.step;  // then it has one item
    if (__builtin_mul_overflow(r.step, b.end, &end) || __builtin_add_overflow(r.start, end, &end)) {
      end = r.stop;
    }
    return rt.NewRange(r.at(b.start), end, by, b.count);
  }
  if (!rt.Spend(static_cast<uint64_t>(b.count))) return rt.Exhausted();
  if (!rt.Fits(static_cast<uint64_t>(b.count) * sizeof(Value))) return rt.TooLarge();
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(b.count));
  for (int64_t i = 0; i < b.count; ++i) {
    items.push_back(v.items()[static_cast<size_t>(b.start + i * b.step)]);
  }
  return rt.NewList(std::move(items), v.kind());
}

Result<AttributePath> AttributePath::Parse(Runtime& rt, const Value& path) {
  AttributePath p;
  if (path.is(Kind::kNone)) return p;
  if (!path.is(Kind::kString)) {
    p.parts_.push_back(path);
    return p;
  }
  const std::string_view s = path.text();
  if (!rt.SpendOn(s.size())) return rt.Exhausted();
  for (size_t at = 0; at <= s.size();) {
    if (!rt.Spend()) return rt.Exhausted();
    const size_t end = std::min(s.find('.', at), s.size());
    const std::string_view part = s.substr(at, end - at);
    bool too_large = false;
    const bool digits =
        !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    const std::optional<int64_t> number = digits ? ParseInt(part, 10, &too_large) : std::nullopt;
    p.parts_.push_back(number ? Value::Int(*number) : rt.NewString(std::string(part)));
    at = end + 1;
  }
  return p;
}

Result<Value> AttributePath::Get(Runtime& rt, const Value& item, const Value* fallback) const {
  Value v = item;
  for (const Value& part : parts_) {
    SNUG_ASSIGN(v, GetItem(rt, v, part));
    if (!v.defined() && fallback != nullptr) v = *fallback;
  }
  return v;
}

}  // namespace snug::jinja
