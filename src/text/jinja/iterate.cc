#include "text/jinja/iterate.h"

#include <cstring>

#include "text/jinja/chars.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

// Lists, tuples, dicts, views and ranges, by position.
class Indexed : public Iterator {
 public:
  explicit Indexed(Value v) : over_(std::move(v)), size_(*Length(over_)) {}
  void Clear() override { over_ = Value(); }
  Result<bool> Next(Runtime& rt, Value* out) override {
    if (at_ == size_) return false;
    if (!rt.Spend()) return rt.Exhausted();
    const size_t i = static_cast<size_t>(at_++);
    switch (over_.kind()) {
      case Kind::kDict:
        *out = over_.dict().entries[i].key;
        return true;
      case Kind::kView:
        *out = ViewItem(rt, over_.view(), i);
        return true;
      case Kind::kRange:
        *out = Value::Int(over_.range().at(static_cast<int64_t>(i)));
        return true;
      default:
        *out = over_.items()[i];
        return true;
    }
  }

 private:
  Value over_;
  const int64_t size_;
  int64_t at_ = 0;
};

class Characters : public Iterator {
 public:
  explicit Characters(Value v) : over_(std::move(v)) {}
  void Clear() override { over_ = Value(); }
  Result<bool> Next(Runtime& rt, Value* out) override {
    if (!over_.is(Kind::kString) || at_ >= over_.text().size()) return false;
    if (!rt.Spend()) return rt.Exhausted();
    const uint32_t n = DecodeUtf8(over_.text(), at_).bytes;
    *out = rt.NewString(std::string(over_.text().substr(at_, n)));
    at_ += n;
    return true;
  }

 private:
  Value over_;
  size_t at_ = 0;
};

class Nothing : public Iterator {
 public:
  Result<bool> Next(Runtime&, Value*) override { return false; }
};

}  // namespace

bool IsIterable(const Value& v) { return Length(v).has_value() || v.is(Kind::kIterator); }

Result<Value> Iterate(Runtime& rt, const Value& v) {
  switch (v.kind()) {
    case Kind::kIterator:
      return v;
    case Kind::kUndefined:
      return Value(Kind::kIterator, rt.heap.New<Nothing>(0).get());
    case Kind::kString:
      return Value(Kind::kIterator, rt.heap.New<Characters>(0, v).get());
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kView:
    case Kind::kRange:
      return Value(Kind::kIterator, rt.heap.New<Indexed>(0, v).get());
    default:
      return Fail(fmt::format("'{}' object is not iterable", TypeName(v)));
  }
}

Value IterateVector(Runtime& rt, std::vector<Value> items) {
  return Value(Kind::kIterator, rt.heap.New<Indexed>(0, rt.NewList(std::move(items))).get());
}

Result<std::vector<Value>> ToVector(Runtime& rt, const Value& v) {
  std::vector<Value> items;
  SNUG_TRY(ForEach(rt, v, [&](const Value& item) -> Status {
    if (!rt.Fits(2 * sizeof(Value) * (items.size() + 1))) return rt.TooLarge();
    items.push_back(item);
    return {};
  }));
  return items;
}

Value ViewItem(Runtime& rt, const View& view, size_t i) {
  const Dict::Entry& e = view.dict.dict().entries[i];
  switch (view.part) {
    case View::Part::kKeys:
      return e.key;
    case View::Part::kValues:
      return e.value;
    case View::Part::kItems:
      break;
  }
  return rt.NewTuple({e.key, e.value});
}

size_t FindText(std::string_view in, std::string_view what, size_t from) {
  if (from > in.size()) return std::string_view::npos;
  if (what.empty()) return from;
  // glibc's memmem is two-way: linear, where string_view's find is not.
  const void* at = memmem(in.data() + from, in.size() - from, what.data(), what.size());
  if (at == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(at) - in.data());
}

size_t FindLastText(std::string_view in, std::string_view what) {
  const std::string reversed(in.rbegin(), in.rend());
  const size_t at = FindText(reversed, std::string(what.rbegin(), what.rend()), 0);
  return at == std::string_view::npos ? at : in.size() - at - what.size();
}

}  // namespace snug::jinja
