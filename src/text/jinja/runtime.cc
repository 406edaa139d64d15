#include "text/jinja/runtime.h"

#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

class Function : public Special {
 public:
  Function(Builtin function, Value self) : function_(function), self_(std::move(self)) {}
  void Clear() override { self_ = Value(); }
  std::string_view type() const override { return "function"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime& rt, const Args& args) override { return function_(rt, self_, args); }

 private:
  const Builtin function_;
  Value self_;
};

}  // namespace

Error Fail(std::string message) { return MakeError(Code::kBadInput, std::move(message)); }

Error FailUndefined(const Value& v) {
  if (v.object() == nullptr) return Fail("the value is undefined");
  return Fail(static_cast<const Str*>(v.object())->text);
}

Error Runtime::Exhausted() const {
  if (heap.full()) return TooLarge();
  return Fail(fmt::format("the template takes more than {} steps", limits_.steps));
}

Error Runtime::TooLarge() const {
  return Fail(fmt::format("the template's values take more than {} bytes", limits_.memory_bytes));
}

Error Runtime::TooDeep() const {
  return Fail(fmt::format("nested more than {} levels deep", depth_ - 1));
}

Value Runtime::NewString(std::string s, bool markup) {
  const uint64_t bytes = s.capacity();
  return Value(Kind::kString, heap.New<Str>(bytes, std::move(s), markup).get());
}

Value Runtime::NewList(std::vector<Value> items, Kind kind) {
  const uint64_t bytes = items.capacity() * sizeof(Value);
  return Value(kind, heap.New<List>(bytes, std::move(items)).get());
}

Value Runtime::NewRange(int64_t start, int64_t stop, int64_t step, int64_t size) {
  return Value(Kind::kRange, heap.New<Range>(0, start, stop, step, size).get());
}

Value Runtime::NewUndefined(std::string message) {
  const uint64_t bytes = message.capacity();
  return Value(Kind::kUndefined, heap.New<Str>(bytes, std::move(message), false).get());
}

std::string_view TypeName(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return v.str().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kView:
      return v.view().part == View::Part::kKeys     ? "dict_keys"
             : v.view().part == View::Part::kValues ? "dict_values"
                                                    : "dict_items";
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return "generator";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kSpecial:
      return v.special().type();
  }
  return "object";
}

void Text::Fill(std::string_view fill, int64_t n) {
  if (n <= 0 || fill.empty()) return;
  if (static_cast<uint64_t>(n) > (room_ - s_.size()) / fill.size()) {
    full_ = true;
    return;
  }
  if (fill.size() == 1) {
    s_.append(static_cast<size_t>(n), fill[0]);
    return;
  }
  s_.reserve(s_.size() + static_cast<size_t>(n) * fill.size());
  for (; n > 0; --n) s_.append(fill);
}

Result<std::string> Text::Take() {
  if (full_) return rt_.TooLarge();
  if (!rt_.SpendOn(s_.size())) return rt_.Exhausted();
  return std::move(s_);
}

Result<Value> Text::Finish(bool markup) {
  SNUG_ASSIGN(std::string s, Take());
  return rt_.NewString(std::move(s), markup);
}

Result<Params> Params::Bind(std::string_view callee, const Args& args,
                            std::initializer_list<const char*> names, size_t required) {
  assert(names.size() <= kMax);
  Params p;
  p.callee_ = callee;
  size_t n = 0;
  for (const char* name : names) p.names_[n++] = name;
  if (args.positional.size() > n) {
    return Fail(fmt::format("{}() takes at most {} arguments, {} were given", callee, n,
                            args.positional.size()));
  }
  for (size_t i = 0; i < args.positional.size(); ++i) p.values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    size_t i = 0;
    while (i < n && name != p.names_[i]) ++i;
    if (i == n) return Fail(fmt::format("{}() has no parameter '{}'", callee, name));
    if (p.values_[i] != nullptr) {
      return Fail(fmt::format("{}() got '{}' twice", callee, name));
    }
    p.values_[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (p.values_[i] == nullptr) {
      return Fail(fmt::format("{}() needs '{}'", callee, p.names_[i]));
    }
  }
  return p;
}

Result<int64_t> Params::Int(size_t i, int64_t fallback) const {
  if (!has(i)) return fallback;
  if (values_[i]->is_integral()) return values_[i]->integer();
  if (!values_[i]->defined()) return FailUndefined(*values_[i]);
  return Fail(fmt::format("'{}' of {}() must be an int, not {}", names_[i], callee_,
                          TypeName(*values_[i])));
}

Result<std::string_view> Params::String(size_t i, std::string_view fallback) const {
  if (!has(i)) return fallback;
  if (values_[i]->is(Kind::kString)) return values_[i]->text();
  if (!values_[i]->defined()) return FailUndefined(*values_[i]);
  return Fail(
      fmt::format("'{}' of {}() must be a str, not {}", names_[i], callee_, TypeName(*values_[i])));
}

bool Params::True(size_t i, bool fallback) const { return has(i) ? Truthy(*values_[i]) : fallback; }

Result<Value> Special::Call(Runtime&, const Args&) {
  return Fail(fmt::format("'{}' object is not callable", type()));
}

Result<std::optional<Value>> Special::Attribute(Runtime&, std::string_view) {
  return std::optional<Value>();
}

Value NewFunction(Runtime& rt, Builtin function, Value self) {
  return Value(Kind::kSpecial, rt.heap.New<Function>(0, function, std::move(self)).get());
}

}  // namespace snug::jinja
