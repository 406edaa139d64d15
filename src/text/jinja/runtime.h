// What every operation of the interpreter runs in: limits, the heap, errors, and how calls pass
// arguments.
#pragma once

#include <fmt/format.h>

#include <ctime>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/stack.h"
#include "text/chat_template.h"
#include "text/jinja/value.h"

namespace snug::jinja {

class Runtime {
 public:
  explicit Runtime(const TemplateLimits& limits)
      : heap(limits.memory_bytes),
        limits_(limits),
        steps_left_(limits.steps),
        stack_floor_(StackFloor(kStackRoom)) {}

  // Counts steps; false when they are used up or the heap is full, with Exhausted() the error.
  [[nodiscard]] bool Spend(uint64_t steps = 1) {
    if (steps > steps_left_) {
      steps_left_ = 0;
      return false;
    }
    steps_left_ -= steps;
    return !heap.full();
  }
  // The same for work on that many bytes of text.
  [[nodiscard]] bool SpendOn(uint64_t bytes) { return Spend(1 + bytes / kBytesPerStep); }
  // Whether a new value of that size may be made.
  [[nodiscard]] bool Fits(uint64_t bytes) const { return bytes <= heap.room(); }
  Error Exhausted() const;
  Error TooLarge() const;
  Error TooDeep() const;

  // One level of recursion, of evaluation or through nested values.
  class Nest {
   public:
    explicit Nest(Runtime& rt) : rt_(rt) { ++rt_.depth_; }
    ~Nest() { --rt_.depth_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;
    // Past the limit, or where little of the thread's stack is left: frames differ by compiler.
    bool too_deep() const {
      return rt_.depth_ > rt_.limits_.render_depth || StackPointer() < rt_.stack_floor_;
    }

   private:
    Runtime& rt_;
  };

  Value NewString(std::string s, bool markup = false);
  Value NewList(std::vector<Value> items, Kind kind = Kind::kList);
  Value NewTuple(std::vector<Value> items) { return NewList(std::move(items), Kind::kTuple); }
  Value NewRange(int64_t start, int64_t stop, int64_t step, int64_t size);
  // An undefined value; using it is an error with this message.
  Value NewUndefined(std::string message);

  const TemplateLimits& limits() const { return limits_; }
  Heap heap;
  std::tm now{};  // what strftime_now formats

 private:
  static constexpr uint64_t kBytesPerStep = 64;
  const TemplateLimits limits_;
  uint64_t steps_left_;
  static constexpr size_t kStackRoom = 256u << 10;  // for what runs between two looks
  const uintptr_t stack_floor_;
  uint32_t depth_ = 0;
};

// A template's mistake, without its place, which the evaluator adds.
Error Fail(std::string message);
// What using an undefined value is.
Error FailUndefined(const Value& v);
// "str", "list", "NoneType", ... as Python names types.
std::string_view TypeName(const Value& v);

// Text being built, no longer than the heap has room for.
class Text {
 public:
  explicit Text(Runtime& rt) : rt_(rt), room_(rt.heap.room()) {}
  void Append(std::string_view s) {
    if (s.size() > room_ - s_.size()) {
      full_ = true;
    } else {
      s_.append(s);
    }
  }
  void Append(char c) { Append(std::string_view(&c, 1)); }
  // `fill` n times; nothing for n <= 0.
  void Fill(std::string_view fill, int64_t n);
  bool full() const { return full_; }
  size_t size() const { return s_.size(); }
  const std::string& str() const { return s_; }
  Runtime& rt() const { return rt_; }
  // The text, or an error if it was too large. Counts the steps of its length.
  Result<std::string> Take();
  Result<Value> Finish(bool markup = false);

 private:
  Runtime& rt_;
  const uint64_t room_;
  std::string s_;
  bool full_ = false;
};

// What a call passes.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The arguments of a call by parameter, as Python binds them.
class Params {
 public:
  static constexpr size_t kMax = 6;
  // Errors name the callee: an argument too many, unknown or given twice, or one of the first
  // `required` missing.
  static Result<Params> Bind(std::string_view callee, const Args& args,
                             std::initializer_list<const char*> names, size_t required = 0);
  // (A name that begins with / is passed by position only.)
  bool has(size_t i) const { return values_[i] != nullptr; }
  // The argument; needs has(i).
  const Value& operator[](size_t i) const { return *values_[i]; }
  // An argument of that kind, or the default where it was not given.
  Result<int64_t> Int(size_t i, int64_t fallback) const;
  Result<std::string_view> String(size_t i, std::string_view fallback) const;
  bool True(size_t i, bool fallback) const;

 private:
  std::string_view callee_;
  const char* names_[kMax] = {};
  const Value* values_[kMax] = {};
};

// A filter or a method: its input or object, and what is passed besides.
using Builtin = Result<Value> (*)(Runtime& rt, const Value& self, const Args& args);

// Objects that a template can call or that have attributes of their own.
class Special : public Object {
 public:
  virtual std::string_view type() const = 0;
  virtual bool callable() const { return false; }
  virtual Result<Value> Call(Runtime& rt, const Args& args);
  // Nothing where there is no such attribute.
  virtual Result<std::optional<Value>> Attribute(Runtime& rt, std::string_view name);
};

inline Special& Value::special() const {
  assert(kind_ == Kind::kSpecial);
  return *static_cast<Special*>(u_.o);
}
// A function as a value, with the object it is a method of.
Value NewFunction(Runtime& rt, Builtin function, Value self = Value());

}  // namespace snug::jinja
