#include "text/jinja/interpreter.h"

#include <nlohmann/json.hpp>

#include "text/jinja/dict.h"
#include "text/jinja/iterate.h"
#include "text/jinja/lexer.h"
#include "text/jinja/loop.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

constexpr size_t kFewVariables = 12;  // of a scope that are searched one by one

class MacroValue : public Special {
 public:
  MacroValue(Interpreter& interpreter, const Signature& signature, Ref<Scope> closure)
      : interpreter_(interpreter), signature_(signature), closure_(std::move(closure)) {}
  void Clear() override { closure_ = Ref<Scope>(); }
  std::string_view type() const override { return "Macro"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime&, const Args& args) override {
    return interpreter_.CallMacro(signature_, closure_, args);
  }
  Result<std::optional<Value>> Attribute(Runtime& rt, std::string_view name) override {
    if (name == "name") return std::optional(rt.NewString(signature_.name));
    if (name == "catch_kwargs") return std::optional(Value::Bool(signature_.uses_kwargs));
    if (name == "catch_varargs") return std::optional(Value::Bool(signature_.uses_varargs));
    if (name == "caller") return std::optional(Value::Bool(signature_.uses_caller));
    if (name != "arguments") return std::optional<Value>();
    std::vector<Value> names;
    for (const auto& p : signature_.parameters) {
      names.push_back(rt.NewString(interpreter_.ast().names[p.id]));
    }
    return std::optional(rt.NewTuple(std::move(names)));
  }

 private:
  Interpreter& interpreter_;
  const Signature& signature_;
  Ref<Scope> closure_;
};

}  // namespace

void Scope::Clear() {
  parent = Ref<Scope>();
  Reset();
}

void Scope::Reset() {
  vars_.clear();
  index_.clear();
}

const Value* Scope::Find(uint32_t id) const {
  if (!index_.empty()) {
    const auto found = index_.find(id);
    return found == index_.end() ? nullptr : &vars_[found->second].second;
  }
  for (const auto& [name, value] : vars_) {
    if (name == id) return &value;
  }
  return nullptr;
}

void Scope::Set(Runtime& rt, uint32_t id, Value value) {
  if (const Value* found = Find(id)) {
    *const_cast<Value*>(found) = std::move(value);
    return;
  }
  if (vars_.size() == vars_.capacity()) rt.heap.Grow(this, (vars_.size() + 1) * 100);
  vars_.emplace_back(id, std::move(value));
  if (vars_.size() == kFewVariables) {
    for (size_t i = 0; i < vars_.size(); ++i) index_.emplace(vars_[i].first, i);
  } else if (vars_.size() > kFewVariables) {
    index_.emplace(id, vars_.size() - 1);
  }
}

// Makes a scope the current one until the end of a block.
class Interpreter::InScope {
 public:
  InScope(Interpreter& in, Ref<Scope> scope)
      : in_(in), before_(std::exchange(in.scope_, std::move(scope))) {}
  ~InScope() { in_.scope_ = std::move(before_); }
  InScope(const InScope&) = delete;
  InScope& operator=(const InScope&) = delete;

 private:
  Interpreter& in_;
  Ref<Scope> before_;
};

// Takes what is printed until the end of a block.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& in) : in_(in), before_(std::exchange(in.out_, &text_)) {}
  ~Capture() {
    in_.rt_.heap.Drop(text_.size());
    in_.out_ = before_;
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  Value Text() { return in_.rt_.NewString(text_); }

 private:
  Interpreter& in_;
  std::string text_;
  std::string* before_;
};

Interpreter::Interpreter(const Ast& ast, Runtime& rt) : ast_(ast), rt_(rt) {
  constants_.reserve(ast.constants.size());
  for (const ConstantData& c : ast.constants) {
    switch (c.kind) {
      case Kind::kBool:
        constants_.push_back(Value::Bool(c.integer != 0));
        break;
      case Kind::kInt:
        constants_.push_back(Value::Int(c.integer));
        break;
      case Kind::kFloat:
        constants_.push_back(Value::Float(c.number));
        break;
      case Kind::kString:
        constants_.push_back(rt.NewString(c.text));
        break;
      default:
        constants_.emplace_back();
    }
  }
  root_ = scope_ = NewScope({});
}

Ref<Scope> Interpreter::NewScope(const Ref<Scope>& parent) {
  return rt_.heap.New<Scope>(0, parent);
}

Error Interpreter::Located(Error error, uint32_t at) const {
  for (const auto& [name, value] : error.values) {
    if (name == "line") return error;
  }
  return At(std::move(error), ast_.source, at);
}

Status Interpreter::Print(std::string_view text) {
  if (text.size() > rt_.limits().output_bytes ||
      out_->size() > rt_.limits().output_bytes - text.size()) {
    return Fail(fmt::format("the template prints more than {} bytes", rt_.limits().output_bytes));
  }
  if (!rt_.Fits(text.size())) return rt_.TooLarge();
  if (!rt_.SpendOn(text.size())) return rt_.Exhausted();
  rt_.heap.Hold(text.size());
  out_->append(text);
  return {};
}

Result<Value> Interpreter::FromJson(const nlohmann::ordered_json& json, uint32_t depth) {
  using Type = nlohmann::ordered_json::value_t;
  if (depth > rt_.limits().depth) {
    return Fail(fmt::format("the input is nested more than {} levels deep", rt_.limits().depth));
  }
  if (!rt_.Spend()) return rt_.Exhausted();
  switch (json.type()) {
    case Type::boolean:
      return Value::Bool(json.get<bool>());
    case Type::number_integer:
      return Value::Int(json.get<int64_t>());
    case Type::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) return Fail("an integer of the input is too large");
      return Value::Int(json.get<int64_t>());
    case Type::number_float:
      return Value::Float(json.get<double>());
    case Type::string:
      return rt_.NewString(json.get_ref<const std::string&>());
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) {
        SNUG_ASSIGN(Value v, FromJson(item, depth + 1));
        items.push_back(std::move(v));
      }
      return rt_.NewList(std::move(items));
    }
    case Type::object: {
      const Ref<Dict> dict = NewDict(rt_);
      for (const auto& [key, item] : json.items()) {
        SNUG_ASSIGN(Value v, FromJson(item, depth + 1));
        DictSetText(rt_, *dict, key, std::move(v));
      }
      return ToValue(dict);
    }
    default:
      return Value();
  }
}

void Interpreter::Define(const std::string& name, const Value& value) {
  const auto id = ast_.ids.find(name);
  if (id != ast_.ids.end()) root_->Set(rt_, id->second, value);
}

Result<std::string> Interpreter::Run(const nlohmann::ordered_json& input) {
  for (const auto& [name, json] : input.items()) {
    const auto id = ast_.ids.find(name);
    if (id == ast_.ids.end() || name == "now") continue;
    SNUG_ASSIGN(Value v, FromJson(json, 1));
    root_->Set(rt_, id->second, std::move(v));
  }
  std::string out;
  out_ = &out;
  Unset(ast_.body);
  SNUG_TRY(Exec(ast_.body));
  return out;
}

Value Interpreter::Lookup(uint32_t id) {
  for (const Scope* s = scope_.get(); s != nullptr; s = s->parent.get()) {
    if (const Value* found = s->Find(id)) return *found;
  }
  const std::string& name = ast_.names[id];
  if (const Builtin function = FindGlobal(name)) return NewFunction(rt_, function);
  return rt_.NewUndefined(fmt::format("'{}' is undefined", name));
}

Status Interpreter::Assign(const Target& target, const Value& value) {
  switch (target.type) {
    case Target::Type::kName:
      scope_->Set(rt_, target.id, value);
      return {};
    case Target::Type::kNamespace: {
      const Value ns = Lookup(target.id);
      if (!ns.is(Kind::kNamespace)) {
        return Fail(fmt::format("'{}' is no namespace, so nothing of it can be set",
                                ast_.names[target.id]));
      }
      DictSetText(rt_, *ns.ns().attributes, target.attribute, value);
      return {};
    }
    case Target::Type::kTuple:
      break;
  }
  SNUG_ASSIGN(const std::vector<Value> items, ToVector(rt_, value));
  if (items.size() != target.parts.size()) {
    return Fail(fmt::format("{} values for {} names", items.size(), target.parts.size()));
  }
  for (size_t i = 0; i < items.size(); ++i) SNUG_TRY(Assign(*target.parts[i], items[i]));
  return {};
}

Result<Flow> Interpreter::Exec(const Body& body) {
  for (const Statement* statement : body.statements) {
    const Runtime::Nest nest(rt_);
    Result<Flow> flow = nest.too_deep() ? Result<Flow>(rt_.TooDeep())
                        : rt_.Spend()   ? ExecOne(*statement)
                                        : Result<Flow>(rt_.Exhausted());
    if (!flow.ok()) return Located(std::move(flow).error(), statement->at);
    if (*flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Flow> Interpreter::ExecOne(const Statement& s) {
  switch (s.type) {
    case Statement::Type::kOutput:
      return ExecOutput(static_cast<const Output&>(s));
    case Statement::Type::kIf:
      return ExecIf(static_cast<const If&>(s));
    case Statement::Type::kFor: {
      const auto& loop = static_cast<const For&>(s);
      SNUG_ASSIGN(const Value items, Eval(*loop.over));
      return ExecFor(loop, items, 0);
    }
    case Statement::Type::kBreak:
      return Flow::kBreak;
    case Statement::Type::kContinue:
      return Flow::kContinue;
    case Statement::Type::kSet: {
      const auto& set = static_cast<const Set&>(s);
      SNUG_ASSIGN(const Value value, Eval(*set.value));
      SNUG_TRY(Assign(*set.target, value));
      return Flow::kNext;
    }
    case Statement::Type::kSetBlock:
      return ExecSetBlock(static_cast<const BlockStatement&>(s));
    case Statement::Type::kFilterBlock:
      return ExecFilterBlock(static_cast<const BlockStatement&>(s));
    case Statement::Type::kWith:
      return ExecWith(static_cast<const With&>(s));
    case Statement::Type::kMacro: {
      const auto& macro = static_cast<const Macro&>(s);
      scope_->Set(rt_, macro.id, NewMacro(macro.signature));
      return Flow::kNext;
    }
    case Statement::Type::kCallBlock:
      return ExecCallBlock(static_cast<const CallBlock&>(s));
    case Statement::Type::kScope:
      return ExecInScope(static_cast<const BlockStatement&>(s).body, scope_);
    case Statement::Type::kBlock:
      return ExecInScope(static_cast<const BlockStatement&>(s).body, root_);
    case Statement::Type::kRefused:
      return Fail(static_cast<const Refused&>(s).what);
  }
  return Flow::kNext;
}

Result<Flow> Interpreter::ExecOutput(const Output& output) {
  for (const Output::Piece& piece : output.pieces) {
    if (piece.expr == nullptr) {
      SNUG_TRY(Print(piece.text));
      continue;
    }
    SNUG_ASSIGN(const Value v, Eval(*piece.expr));
    if (v.is(Kind::kString)) {
      SNUG_TRY(Print(v.text()));
    } else {
      Text text(rt_);
      SNUG_TRY(AppendText(v, &text));
      SNUG_ASSIGN(const std::string s, text.Take());
      SNUG_TRY(Print(s));
    }
  }
  return Flow::kNext;
}

Result<Flow> Interpreter::ExecIf(const If& node) {
  for (const If::Branch& branch : node.branches) {
    if (branch.condition != nullptr) {
      SNUG_ASSIGN(const Value condition, Eval(*branch.condition));
      if (!Truthy(condition)) continue;
    }
    return Exec(branch.body);
  }
  return Flow::kNext;
}

Result<Flow> Interpreter::ExecFor(const For& node, const Value& items, int64_t depth) {
  SNUG_ASSIGN(const Ref<Loop> loop, Loop::New(*this, node, items, scope_, depth));
  const Value loop_value(Kind::kSpecial, loop.get());
  Ref<Scope> scope = NewScope(scope_);
  bool whole_round = false;
  while (true) {
    Value item;
    SNUG_ASSIGN(const bool more, loop->Next(&item));
    if (!more) break;
    if (scope.unique()) {
      scope->Reset();
    } else {  // a macro made in the last round still sees its variables
      scope = NewScope(scope_);
    }
    const InScope in(*this, scope);
    Unset(node.body);
    scope_->Set(rt_, kLoopId, loop_value);
    SNUG_TRY(Assign(*node.target, item));
    SNUG_ASSIGN(const Flow flow, Exec(node.body));
    if (flow == Flow::kBreak) break;
    whole_round = whole_round || flow == Flow::kNext;
  }
  // As in jinja2, a round that was left early does not count.
  if (!whole_round && !node.otherwise.statements.empty())
    return ExecInScope(node.otherwise, scope_);
  return Flow::kNext;
}

Result<bool> Interpreter::Passes(const For& loop, const Value& item, const Ref<Scope>& scope) {
  const InScope in(*this, NewScope(scope));
  SNUG_TRY(Assign(*loop.target, item));
  SNUG_ASSIGN(const Value passes, Eval(*loop.condition));
  return Truthy(passes);
}

Result<Value> Interpreter::Recurse(const For& loop, const Value& items, const Ref<Scope>& scope,
                                   int64_t depth) {
  const InScope in(*this, scope);
  Capture capture(*this);
  SNUG_TRY(ExecFor(loop, items, depth));
  return capture.Text();
}

void Interpreter::Unset(const Body& body) {
  for (const uint32_t id : body.unset) {
    scope_->Set(rt_, id, rt_.NewUndefined(fmt::format("'{}' is undefined", ast_.names[id])));
  }
}

Result<Flow> Interpreter::ExecInScope(const Body& body, const Ref<Scope>& parent) {
  const InScope in(*this, NewScope(parent));
  Unset(body);
  return Exec(body);
}

Result<Flow> Interpreter::BlockText(const BlockStatement& block, Value* text) {
  {
    Capture capture(*this);
    SNUG_ASSIGN(const Flow flow, ExecInScope(block.body, scope_));
    if (flow != Flow::kNext) return flow;
    *text = capture.Text();
  }
  if (block.filter != nullptr) {
    const Value* before = std::exchange(block_text_, text);
    Result<Value> filtered = Eval(*block.filter);
    block_text_ = before;
    SNUG_ASSIGN(*text, std::move(filtered));
  }
  return Flow::kNext;
}

Result<Flow> Interpreter::ExecSetBlock(const BlockStatement& block) {
  Value text;
  SNUG_ASSIGN(const Flow flow, BlockText(block, &text));
  if (flow == Flow::kNext) SNUG_TRY(Assign(*block.target, text));
  return flow;
}

Result<Flow> Interpreter::ExecFilterBlock(const BlockStatement& block) {
  Value value;
  SNUG_ASSIGN(const Flow flow, BlockText(block, &value));
  if (flow != Flow::kNext) return flow;
  SNUG_ASSIGN(const Value text, ToText(rt_, value));
  SNUG_TRY(Print(text.text()));
  return flow;
}

Result<Flow> Interpreter::ExecWith(const With& with) {
  std::vector<Value> values;
  for (const auto& [target, expr] : with.values) {
    SNUG_ASSIGN(Value v, Eval(*expr));
    values.push_back(std::move(v));
  }
  const InScope in(*this, NewScope(scope_));
  Unset(with.body);
  for (size_t i = 0; i < values.size(); ++i) SNUG_TRY(Assign(*with.values[i].first, values[i]));
  return Exec(with.body);
}

Value Interpreter::NewMacro(const Signature& signature) {
  return Value(Kind::kSpecial, rt_.heap.New<MacroValue>(0, *this, signature, scope_).get());
}

Result<Flow> Interpreter::ExecCallBlock(const CallBlock& block) {
  const Value caller = NewMacro(block.signature);
  SNUG_ASSIGN(const Value result, EvalCall(*block.call, &caller));
  SNUG_ASSIGN(const Value text, ToText(rt_, result));
  SNUG_TRY(Print(text.text()));
  return Flow::kNext;
}

// Binds as jinja2 does: parameters by position, then by name; what is left goes to `varargs` and
// `kwargs` where the macro names them.
Result<Value> Interpreter::CallMacro(const Signature& signature, const Ref<Scope>& closure,
                                     const Args& args) {
  const size_t n = signature.parameters.size();
  std::vector<std::optional<Value>> values(n);
  const size_t by_position = std::min(n, args.positional.size());
  for (size_t i = 0; i < by_position; ++i) values[i] = args.positional[i];
  bool has_parameter[4] = {};  // for the names that are special without one
  for (const Signature::Parameter& p : signature.parameters) {
    if (p.id < std::size(has_parameter)) has_parameter[p.id] = true;
  }
  std::optional<Value> caller;
  const Ref<Dict> rest = NewDict(rt_);
  for (const auto& [name, value] : args.named) {
    if (!rt_.Spend(1 + n)) return rt_.Exhausted();
    size_t i = by_position;
    while (i < n && ast_.names[signature.parameters[i].id] != name) ++i;
    if (i < n) {
      values[i] = value;
    } else if (name == "caller" && signature.uses_caller && !has_parameter[kCallerId]) {
      caller = value;
    } else if (signature.uses_kwargs && !has_parameter[kKwargsId]) {
      DictSetText(rt_, *rest, name, value);
    } else {
      return Fail(fmt::format("macro '{}' takes no argument '{}'", signature.name, name));
    }
  }
  const bool varargs = signature.uses_varargs && !has_parameter[kVarargsId];
  if (args.positional.size() > n && !varargs) {
    return Fail(fmt::format("macro '{}' takes at most {} arguments", signature.name, n));
  }
  const InScope in(*this, NewScope(closure));
  Unset(signature.body);
  if (varargs) {
    scope_->Set(rt_, kVarargsId,
                rt_.NewTuple({args.positional.begin() + static_cast<ptrdiff_t>(by_position),
                              args.positional.end()}));
  }
  if (signature.uses_kwargs && !has_parameter[kKwargsId]) {
    scope_->Set(rt_, kKwargsId, ToValue(rest));
  }
  if (signature.uses_caller && !has_parameter[kCallerId]) {
    scope_->Set(rt_, kCallerId, caller ? *caller : rt_.NewUndefined("No caller defined"));
  }
  for (size_t i = 0; i < n; ++i) {
    const Signature::Parameter& p = signature.parameters[i];
    if (!values[i] && p.fallback != nullptr) {
      SNUG_ASSIGN(values[i], Eval(*p.fallback));
    }
    scope_->Set(rt_, p.id,
                values[i] ? *values[i]
                          : rt_.NewUndefined(
                                fmt::format("parameter '{}' was not provided", ast_.names[p.id])));
  }
  Capture capture(*this);
  SNUG_TRY(Exec(signature.body));
  return capture.Text();
}

}  // namespace snug::jinja
