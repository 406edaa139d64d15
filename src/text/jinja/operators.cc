#include "text/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "text/jinja/chars.h"
#include "text/jinja/dict.h"
#include "text/jinja/format.h"
#include "text/jinja/iterate.h"

namespace snug::jinja {
namespace {

constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

Error Unsupported(Operator op, const Value& a, const Value& b) {
  for (const Value* v : {&a, &b}) {
    if (!v->defined()) return FailUndefined(*v);
  }
  if (op == Operator::kAdd && (a.is(Kind::kString) || a.is_sequence())) {
    return Fail(
        fmt::format("can only concatenate {0} (not \"{1}\") to {0}", TypeName(a), TypeName(b)));
  }
  return Fail(fmt::format("unsupported operand types for {}: '{}' and '{}'",
                          kSymbols[static_cast<size_t>(op)], TypeName(a), TypeName(b)));
}

Error Overflow() { return Fail("an integer does not fit in 64 bits"); }
Error ByZero() { return Fail("division by zero"); }

Result<Value> PowerOfInts(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return Fail("zero cannot be raised to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Int(result);
}

Result<Value> OnInts(Operator op, int64_t a, int64_t b) {
  int64_t r = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &r)) return Overflow();
      return Value::Int(r);
    case Operator::kSub:
      if (__builtin_sub_overflow(a, b, &r)) return Overflow();
      return Value::Int(r);
    case Operator::kMul:
      if (__builtin_mul_overflow(a, b, &r)) return Overflow();
      return Value::Int(r);
    case Operator::kDiv:
      if (b == 0) return ByZero();
      return Value::Float(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDiv:
    case Operator::kMod:
      if (b == 0) return ByZero();
      if (b == -1) {  // the one quotient that overflows
        if (op == Operator::kMod) return Value::Int(0);
        return a == INT64_MIN ? Result<Value>(Overflow()) : Value::Int(-a);
      }
      r = a % b;
      if (op == Operator::kMod) return Value::Int(r != 0 && (r < 0) != (b < 0) ? r + b : r);
      return Value::Int(a / b - (r != 0 && (r < 0) != (b < 0) ? 1 : 0));
    case Operator::kPow:
      return PowerOfInts(a, b);
  }
  return Overflow();
}

Result<Value> OnFloats(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSub:
      return Value::Float(a - b);
    case Operator::kMul:
      return Value::Float(a * b);
    case Operator::kDiv:
      if (b == 0) return ByZero();
      return Value::Float(a / b);
    case Operator::kFloorDiv:
    case Operator::kMod: {
      if (b == 0) return ByZero();
      double rest = std::fmod(a, b);
      double quotient = (a - rest) / b;
      if (rest != 0 && (rest < 0) != (b < 0)) {
        rest += b;
        quotient -= 1;
      }
      if (rest == 0) rest = std::copysign(0.0, b);
      if (op == Operator::kMod) return Value::Float(rest);
      const double floor = std::floor(quotient);
      return Value::Float(quotient - floor > 0.5 ? floor + 1 : floor);
    }
    case Operator::kPow: {
      const double r = std::pow(a, b);
      if (a == 0 && b < 0) return Fail("zero cannot be raised to a negative power");
      if (std::isfinite(a) && std::isfinite(b) && !std::isfinite(r)) {
        return Fail(std::isnan(r) ? "a negative number to a fractional power is complex"
                                  : "the power is too large for a float");
      }
      return Value::Float(r);
    }
  }
  return ByZero();
}

Result<Value> Join(Runtime& rt, const Value& a, const Value& b) {
  const bool markup = a.str().markup || b.str().markup;
  SNUG_ASSIGN(const std::string left, TextWithin(rt, markup, a));
  SNUG_ASSIGN(const std::string right, TextWithin(rt, markup, b));
  Text out(rt);
  out.Append(left);
  out.Append(right);
  return out.Finish(markup);
}

Result<Value> Append(Runtime& rt, const Value& a, const Value& b) {
  const size_t n = a.items().size() + b.items().size();
  if (!rt.Fits(n * sizeof(Value))) return rt.TooLarge();
  if (!rt.Spend(n)) return rt.Exhausted();
  std::vector<Value> items;
  items.reserve(n);
  items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return rt.NewList(std::move(items), a.kind());
}

Result<Value> Repeat(Runtime& rt, const Value& what, int64_t times) {
  if (times < 0) times = 0;
  if (what.is(Kind::kString)) {
    Text out(rt);
    out.Fill(what.text(), times);
    return out.Finish(what.str().markup);
  }
  const std::vector<Value>& items = what.items();
  const uint64_t n = items.size();
  if (n != 0 && static_cast<uint64_t>(times) > rt.heap.room() / (n * sizeof(Value))) {
    return rt.TooLarge();
  }
  if (!rt.Spend(n * static_cast<uint64_t>(times))) return rt.Exhausted();
  std::vector<Value> out;
  out.reserve(n * static_cast<uint64_t>(times));
  for (; n != 0 && times > 0; --times) out.insert(out.end(), items.begin(), items.end());
  return rt.NewList(std::move(out), what.kind());
}

// -1, 0 or 1; nothing for a NaN.
std::optional<int> OrderNumbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  }
  // Wide enough for every 64-bit integer as well, where the processor has such a type.
  const auto wide = [](const Value& v) {
    return v.is(Kind::kFloat) ? static_cast<long double>(v.number())
                              : static_cast<long double>(v.integer());
  };
  const long double x = wide(a), y = wide(b);
  if (std::isnan(x) || std::isnan(y)) return std::nullopt;
  return x < y ? -1 : x > y;
}

bool Holds(int order, Relation relation) {
  switch (relation) {
    case Relation::kEqual:
      return order == 0;
    case Relation::kNotEqual:
      return order != 0;
    case Relation::kLess:
      return order < 0;
    case Relation::kLessEqual:
      return order <= 0;
    case Relation::kGreater:
      return order > 0;
    case Relation::kGreaterEqual:
      return order >= 0;
  }
  return false;
}

Result<bool> EqualItems(Runtime& rt, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    SNUG_ASSIGN(const bool same, Equal(rt, a[i], b[i]));
    if (!same) return false;
  }
  return true;
}

Result<bool> EqualDicts(Runtime& rt, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const Dict::Entry& e : a.entries) {
    SNUG_ASSIGN(const Value* other, DictFind(rt, b, e.key));
    if (other == nullptr) return false;
    SNUG_ASSIGN(const bool same, Equal(rt, e.value, *other));
    if (!same) return false;
  }
  return true;
}

bool EqualRanges(const Range& a, const Range& b) {
  if (a.size != b.size) return false;
  return a.size == 0 || (a.start == b.start && (a.size == 1 || a.step == b.step));
}

}  // namespace

bool Truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.integer() != 0;
    case Kind::kFloat:
      return v.number() != 0;
    case Kind::kString:
      return !v.text().empty();
    default:
      return Length(v).value_or(1) != 0;
  }
}

std::optional<int64_t> Length(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return v.str().size();
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(v.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(v.dict().entries.size());
    case Kind::kView:
      return static_cast<int64_t>(v.view().dict.dict().entries.size());
    case Kind::kRange:
      return v.range().size;
    default:
      return std::nullopt;
  }
}

bool Same(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
      return a.object() == b.object();
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return a.integer() == b.integer();
    case Kind::kFloat:
      return false;
    case Kind::kString:
      return a.object() == b.object() || a.text() == b.text();
    default:
      return a.object() == b.object();
  }
}

Result<bool> Equal(Runtime& rt, const Value& a, const Value& b) {
  if (!rt.Spend()) return rt.Exhausted();
  if (a.is_number() && b.is_number()) return OrderNumbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  const Runtime::Nest nest(rt);
  if (nest.too_deep()) return rt.TooDeep();
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      if (a.text().size() != b.text().size()) return false;
      if (!rt.SpendOn(a.text().size())) return rt.Exhausted();
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple:
      return a.object() == b.object() ? Result<bool>(true) : EqualItems(rt, a.items(), b.items());
    case Kind::kDict:
      return a.object() == b.object() ? Result<bool>(true) : EqualDicts(rt, a.dict(), b.dict());
    case Kind::kRange:
      return EqualRanges(a.range(), b.range());
    default:
      return a.object() == b.object();
  }
}

Result<bool> Compare(Runtime& rt, const Value& a, const Value& b, Relation relation) {
  if (relation == Relation::kEqual || relation == Relation::kNotEqual) {
    SNUG_ASSIGN(const bool same, Equal(rt, a, b));
    return same == (relation == Relation::kEqual);
  }
  if (!rt.Spend()) return rt.Exhausted();
  if (a.is_number() && b.is_number()) {
    const std::optional<int> order = OrderNumbers(a, b);
    return order && Holds(*order, relation);
  }
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    if (!rt.SpendOn(std::min(a.text().size(), b.text().size()))) return rt.Exhausted();
    return Holds(a.text().compare(b.text()), relation);
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const Runtime::Nest nest(rt);
    if (nest.too_deep()) return rt.TooDeep();
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
      SNUG_ASSIGN(const bool same, Equal(rt, x[i], y[i]));
      if (!same) return Compare(rt, x[i], y[i], relation);
    }
    return Holds(x.size() < y.size() ? -1 : x.size() > y.size(), relation);
  }
  for (const Value* v : {&a, &b}) {
    if (!v->defined()) return FailUndefined(*v);
  }
  constexpr std::string_view kRelations[] = {"==", "!=", "<", "<=", ">", ">="};
  return Fail(fmt::format("'{}' not supported between '{}' and '{}'",
                          kRelations[static_cast<size_t>(relation)], TypeName(a), TypeName(b)));
}

Result<bool> Contains(Runtime& rt, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is(Kind::kString)) {
        return Fail(fmt::format("'in <str>' needs a str on its left, not {}", TypeName(item)));
      }
      if (!rt.SpendOn(container.text().size())) return rt.Exhausted();
      return FindText(container.text(), item.text(), 0) != std::string_view::npos;
    case Kind::kDict: {
      SNUG_ASSIGN(const Value* found, DictFind(rt, container.dict(), item));
      return found != nullptr;
    }
    case Kind::kView:
      if (container.view().part == View::Part::kKeys) {
        return Contains(rt, container.view().dict, item);
      }
      break;
    case Kind::kUndefined:
      return false;
    default:
      break;
  }
  Result<Value> iterator = Iterate(rt, container);
  if (!iterator.ok()) {
    return Fail(fmt::format("'in' needs a container, not '{}'", TypeName(container)));
  }
  Value next;
  while (true) {
    SNUG_ASSIGN(const bool more, iterator->iterator().Next(rt, &next));
    if (!more) return false;
    if (next.object() != nullptr && next.object() == item.object()) return true;
    SNUG_ASSIGN(const bool same, Equal(rt, next, item));
    if (same) return true;
  }
}

Result<Value> Arithmetic(Runtime& rt, Operator op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return OnInts(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return OnFloats(op, a.number(), b.number());
  const auto repeatable = [](const Value& v) { return v.is(Kind::kString) || v.is_sequence(); };
  switch (op) {
    case Operator::kAdd:
      if (a.is(Kind::kString) && b.is(Kind::kString)) return Join(rt, a, b);
      if (a.is_sequence() && a.kind() == b.kind()) return Append(rt, a, b);
      break;
    case Operator::kMul:
      if (repeatable(a) && b.is_integral()) return Repeat(rt, a, b.integer());
      if (repeatable(b) && a.is_integral()) return Repeat(rt, b, a.integer());
      break;
    case Operator::kMod:
      if (a.is(Kind::kString)) return FormatPercent(rt, a, b);
      break;
    default:
      break;
  }
  return Unsupported(op, a, b);
}

Result<Value> Negate(const Value& v) {
  if (v.is(Kind::kFloat)) return Value::Float(-v.number());
  if (v.is_integral()) {
    if (v.integer() == INT64_MIN) return Overflow();
    return Value::Int(-v.integer());
  }
  if (!v.defined()) return FailUndefined(v);
  return Fail(fmt::format("bad operand type for unary -: '{}'", TypeName(v)));
}

Result<Value> Plus(const Value& v) {
  if (v.is(Kind::kFloat)) return v;
  if (v.is_integral()) return Value::Int(v.integer());
  if (!v.defined()) return FailUndefined(v);
  return Fail(fmt::format("bad operand type for unary +: '{}'", TypeName(v)));
}

}  // namespace snug::jinja
