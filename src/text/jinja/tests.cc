// The tests that follow `is`, and that select and its like take by name.
#include <map>

#include "text/jinja/builtins.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/strings.h"

namespace snug::jinja {
namespace {

template <bool (*kIs)(const Value&)>
Result<bool> Plain(Runtime&, const Value& value, const Args& args) {
  SNUG_TRY(Params::Bind("a test", args, {}));
  return kIs(value);
}

bool IsDefined(const Value& v) { return v.defined(); }
bool IsUndefined(const Value& v) { return !v.defined(); }
bool IsNone(const Value& v) { return v.is(Kind::kNone); }
bool IsBoolean(const Value& v) { return v.is(Kind::kBool); }
bool IsTrue(const Value& v) { return v.is(Kind::kBool) && v.boolean(); }
bool IsFalse(const Value& v) { return v.is(Kind::kBool) && !v.boolean(); }
bool IsInteger(const Value& v) { return v.is(Kind::kInt); }
bool IsFloat(const Value& v) { return v.is(Kind::kFloat); }
bool IsNumber(const Value& v) { return v.is_number(); }
bool IsString(const Value& v) { return v.is(Kind::kString); }
bool IsMapping(const Value& v) { return v.is(Kind::kDict); }
bool IsEscaped(const Value& v) { return v.is(Kind::kString) && v.str().markup; }
bool IsCallable(const Value& v) {
  return !v.defined() || (v.is(Kind::kSpecial) && v.special().callable());
}
bool IsSequence(const Value& v) { return Length(v).has_value() && !v.is(Kind::kView); }

template <Case kCase>
Result<bool> InCase(Runtime& rt, const Value& value, const Args& args) {
  SNUG_TRY(Params::Bind("a test", args, {}));
  SNUG_ASSIGN(const std::string text, TextWithin(rt, false, value));
  if (!rt.SpendOn(8 * text.size())) return rt.Exhausted();
  return IsInCase(text, kCase);
}

template <Relation kRelation>
Result<bool> Related(Runtime& rt, const Value& value, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("a comparison", args, {"/other"}, 1));
  return Compare(rt, value, p[0], kRelation);
}

Result<bool> Leaves(Runtime& rt, const Value& value, const Value& divisor, int64_t rest) {
  SNUG_ASSIGN(const Value r, Arithmetic(rt, Operator::kMod, value, divisor));
  return Equal(rt, r, Value::Int(rest));
}

template <int64_t kRest>
Result<bool> Parity(Runtime& rt, const Value& value, const Args& args) {
  SNUG_TRY(Params::Bind("a test", args, {}));
  return Leaves(rt, value, Value::Int(2), kRest);
}

Result<bool> DivisibleBy(Runtime& rt, const Value& value, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("divisibleby", args, {"num"}, 1));
  return Leaves(rt, value, p[0], 0);
}

Result<bool> SameAs(Runtime&, const Value& value, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("sameas", args, {"other"}, 1));
  return Same(value, p[0]);
}

Result<bool> In(Runtime& rt, const Value& value, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("in", args, {"seq"}, 1));
  return Contains(rt, p[0], value);
}

Result<bool> IsFilterName(Runtime&, const Value& value, const Args& args) {
  SNUG_TRY(Params::Bind("filter", args, {}));
  return value.is(Kind::kString) && FindFilter(value.text()) != nullptr;
}

Result<bool> IsTestName(Runtime&, const Value& value, const Args& args) {
  SNUG_TRY(Params::Bind("test", args, {}));
  return value.is(Kind::kString) && FindTest(value.text()) != nullptr;
}

}  // namespace

Test FindTest(std::string_view name) {
  static const auto* const kTests = new std::map<std::string_view, Test>{
      {"boolean", Plain<IsBoolean>},
      {"callable", Plain<IsCallable>},
      {"defined", Plain<IsDefined>},
      {"divisibleby", DivisibleBy},
      {"escaped", Plain<IsEscaped>},
      {"even", Parity<0>},
      {"false", Plain<IsFalse>},
      {"filter", IsFilterName},
      {"float", Plain<IsFloat>},
      {"in", In},
      {"integer", Plain<IsInteger>},
      {"iterable", Plain<IsIterable>},
      {"lower", InCase<Case::kLower>},
      {"mapping", Plain<IsMapping>},
      {"none", Plain<IsNone>},
      {"number", Plain<IsNumber>},
      {"odd", Parity<1>},
      {"sameas", SameAs},
      {"sequence", Plain<IsSequence>},
      {"string", Plain<IsString>},
      {"test", IsTestName},
      {"true", Plain<IsTrue>},
      {"undefined", Plain<IsUndefined>},
      {"upper", InCase<Case::kUpper>},
      {"==", Related<Relation::kEqual>},
      {"eq", Related<Relation::kEqual>},
      {"equalto", Related<Relation::kEqual>},
      {"!=", Related<Relation::kNotEqual>},
      {"ne", Related<Relation::kNotEqual>},
      {">", Related<Relation::kGreater>},
      {"gt", Related<Relation::kGreater>},
      {"greaterthan", Related<Relation::kGreater>},
      {">=", Related<Relation::kGreaterEqual>},
      {"ge", Related<Relation::kGreaterEqual>},
      {"<", Related<Relation::kLess>},
      {"lt", Related<Relation::kLess>},
      {"lessthan", Related<Relation::kLess>},
      {"<=", Related<Relation::kLessEqual>},
      {"le", Related<Relation::kLessEqual>},
  };
  const auto found = kTests->find(name);
  return found == kTests->end() ? nullptr : found->second;
}

}  // namespace snug::jinja
