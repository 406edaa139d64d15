#include "text/jinja/loop.h"

#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

// The items for which a loop's condition holds, each tested when its turn comes.
class Filtered : public Iterator {
 public:
  Filtered(Interpreter& interpreter, const For& node, Value source, Ref<Scope> scope)
      : interpreter_(interpreter),
        node_(node),
        source_(std::move(source)),
        scope_(std::move(scope)) {}
  void Clear() override {
    source_ = Value();
    scope_ = Ref<Scope>();
  }
  Result<bool> Next(Runtime& rt, Value* out) override {
    while (true) {
      SNUG_ASSIGN(const bool more, source_.iterator().Next(rt, out));
      if (!more) return false;
      SNUG_ASSIGN(const bool passes, interpreter_.Passes(node_, *out, scope_));
      if (passes) return true;
    }
  }

 private:
  Interpreter& interpreter_;
  const For& node_;
  Value source_;
  Ref<Scope> scope_;
};

}  // namespace

Result<Ref<Loop>> Loop::New(Interpreter& interpreter, const For& node, const Value& items,
                            const Ref<Scope>& scope, int64_t depth) {
  Runtime& rt = interpreter.rt();
  SNUG_ASSIGN(Value iterator, Iterate(rt, items));
  Ref<Loop> loop = rt.heap.New<Loop>(0, interpreter, node, scope, depth);
  if (node.condition != nullptr) {
    loop->iterator_ =
        Value(Kind::kIterator, rt.heap.New<Filtered>(0, interpreter, node, iterator, scope).get());
  } else {
    loop->iterator_ = std::move(iterator);
    loop->length_ = jinja::Length(items);
  }
  return loop;
}

void Loop::Clear() {
  scope_ = Ref<Scope>();
  iterator_ = current_ = previous_ = Value();
  ahead_.reset();
  last_changed_.reset();
}

Result<bool> Loop::Next(Value* item) {
  SNUG_ASSIGN(const bool more, Peek());
  if (!more) return false;
  previous_ = std::exchange(current_, *std::exchange(ahead_, std::nullopt));
  ++index_;
  *item = current_;
  return true;
}

Result<bool> Loop::Peek() {
  if (ahead_) return true;
  Value item;
  SNUG_ASSIGN(const bool more, iterator_.iterator().Next(interpreter_.rt(), &item));
  if (more) ahead_ = std::move(item);
  return more;
}

Result<int64_t> Loop::Length() {
  if (!length_) {
    SNUG_ASSIGN(std::vector<Value> rest, ToVector(interpreter_.rt(), iterator_));
    length_ = static_cast<int64_t>(rest.size()) + index_ + 1 + (ahead_ ? 1 : 0);
    iterator_ = IterateVector(interpreter_.rt(), std::move(rest));
  }
  return *length_;
}

Result<Value> Loop::Call(Runtime& rt, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("loop", args, {"iterable"}, 1));
  if (!node_.recursive) return Fail("only a loop marked 'recursive' can be called");
  const Runtime::Nest nest(rt);
  if (nest.too_deep()) return rt.TooDeep();
  return interpreter_.Recurse(node_, p[0], scope_, depth_ + 1);
}

Result<std::optional<Value>> Loop::Attribute(Runtime& rt, std::string_view name) {
  const auto number = [](int64_t n) { return std::optional(Value::Int(n)); };
  if (name == "index") return number(index_ + 1);
  if (name == "index0") return number(index_);
  if (name == "first") return std::optional(Value::Bool(index_ == 0));
  if (name == "depth") return number(depth_ + 1);
  if (name == "depth0") return number(depth_);
  if (name == "cycle") return std::optional(NewFunction(rt, Cycle, Value(Kind::kSpecial, this)));
  if (name == "changed") {
    return std::optional(NewFunction(rt, Changed, Value(Kind::kSpecial, this)));
  }
  if (name == "previtem") {
    if (index_ == 0) return std::optional(rt.NewUndefined("there is no previous item"));
    return std::optional(previous_);
  }
  if (name == "last" || name == "nextitem") {
    SNUG_ASSIGN(const bool more, Peek());
    if (name == "last") return std::optional(Value::Bool(!more));
    return more ? ahead_ : std::optional(rt.NewUndefined("there is no next item"));
  }
  if (name == "length" || name == "revindex" || name == "revindex0") {
    SNUG_ASSIGN(const int64_t length, Length());
    if (name == "length") return number(length);
    return number(length - index_ - (name == "revindex0" ? 1 : 0));
  }
  return std::optional<Value>();
}

Result<Value> Loop::Cycle(Runtime&, const Value& self, const Args& args) {
  if (args.positional.empty() || !args.named.empty()) return Fail("loop.cycle() needs its items");
  const auto& loop = static_cast<Loop&>(self.special());
  return args.positional[static_cast<size_t>(loop.index_) % args.positional.size()];
}

Result<Value> Loop::Changed(Runtime& rt, const Value& self, const Args& args) {
  if (!args.named.empty()) return Fail("loop.changed() takes values without names");
  auto& loop = static_cast<Loop&>(self.special());
  const Value now = rt.NewTuple(args.positional);
  if (loop.last_changed_) {
    SNUG_ASSIGN(const bool same, Equal(rt, *loop.last_changed_, now));
    if (same) return Value::Bool(false);
  }
  loop.last_changed_ = now;
  return Value::Bool(true);
}

}  // namespace snug::jinja
