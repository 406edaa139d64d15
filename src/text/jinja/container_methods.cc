// The methods of Python's list, tuple and dict. Those that would change their object are named so
// that a template's use of one is refused as the sandbox refuses it.
#include "text/jinja/access.h"
#include "text/jinja/dict.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

Result<Value> Count(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("count", args, {"/value"}, 1));
  int64_t n = 0;
  for (const Value& item : self.items()) {
    SNUG_ASSIGN(const bool same, Equal(rt, item, p[0]));
    n += same ? 1 : 0;
  }
  return Value::Int(n);
}

Result<Value> Index(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("index", args, {"/value", "/start", "/stop"}, 1));
  const int64_t size = *Length(self);
  SNUG_ASSIGN(int64_t start, p.Int(1, 0));
  SNUG_ASSIGN(int64_t stop, p.Int(2, size));
  if (start < 0) start = std::max<int64_t>(start + size, 0);
  if (stop < 0) stop += size;
  for (int64_t i = start; i < std::min(stop, size); ++i) {
    SNUG_ASSIGN(const bool same, Equal(rt, self.items()[static_cast<size_t>(i)], p[0]));
    if (same) return Value::Int(i);
  }
  return Fail("index(): the value is not in the list");
}

Result<Value> CopyList(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("copy", args, {}));
  const Value none;
  return GetSlice(rt, self, none, none, none);
}

Result<Value> Get(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("get", args, {"/key", "/default"}, 1));
  SNUG_ASSIGN(const Value* found, DictFind(rt, self.dict(), p[0]));
  if (found != nullptr) return *found;
  return p.has(1) ? p[1] : Value();
}

template <View::Part kPart>
Result<Value> MakeView(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("a view of a dict", args, {}));
  return Value(Kind::kView, rt.heap.New<View>(0, self, kPart).get());
}

Result<Value> CopyDict(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("copy", args, {}));
  const Ref<Dict> copy = NewDict(rt);
  for (const Dict::Entry& e : self.dict().entries) {
    SNUG_TRY(DictSet(rt, *copy, e.key, e.value));
  }
  return ToValue(copy);
}

Result<Value> FromKeys(Runtime& rt, const Value&, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("fromkeys", args, {"/iterable", "/value"}, 1));
  const Ref<Dict> dict = NewDict(rt);
  SNUG_TRY(ForEach(rt, p[0], [&](const Value& key) {
    return DictSet(rt, *dict, key, p.has(1) ? p[1] : Value());
  }));
  return ToValue(dict);
}

constexpr Method kList[] = {
    {"append", nullptr}, {"clear", nullptr},   {"copy", CopyList},  {"count", Count},
    {"extend", nullptr}, {"index", Index},     {"insert", nullptr}, {"pop", nullptr},
    {"remove", nullptr}, {"reverse", nullptr}, {"sort", nullptr},
};
constexpr Method kTuple[] = {{"count", Count}, {"index", Index}};
constexpr Method kDict[] = {
    {"clear", nullptr},
    {"copy", CopyDict},
    {"fromkeys", FromKeys},
    {"get", Get},
    {"items", MakeView<View::Part::kItems>},
    {"keys", MakeView<View::Part::kKeys>},
    {"pop", nullptr},
    {"popitem", nullptr},
    {"setdefault", nullptr},
    {"update", nullptr},
    {"values", MakeView<View::Part::kValues>},
};

template <size_t n>
const Method* Find(const Method (&methods)[n], std::string_view name) {
  for (const Method& m : methods) {
    if (m.name == name) return &m;
  }
  return nullptr;
}

}  // namespace

const Method* FindListMethod(std::string_view name) { return Find(kList, name); }
const Method* FindTupleMethod(std::string_view name) { return Find(kTuple, name); }
const Method* FindDictMethod(std::string_view name) { return Find(kDict, name); }

}  // namespace snug::jinja
