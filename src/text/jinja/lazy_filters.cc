// Filters that yield their items when asked for them, as Python's generators do.
#include <algorithm>

#include "text/jinja/access.h"
#include "text/jinja/builtins.h"
#include "text/jinja/dict.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/strings.h"

namespace snug::jinja {
namespace {

// Pulls from a source, which is looked at when the first item is asked for.
class Lazy : public Iterator {
 public:
  Lazy(Value source, Args args) : source_(std::move(source)), args_(std::move(args)) {}
  void Clear() override {
    source_ = Value();
    args_ = Args();
  }
  Result<bool> Next(Runtime& rt, Value* out) final {
    const Runtime::Nest nest(rt);
    if (nest.too_deep()) return rt.TooDeep();
    if (!rt.Spend()) return rt.Exhausted();
    if (done_) return false;
    if (!started_) {
      started_ = true;
      SNUG_TRY(Start(rt));
    }
    if (done_) return false;
    SNUG_ASSIGN(const bool more, Step(rt, out));
    done_ = !more;
    return more;
  }

 protected:
  virtual Status Start(Runtime& rt) {
    SNUG_ASSIGN(source_, Iterate(rt, source_));
    return {};
  }
  virtual Result<bool> Step(Runtime& rt, Value* out) = 0;
  Result<bool> Pull(Runtime& rt, Value* out) { return source_.iterator().Next(rt, out); }
  void Finish() { done_ = true; }
  Value source_;
  Args args_;

 private:
  bool started_ = false, done_ = false;
};

template <class T>
Result<Value> NewLazy(Runtime& rt, const Value& source, const Args& args) {
  return Value(Kind::kIterator, rt.heap.New<T>(0, source, args).get());
}

// An attribute of each item, or each item through a filter.
class Map : public Lazy {
 public:
  using Lazy::Lazy;
  Status Start(Runtime& rt) override {
    if (!Truthy(source_)) {
      Finish();
      return {};
    }
    if (args_.positional.empty() && !args_.named.empty()) {
      SNUG_ASSIGN(const Params p, Params::Bind("map", args_, {"attribute", "default"}, 1));
      SNUG_ASSIGN(path_, AttributePath::Parse(rt, p[0]));
      if (p.has(1) && !p[1].is(Kind::kNone)) fallback_ = p[1];
    } else {
      if (args_.positional.empty()) return Fail("map() needs the name of a filter");
      const Value name = args_.positional[0];
      if (name.is(Kind::kString)) filter_ = FindFilter(name.text());
      if (filter_ == nullptr) return Fail("map(): there is no such filter");
      args_.positional.erase(args_.positional.begin());
    }
    return Lazy::Start(rt);
  }
  Result<bool> Step(Runtime& rt, Value* out) override {
    Value item;
    SNUG_ASSIGN(const bool more, Pull(rt, &item));
    if (!more) return false;
    if (filter_ != nullptr) {
      SNUG_ASSIGN(*out, filter_(rt, item, args_));
    } else {
      SNUG_ASSIGN(*out, path_.Get(rt, item, fallback_ ? &*fallback_ : nullptr));
    }
    return true;
  }
  void Clear() override {
    Lazy::Clear();
    path_ = AttributePath();
    fallback_.reset();
  }

 private:
  Builtin filter_ = nullptr;
  AttributePath path_;
  std::optional<Value> fallback_;
};

// The items that pass a test, or whose attribute does; or those that do not.
template <bool kAttribute, bool kWanted>
class Select : public Lazy {
 public:
  using Lazy::Lazy;
  Status Start(Runtime& rt) override {
    if (!Truthy(source_)) {
      Finish();
      return {};
    }
    auto& args = args_.positional;
    if (kAttribute) {
      if (args.empty()) return Fail("selectattr() and rejectattr() need the name of an attribute");
      SNUG_ASSIGN(path_, AttributePath::Parse(rt, args[0]));
      args.erase(args.begin());
    }
    if (!args.empty()) {
      if (args[0].is(Kind::kString)) test_ = FindTest(args[0].text());
      if (test_ == nullptr) return Fail("select() and reject(): there is no such test");
      args.erase(args.begin());
    }
    return Lazy::Start(rt);
  }
  Result<bool> Step(Runtime& rt, Value* out) override {
    while (true) {
      SNUG_ASSIGN(const bool more, Pull(rt, out));
      if (!more) return false;
      SNUG_ASSIGN(const Value v, path_.Get(rt, *out));
      bool passes = false;
      if (test_ != nullptr) {
        SNUG_ASSIGN(passes, test_(rt, v, args_));
      } else {
        passes = Truthy(v);
      }
      if (passes == kWanted) return true;
      if (!rt.Spend()) return rt.Exhausted();
    }
  }
  void Clear() override {
    Lazy::Clear();
    path_ = AttributePath();
  }

 private:
  AttributePath path_;
  Test test_ = nullptr;
};

class Unique : public Lazy {
 public:
  using Lazy::Lazy;
  Status Start(Runtime& rt) override {
    SNUG_ASSIGN(const Params p, Params::Bind("unique", args_, {"case_sensitive", "attribute"}));
    fold_ = !p.True(0, false);
    const Value none;
    SNUG_ASSIGN(path_, AttributePath::Parse(rt, p.has(1) ? p[1] : none));
    seen_ = NewDict(rt);
    return Lazy::Start(rt);
  }
  Result<bool> Step(Runtime& rt, Value* out) override {
    while (true) {
      SNUG_ASSIGN(const bool more, Pull(rt, out));
      if (!more) return false;
      SNUG_ASSIGN(Value key, path_.Get(rt, *out));
      if (fold_ && key.is(Kind::kString)) {
        SNUG_ASSIGN(key, Recase(rt, key, Case::kLower));
      }
      SNUG_ASSIGN(const Value* found, DictFind(rt, *seen_, key));
      if (found == nullptr) {
        SNUG_TRY(DictSet(rt, *seen_, std::move(key), Value()));
        return true;
      }
    }
  }
  void Clear() override {
    Lazy::Clear();
    path_ = AttributePath();
    seen_ = Ref<Dict>();
  }

 private:
  bool fold_ = true;
  AttributePath path_;
  Ref<Dict> seen_;
};

// Lists of so many items, the last one filled up.
class Batch : public Lazy {
 public:
  using Lazy::Lazy;
  Result<bool> Step(Runtime& rt, Value* out) override {
    SNUG_ASSIGN(const Params p, Params::Bind("batch", args_, {"linecount", "fill_with"}, 1));
    SNUG_ASSIGN(const int64_t size, p.Int(0, 1));
    std::vector<Value> items;
    if (held_) items.push_back(*std::exchange(held_, std::nullopt));
    Value item;
    while (true) {
      SNUG_ASSIGN(const bool more, Pull(rt, &item));
      if (!more) break;
      // (A count of 0 makes an empty list first; one below, a single list.)
      if (static_cast<int64_t>(items.size()) == size) {
        held_ = item;
        *out = rt.NewList(std::move(items));
        return true;
      }
      items.push_back(item);
    }
    if (items.empty()) return false;
    const int64_t missing = size - static_cast<int64_t>(items.size());
    if (p.has(1) && !p[1].is(Kind::kNone) && missing > 0) {
      if (!rt.Fits(static_cast<uint64_t>(missing) * sizeof(Value))) return rt.TooLarge();
      items.insert(items.end(), static_cast<size_t>(missing), p[1]);
    }
    *out = rt.NewList(std::move(items));
    return true;
  }
  void Clear() override {
    Lazy::Clear();
    held_.reset();
  }

 private:
  std::optional<Value> held_;
};

// So many lists of about equal length.
class Slices : public Lazy {
 public:
  using Lazy::Lazy;
  Status Start(Runtime& rt) override {
    SNUG_ASSIGN(const Params p, Params::Bind("slice", args_, {"slices", "fill_with"}, 1));
    SNUG_ASSIGN(count_, p.Int(0, 1));
    if (p.has(1) && !p[1].is(Kind::kNone)) fill_ = p[1];
    if (count_ == 0) return Fail("slice(): integer division by zero");
    SNUG_ASSIGN(items_, ToVector(rt, source_));
    return {};
  }
  Result<bool> Step(Runtime& rt, Value* out) override {
    if (number_ >= count_) return false;
    const int64_t size = static_cast<int64_t>(items_.size());
    const int64_t each = size / count_, longer = size % count_;
    const int64_t start = number_ * each + std::min(number_, longer);
    const int64_t end = start + each + (number_ < longer ? 1 : 0);
    std::vector<Value> part(items_.begin() + start, items_.begin() + end);
    if (fill_ && number_ >= longer) part.push_back(*fill_);
    ++number_;
    *out = rt.NewList(std::move(part));
    return true;
  }
  void Clear() override {
    Lazy::Clear();
    items_.clear();
    fill_.reset();
  }

 private:
  int64_t count_ = 1, number_ = 0;
  std::vector<Value> items_;
  std::optional<Value> fill_;
};

// The pairs of a dict.
class Items : public Lazy {
 public:
  using Lazy::Lazy;
  Status Start(Runtime& rt) override {
    SNUG_TRY(Params::Bind("items", args_, {}));
    if (!source_.defined()) {
      Finish();
      return {};
    }
    if (!source_.is(Kind::kDict)) return Fail("items() wants a mapping");
    source_ = Value(Kind::kView, rt.heap.New<View>(0, source_, View::Part::kItems).get());
    return Lazy::Start(rt);
  }
  Result<bool> Step(Runtime& rt, Value* out) override { return Pull(rt, out); }
};

}  // namespace

const NamedFilter kLazyFilters[] = {
    {"batch", NewLazy<Batch>},
    {"items", NewLazy<Items>},
    {"map", NewLazy<Map>},
    {"reject", NewLazy<Select<false, false>>},
    {"rejectattr", NewLazy<Select<true, false>>},
    {"select", NewLazy<Select<false, true>>},
    {"selectattr", NewLazy<Select<true, true>>},
    {"slice", NewLazy<Slices>},
    {"unique", NewLazy<Unique>},
    {nullptr, nullptr},
};

}  // namespace snug::jinja
