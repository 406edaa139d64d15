// The variable `loop`.
#pragma once

#include "text/jinja/interpreter.h"

namespace snug::jinja {

class Loop : public Special {
 public:
  // Over `items`, those only for which the loop's condition holds, if it has one. The error is what
  // iterating over them gives.
  static Result<Ref<Loop>> New(Interpreter& interpreter, const For& node, const Value& items,
                               const Ref<Scope>& scope, int64_t depth);
  // Goes on to the next item; false at the end.
  Result<bool> Next(Value* item);

  void Clear() override;
  std::string_view type() const override { return "LoopContext"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime& rt, const Args& args) override;
  Result<std::optional<Value>> Attribute(Runtime& rt, std::string_view name) override;

  Loop(Interpreter& interpreter, const For& node, Ref<Scope> scope, int64_t depth)
      : interpreter_(interpreter), node_(node), scope_(std::move(scope)), depth_(depth) {}

 private:
  static Result<Value> Cycle(Runtime& rt, const Value& self, const Args& args);
  static Result<Value> Changed(Runtime& rt, const Value& self, const Args& args);
  // Looks one item ahead; whether there is one.
  Result<bool> Peek();
  Result<int64_t> Length();

  Interpreter& interpreter_;
  const For& node_;
  Ref<Scope> scope_;
  const int64_t depth_;
  Value iterator_;
  std::optional<int64_t> length_;
  int64_t index_ = -1;
  Value current_, previous_;
  std::optional<Value> ahead_, last_changed_;
};

}  // namespace snug::jinja
