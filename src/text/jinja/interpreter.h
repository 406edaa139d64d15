// Runs a template: walks the tree, statement by statement.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <unordered_map>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace snug::jinja {

// Variables of one block. Those around it are found through its parent, also by a macro that is
// called elsewhere.
struct Scope : Object {
  explicit Scope(Ref<Scope> around) : parent(std::move(around)) {}
  void Clear() override;
  const Value* Find(uint32_t id) const;
  void Set(Runtime& rt, uint32_t id, Value value);
  // Forgets all variables, for the next round of a loop.
  void Reset();

  Ref<Scope> parent;

 private:
  std::vector<std::pair<uint32_t, Value>> vars_;
  std::unordered_map<uint32_t, size_t> index_;  // into vars_, once there are many
};

enum class Flow : uint8_t { kNext, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(const Ast& ast, Runtime& rt);
  // Gives a global name a value that `input` may replace.
  void Define(const std::string& name, const Value& value);
  // `input`: the object of global names, of which "now" is none.
  Result<std::string> Run(const nlohmann::ordered_json& input);

  // For macros and loops as values.
  Result<Value> CallMacro(const Signature& signature, const Ref<Scope>& closure, const Args& args);
  // The text of a recursive loop's body over `items`.
  Result<Value> Recurse(const For& loop, const Value& items, const Ref<Scope>& scope,
                        int64_t depth);
  // Whether a loop's condition holds for an item.
  Result<bool> Passes(const For& loop, const Value& item, const Ref<Scope>& scope);
  Runtime& rt() { return rt_; }
  const Ast& ast() const { return ast_; }

 private:
  class InScope;
  class Capture;

  Error Located(Error error, uint32_t at) const;
  Status Print(std::string_view text);
  Ref<Scope> NewScope(const Ref<Scope>& parent);
  Result<Value> FromJson(const nlohmann::ordered_json& json, uint32_t depth);
  Value Lookup(uint32_t id);
  Status Assign(const Target& target, const Value& value);

  // ---- statements (interpreter.cc)
  Result<Flow> Exec(const Body& body);
  Result<Flow> ExecOne(const Statement& statement);
  Result<Flow> ExecOutput(const Output& output);
  Result<Flow> ExecIf(const If& node);
  Result<Flow> ExecFor(const For& loop, const Value& items, int64_t depth);
  Result<Flow> ExecSetBlock(const BlockStatement& block);
  Result<Flow> ExecFilterBlock(const BlockStatement& block);
  Result<Flow> ExecWith(const With& with);
  Result<Flow> ExecCallBlock(const CallBlock& block);
  // Makes undefined what the scope's body will set.
  void Unset(const Body& body);
  Result<Flow> ExecInScope(const Body& body, const Ref<Scope>& parent);
  Value NewMacro(const Signature& signature);
  // The text of a body, through the block's filter if it has one; the flow where it was left.
  Result<Flow> BlockText(const BlockStatement& block, Value* text);

  // ---- expressions (interpreter_expression.cc)
  Result<Value> Eval(const Expr& e);
  Result<Value> EvalOne(const Expr& e);
  Result<std::vector<Value>> EvalAll(const std::vector<Expr*>& parts);
  Result<Value> EvalDict(const Several& e);
  Result<Value> EvalConditional(const Several& e);
  Result<Value> EvalLogic(const Several& e);
  Result<Value> EvalCompare(const Chain& e);
  Result<Value> EvalArithmetic(const Chain& e);
  Result<Value> EvalConcat(const Several& e);
  Result<Value> EvalSubscript(const Subscript& e);
  Result<Value> EvalCall(const Call& e, const Value* caller);
  Result<Value> EvalFilter(const FilterExpr& e);
  Result<Value> EvalTest(const TestExpr& e);
  Result<Args> EvalArgs(const CallArgs& args);

  const Ast& ast_;
  Runtime& rt_;
  std::vector<Value> constants_;
  Ref<Scope> root_, scope_;
  std::string* out_ = nullptr;
  const Value* block_text_ = nullptr;  // what the filters of a block take
};

}  // namespace snug::jinja
