// Values of templates: Python's, as far as a template can see them. All objects of one rendering
// live in a Heap, which counts their bytes; the sandbox makes lists and dicts immutable once built.
#pragma once

#include <cassert>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace snug::jinja {

class Heap;
class Runtime;

enum class Kind : uint8_t {
  kUndefined,  // with the message of the error that its use would be, or without
  kNone,
  kBool,
  kInt,  // 64 bits: arithmetic beyond is an error
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kView,  // keys(), values() or items() of a dict
  kRange,
  kIterator,   // what a filter such as select yields: consumed once, always true, without length
  kNamespace,  // the one thing that `set a.b` may change
  kSpecial,    // macros, functions, methods, `loop`, ...
};

// Base of what is kept by reference. Released objects are freed one after another, never in a
// recursion, so that nesting cannot exhaust the stack.
class Object {
 public:
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

 protected:
  Object() = default;
  // Lets go of all values held: how cycles end, when the heap does.
  virtual void Clear() {}

 private:
  friend class Heap;
  friend class Value;
  template <class T>
  friend class Ref;
  void Retain() { ++refs_; }
  void Release();
  Heap* heap_ = nullptr;
  Object* previous_ = nullptr;
  Object* next_ = nullptr;
  uint64_t bytes_ = 0;
  uint32_t refs_ = 0;
};

// A counted reference to one kind of object.
template <class T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* o) : o_(o) {
    if (o_ != nullptr) o_->Retain();
  }
  Ref(const Ref& other) : Ref(other.o_) {}
  Ref(Ref&& other) noexcept : o_(std::exchange(other.o_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(o_, other.o_);
    return *this;
  }
  ~Ref() {
    if (o_ != nullptr) static_cast<Object*>(o_)->Release();
  }
  T* get() const { return o_; }
  T* operator->() const { return o_; }
  T& operator*() const { return *o_; }
  explicit operator bool() const { return o_ != nullptr; }
  bool unique() const { return o_ != nullptr && static_cast<const Object*>(o_)->refs_ == 1; }

 private:
  T* o_ = nullptr;
};

struct Str;
struct List;
struct Dict;
struct View;
struct Range;
struct Namespace;
class Iterator;
class Special;

class Value {
 public:
  Value() : kind_(Kind::kNone) { u_.o = nullptr; }
  Value(Kind kind, Object* o) : kind_(kind) {
    u_.o = o;
    if (o != nullptr) o->Retain();
  }
  Value(const Value& other) : kind_(other.kind_), u_(other.u_) {
    if (holds()) u_.o->Retain();
  }
  Value(Value&& other) noexcept : kind_(other.kind_), u_(other.u_) {
    other.kind_ = Kind::kNone;
    other.u_.o = nullptr;
  }
  Value& operator=(Value other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(u_, other.u_);
    return *this;
  }
  ~Value() {
    if (holds()) u_.o->Release();
  }
  static Value Undefined() { return Value(Kind::kUndefined, nullptr); }
  static Value Bool(bool b) {
    Value v;
    v.kind_ = Kind::kBool;
    v.u_.i = b;
    return v;
  }
  static Value Int(int64_t i) {
    Value v;
    v.kind_ = Kind::kInt;
    v.u_.i = i;
    return v;
  }
  static Value Float(double d) {
    Value v;
    v.kind_ = Kind::kFloat;
    v.u_.d = d;
    return v;
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool defined() const { return kind_ != Kind::kUndefined; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  // Each needs its kind.
  bool boolean() const { return u_.i != 0; }
  int64_t integer() const { return u_.i; }  // of a bool too
  double number() const {                   // of a bool and an int too
    return kind_ == Kind::kFloat ? u_.d : static_cast<double>(u_.i);
  }
  const Str& str() const;
  std::string_view text() const;            // of a string
  const std::vector<Value>& items() const;  // of a list or tuple
  const Dict& dict() const;
  const View& view() const;
  const Range& range() const;
  Namespace& ns() const;
  Iterator& iterator() const;
  Special& special() const;
  const Object* object() const { return holds() ? u_.o : nullptr; }

 private:
  bool holds() const {
    return (kind_ >= Kind::kString || kind_ == Kind::kUndefined) && u_.o != nullptr;
  }
  Kind kind_;
  union {
    int64_t i;
    double d;
    Object* o;
  } u_;
};

// Text as UTF-8; positions count characters, as Python's do. A byte that is no UTF-8 counts as one.
struct Str : Object {
  Str(std::string s, bool m);
  int64_t size() const;                // characters
  size_t Offset(int64_t index) const;  // of the character in bytes, for 0 <= index <= size()
  int64_t Index(size_t offset) const;  // of the character that starts at that byte
  const std::string text;
  const bool markup;  // made by `safe` or `escape`: adding to it escapes what is added
  const bool ascii;

 private:
  void Measure() const;
  mutable int64_t size_ = -1;
  mutable std::vector<uint32_t> marks_;  // byte offset of every 128th character
};

struct List : Object {  // tuples too
  explicit List(std::vector<Value> v) : items(std::move(v)) {}
  void Clear() override { items.clear(); }
  std::vector<Value> items;
  bool grouped = false;  // a tuple of groupby, with the attributes grouper and list
};

// Keeps insertion order. Keys are found by hash; small dicts are searched.
struct Dict : Object {
  struct Entry {
    Value key, value;
    uint64_t hash = 0;
  };
  void Clear() override {
    entries.clear();
    slots.clear();
  }
  // The value of a string key, or null.
  const Value* Find(std::string_view key) const;
  std::vector<Entry> entries;
  std::vector<uint32_t> slots;  // entry + 1, open addressing; empty while there are few entries
  uint64_t seed = 0;
};

struct View : Object {
  enum class Part : uint8_t { kKeys, kValues, kItems };
  View(Value d, Part p) : dict(std::move(d)), part(p) {}
  void Clear() override { dict = Value(); }
  Value dict;
  const Part part;
};

struct Range : Object {
  Range(int64_t first, int64_t end, int64_t by, int64_t count)
      : start(first), stop(end), step(by), size(count) {}
  int64_t at(int64_t i) const { return start + i * step; }  // 0 <= i < size
  const int64_t start, stop, step, size;
};

struct Namespace : Object {
  void Clear() override { attributes = Ref<Dict>(); }
  Ref<Dict> attributes;
};

class Iterator : public Object {
 public:
  // False at the end; else *out is the next item.
  virtual Result<bool> Next(Runtime& rt, Value* out) = 0;
};

// The bytes of all live objects, against a limit. Going past it is noticed at the next step
// (Runtime::Tick); what makes large objects asks first.
class Heap {
 public:
  explicit Heap(uint64_t limit);
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap();
  template <class T, class... Args>
  Ref<T> New(uint64_t bytes, Args&&... args) {
    T* o = new T(std::forward<Args>(args)...);
    Adopt(o, sizeof(T) + bytes);
    return Ref<T>(o);
  }
  void Grow(Object* o, uint64_t bytes) {
    o->bytes_ += bytes;
    live_ += bytes;
  }
  // Bytes held besides objects: text being built.
  void Hold(uint64_t bytes) { live_ += bytes; }
  void Drop(uint64_t bytes) { live_ -= bytes; }
  bool full() const { return live_ > limit_; }
  uint64_t room() const { return live_ < limit_ ? limit_ - live_ : 0; }
  uint64_t limit() const { return limit_; }
  uint64_t seed() const { return seed_; }

 private:
  friend class Object;
  void Adopt(Object* o, uint64_t bytes);
  void Bury(Object* o);
  void Free(Object* o);
  const uint64_t limit_;
  const uint64_t seed_;  // of dicts' hashes, so that keys cannot be made to collide
  uint64_t live_ = 0;
  Object* first_ = nullptr;
  Object* dead_ = nullptr;  // released, not yet freed
  bool burying_ = false;
};

inline const Str& Value::str() const {
  assert(kind_ == Kind::kString);
  return *static_cast<const Str*>(u_.o);
}
inline std::string_view Value::text() const { return str().text; }
inline const std::vector<Value>& Value::items() const {
  assert(is_sequence());
  return static_cast<const List*>(u_.o)->items;
}
inline const Dict& Value::dict() const {
  assert(kind_ == Kind::kDict);
  return *static_cast<const Dict*>(u_.o);
}
inline const View& Value::view() const {
  assert(kind_ == Kind::kView);
  return *static_cast<const View*>(u_.o);
}
inline const Range& Value::range() const {
  assert(kind_ == Kind::kRange);
  return *static_cast<const Range*>(u_.o);
}
inline Namespace& Value::ns() const {
  assert(kind_ == Kind::kNamespace);
  return *static_cast<Namespace*>(u_.o);
}
inline Iterator& Value::iterator() const {
  assert(kind_ == Kind::kIterator);
  return *static_cast<Iterator*>(u_.o);
}

}  // namespace snug::jinja
