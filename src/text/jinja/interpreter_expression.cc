#include "text/jinja/access.h"
#include "text/jinja/dict.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"

namespace snug::jinja {

Result<Value> Interpreter::Eval(const Expr& e) {
  const Runtime::Nest nest(rt_);
  Result<Value> value = nest.too_deep() ? Result<Value>(rt_.TooDeep())
                        : rt_.Spend()   ? EvalOne(e)
                                        : Result<Value>(rt_.Exhausted());
  if (!value.ok()) return Located(std::move(value).error(), e.at);
  return value;
}

Result<Value> Interpreter::EvalOne(const Expr& e) {
  switch (e.type) {
    case Expr::Type::kConst:
      return constants_[static_cast<const Const&>(e).index];
    case Expr::Type::kName:
      return Lookup(static_cast<const Name&>(e).id);
    case Expr::Type::kTuple:
    case Expr::Type::kList: {
      SNUG_ASSIGN(std::vector<Value> items, EvalAll(static_cast<const Several&>(e).parts));
      const bool tuple = e.type == Expr::Type::kTuple;
      return rt_.NewList(std::move(items), tuple ? Kind::kTuple : Kind::kList);
    }
    case Expr::Type::kDict:
      return EvalDict(static_cast<const Several&>(e));
    case Expr::Type::kConditional:
      return EvalConditional(static_cast<const Several&>(e));
    case Expr::Type::kAnd:
    case Expr::Type::kOr:
      return EvalLogic(static_cast<const Several&>(e));
    case Expr::Type::kNot:
    case Expr::Type::kNegate:
    case Expr::Type::kPlus: {
      SNUG_ASSIGN(const Value v, Eval(*static_cast<const Several&>(e).parts[0]));
      if (e.type == Expr::Type::kNot) return Value::Bool(!Truthy(v));
      return e.type == Expr::Type::kNegate ? Negate(v) : Plus(v);
    }
    case Expr::Type::kCompare:
      return EvalCompare(static_cast<const Chain&>(e));
    case Expr::Type::kArithmetic:
      return EvalArithmetic(static_cast<const Chain&>(e));
    case Expr::Type::kConcat:
      return EvalConcat(static_cast<const Several&>(e));
    case Expr::Type::kAttribute: {
      const auto& attribute = static_cast<const Attribute&>(e);
      SNUG_ASSIGN(const Value object, Eval(*attribute.object));
      return GetAttribute(rt_, object, attribute.name);
    }
    case Expr::Type::kItem:
    case Expr::Type::kSlice:
      return EvalSubscript(static_cast<const Subscript&>(e));
    case Expr::Type::kCall:
      return EvalCall(static_cast<const Call&>(e), nullptr);
    case Expr::Type::kFilter:
      return EvalFilter(static_cast<const FilterExpr&>(e));
    case Expr::Type::kTest:
      return EvalTest(static_cast<const TestExpr&>(e));
  }
  return Value();
}

Result<std::vector<Value>> Interpreter::EvalAll(const std::vector<Expr*>& parts) {
  std::vector<Value> values;
  values.reserve(parts.size());
  for (const Expr* part : parts) {
    SNUG_ASSIGN(Value v, Eval(*part));
    values.push_back(std::move(v));
  }
  return values;
}

Result<Value> Interpreter::EvalDict(const Several& e) {
  const Ref<Dict> dict = NewDict(rt_);
  for (size_t i = 0; i < e.parts.size(); i += 2) {
    SNUG_ASSIGN(Value key, Eval(*e.parts[i]));
    SNUG_ASSIGN(Value value, Eval(*e.parts[i + 1]));
    SNUG_TRY(DictSet(rt_, *dict, std::move(key), std::move(value)));
  }
  return ToValue(dict);
}

Result<Value> Interpreter::EvalConditional(const Several& e) {
  SNUG_ASSIGN(const Value condition, Eval(*e.parts[0]));
  if (Truthy(condition)) return Eval(*e.parts[1]);
  if (e.parts.size() == 3) return Eval(*e.parts[2]);
  return rt_.NewUndefined("the inline if-expression was false and has no else");
}

Result<Value> Interpreter::EvalLogic(const Several& e) {
  const bool stop_at = e.type == Expr::Type::kOr;
  for (size_t i = 0; i + 1 < e.parts.size(); ++i) {
    SNUG_ASSIGN(const Value v, Eval(*e.parts[i]));
    if (Truthy(v) == stop_at) return v;
  }
  return Eval(*e.parts.back());
}

Result<Value> Interpreter::EvalCompare(const Chain& e) {
  SNUG_ASSIGN(Value left, Eval(*e.first));
  for (const Chain::Link& link : e.links) {
    SNUG_ASSIGN(Value right, Eval(*link.right));
    Result<bool> holds = link.in == Chain::Link::In::kNeither
                             ? Compare(rt_, left, right, link.relation)
                             : Contains(rt_, right, left);
    if (!holds.ok()) return Located(std::move(holds).error(), link.at);
    if (*holds == (link.in == Chain::Link::In::kNotIn)) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Result<Value> Interpreter::EvalArithmetic(const Chain& e) {
  SNUG_ASSIGN(Value left, Eval(*e.first));
  for (const Chain::Link& link : e.links) {
    SNUG_ASSIGN(const Value right, Eval(*link.right));
    Result<Value> result = Arithmetic(rt_, link.op, left, right);
    if (!result.ok()) return Located(std::move(result).error(), link.at);
    left = std::move(result).value();
  }
  return left;
}

Result<Value> Interpreter::EvalConcat(const Several& e) {
  SNUG_ASSIGN(const std::vector<Value> parts, EvalAll(e.parts));
  Text out(rt_);
  for (const Value& part : parts) SNUG_TRY(AppendText(part, &out));
  return out.Finish();
}

Result<Value> Interpreter::EvalSubscript(const Subscript& e) {
  SNUG_ASSIGN(const Value object, Eval(*e.object));
  Value index[3];
  for (size_t i = 0; i < 3; ++i) {
    if (e.index[i] == nullptr) continue;
    SNUG_ASSIGN(index[i], Eval(*e.index[i]));
  }
  if (e.type == Expr::Type::kItem) return GetItem(rt_, object, index[0]);
  return GetSlice(rt_, object, index[0], index[1], index[2]);
}

Result<Args> Interpreter::EvalArgs(const CallArgs& from) {
  Args args;
  SNUG_ASSIGN(args.positional, EvalAll(from.positional));
  for (const auto& [name, expr] : from.named) {
    SNUG_ASSIGN(Value v, Eval(*expr));
    args.named.emplace_back(name, std::move(v));
  }
  if (from.more_positional != nullptr) {
    SNUG_ASSIGN(const Value more, Eval(*from.more_positional));
    SNUG_ASSIGN(const std::vector<Value> items, ToVector(rt_, more));
    args.positional.insert(args.positional.end(), items.begin(), items.end());
  }
  if (from.more_named != nullptr) {
    SNUG_ASSIGN(const Value more, Eval(*from.more_named));
    if (!more.is(Kind::kDict)) return Fail("what follows ** must be a dict");
    const size_t given = args.named.size();
    for (const Dict::Entry& entry : more.dict().entries) {
      if (!rt_.Spend(1 + given)) return rt_.Exhausted();
      if (!entry.key.is(Kind::kString)) return Fail("what follows ** must have strings as keys");
      for (size_t i = 0; i < given; ++i) {
        if (args.named[i].first == entry.key.text()) {
          return Fail(fmt::format("argument '{}' is given twice", args.named[i].first));
        }
      }
      if (!rt_.SpendOn(entry.key.text().size())) return rt_.Exhausted();
      args.named.emplace_back(entry.key.text(), entry.value);
    }
  }
  return args;
}

Result<Value> Interpreter::EvalCall(const Call& e, const Value* caller) {
  Value callee, self;
  const Method* method = nullptr;
  if (e.callee->type == Expr::Type::kAttribute) {
    // A method is called without being made a value first.
    const auto& attribute = static_cast<const Attribute&>(*e.callee);
    SNUG_ASSIGN(self, Eval(*attribute.object));
    method = FindMethod(self, attribute.name);
    if (method == nullptr) {
      Result<Value> found = GetAttribute(rt_, self, attribute.name);
      if (!found.ok()) return Located(std::move(found).error(), attribute.at);
      callee = std::move(found).value();
    }
  } else {
    SNUG_ASSIGN(callee, Eval(*e.callee));
  }
  SNUG_ASSIGN(Args args, EvalArgs(e.args));
  if (caller != nullptr) args.named.emplace_back("caller", *caller);
  if (method != nullptr) return CallMethod(rt_, *method, self, args);
  if (callee.is(Kind::kSpecial)) return callee.special().Call(rt_, args);
  if (!callee.defined()) return FailUndefined(callee);
  return Fail(fmt::format("'{}' object is not callable", TypeName(callee)));
}

Result<Value> Interpreter::EvalFilter(const FilterExpr& e) {
  Value input;
  if (e.input != nullptr) {
    SNUG_ASSIGN(input, Eval(*e.input));
  } else {
    input = *block_text_;
  }
  if (e.filter == nullptr) return Fail(fmt::format("there is no filter '{}'", e.name));
  SNUG_ASSIGN(const Args args, EvalArgs(e.args));
  return e.filter(rt_, input, args);
}

Result<Value> Interpreter::EvalTest(const TestExpr& e) {
  SNUG_ASSIGN(const Value input, Eval(*e.input));
  if (e.test == nullptr) return Fail(fmt::format("there is no test '{}'", e.name));
  SNUG_ASSIGN(const Args args, EvalArgs(e.args));
  SNUG_ASSIGN(const bool passes, e.test(rt_, input, args));
  return Value::Bool(passes);
}

}  // namespace snug::jinja
