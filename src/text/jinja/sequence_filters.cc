// Filters of sequences and dicts that give a value at once.
#include <algorithm>

#include "text/jinja/access.h"
#include "text/jinja/builtins.h"
#include "text/jinja/dict.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/sort.h"
#include "text/jinja/strings.h"
#include "text/jinja/to_json.h"

namespace snug::jinja {
namespace {

// What to compare an item by: an attribute of it, in lower case unless case matters.
class KeyOf {
 public:
  static Result<KeyOf> Parse(Runtime& rt, const Value& attribute, bool case_sensitive) {
    KeyOf key;
    SNUG_ASSIGN(key.path_, AttributePath::Parse(rt, attribute));
    key.fold_ = !case_sensitive;
    return key;
  }
  Result<Value> operator()(Runtime& rt, const Value& item, const Value* fallback = nullptr) const {
    SNUG_ASSIGN(Value v, path_.Get(rt, item, fallback));
    if (fold_ && v.is(Kind::kString)) return Recase(rt, v, Case::kLower);
    return v;
  }

 private:
  AttributePath path_;
  bool fold_ = false;
};

Result<Value> Length_(Runtime&, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("length", args, {}));
  const std::optional<int64_t> n = Length(self);
  if (n) return Value::Int(*n);
  return Fail(fmt::format("object of type '{}' has no len()", TypeName(self)));
}

Result<Value> Default(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("default", args, {"default_value", "boolean"}));
  if (self.defined() && !(p.True(1, false) && !Truthy(self))) return self;
  return p.has(0) ? p[0] : rt.NewString("");
}

Result<Value> First(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("first", args, {}));
  SNUG_ASSIGN(const Value iterator, Iterate(rt, self));
  Value item;
  SNUG_ASSIGN(const bool any, iterator.iterator().Next(rt, &item));
  return any ? item : rt.NewUndefined("No first item, sequence was empty.");
}

Result<Value> Last(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("last", args, {}));
  const std::optional<int64_t> n = Length(self);
  if (!n) return Fail(fmt::format("'{}' object is not reversible", TypeName(self)));
  if (*n == 0) return rt.NewUndefined("No last item, sequence was empty.");
  const size_t end = static_cast<size_t>(*n - 1);
  if (self.is(Kind::kDict)) return self.dict().entries[end].key;
  if (self.is(Kind::kView)) return ViewItem(rt, self.view(), end);
  return GetItem(rt, self, Value::Int(-1));
}

Result<Value> List_(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("list", args, {}));
  SNUG_ASSIGN(std::vector<Value> items, ToVector(rt, self));
  return rt.NewList(std::move(items));
}

Result<Value> Reverse(Runtime& rt, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("reverse", args, {}));
  if (self.is(Kind::kString)) {
    const Value none;
    return GetSlice(rt, self, none, none, Value::Int(-1));
  }
  SNUG_ASSIGN(std::vector<Value> items, ToVector(rt, self));
  std::reverse(items.begin(), items.end());
  if (self.is(Kind::kIterator)) return rt.NewList(std::move(items));
  return IterateVector(rt, std::move(items));
}

Result<Value> JoinFilter(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("join", args, {"d", "attribute"}));
  const Value none;
  SNUG_ASSIGN(const AttributePath path, AttributePath::Parse(rt, p.has(1) ? p[1] : none));
  std::string between;
  if (p.has(0)) {
    SNUG_ASSIGN(between, TextWithin(rt, false, p[0]));
  }
  Text out(rt);
  bool first = true;
  const auto append = [&](const Value& item) -> Status {
    SNUG_ASSIGN(const Value v, path.Get(rt, item));
    if (!first) out.Append(between);
    first = false;
    SNUG_TRY(AppendText(v, &out));
    return out.full() ? Status(rt.TooLarge()) : Status();
  };
  SNUG_TRY(ForEach(rt, self, append));
  return out.Finish();
}

// The items in the order of their keys.
Result<std::vector<Value>> Ordered(Runtime& rt, std::vector<Value> items,
                                   const std::vector<Value>& keys, bool reverse) {
  SNUG_ASSIGN(const std::vector<size_t> order, SortedOrder(rt, keys, reverse));
  std::vector<Value> out;
  out.reserve(items.size());
  for (const size_t i : order) out.push_back(std::move(items[i]));
  return out;
}

Result<Value> Sort(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p,
              Params::Bind("sort", args, {"reverse", "case_sensitive", "attribute"}));
  SNUG_ASSIGN(std::vector<Value> items, ToVector(rt, self));
  // Several attributes, separated by commas, make one key.
  std::vector<Value> attributes;
  if (p.has(2) && p[2].is(Kind::kString)) {
    if (!rt.SpendOn(p[2].text().size())) return rt.Exhausted();
    for (std::string_view rest = p[2].text();;) {
      const size_t comma = std::min(rest.find(','), rest.size());
      attributes.push_back(rt.NewString(std::string(rest.substr(0, comma))));
      if (!rt.Spend()) return rt.Exhausted();
      if (comma == rest.size()) break;
      rest.remove_prefix(comma + 1);
    }
  } else {
    attributes.push_back(p.has(2) ? p[2] : Value());
  }
  std::vector<KeyOf> keys_of;
  for (const Value& a : attributes) {
    SNUG_ASSIGN(KeyOf key, KeyOf::Parse(rt, a, p.True(1, false)));
    keys_of.push_back(std::move(key));
  }
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> parts;
    for (const KeyOf& key : keys_of) {
      SNUG_ASSIGN(Value part, key(rt, item));
      parts.push_back(std::move(part));
    }
    keys.push_back(rt.NewTuple(std::move(parts)));
    if (!rt.Spend()) return rt.Exhausted();
  }
  SNUG_ASSIGN(items, Ordered(rt, std::move(items), keys, p.True(0, false)));
  return rt.NewList(std::move(items));
}

Result<Value> DictSort(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("dictsort", args, {"case_sensitive", "by", "reverse"}));
  SNUG_ASSIGN(const std::string_view by, p.String(1, "key"));
  if (by != "key" && by != "value") return Fail("dictsort() sorts by 'key' or 'value'");
  if (!self.defined()) return FailUndefined(self);
  if (!self.is(Kind::kDict))
    return Fail(fmt::format("dictsort() wants a dict, not {}", TypeName(self)));
  SNUG_ASSIGN(const KeyOf key, KeyOf::Parse(rt, Value::Int(by == "key" ? 0 : 1), p.True(0, false)));
  std::vector<Value> items, keys;
  for (const Dict::Entry& e : self.dict().entries) {
    items.push_back(rt.NewTuple({e.key, e.value}));
    SNUG_ASSIGN(Value k, key(rt, items.back()));
    keys.push_back(std::move(k));
    if (!rt.Spend()) return rt.Exhausted();
  }
  SNUG_ASSIGN(items, Ordered(rt, std::move(items), keys, p.True(2, false)));
  return rt.NewList(std::move(items));
}

Result<Value> GroupBy(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p,
              Params::Bind("groupby", args, {"attribute", "default", "case_sensitive"}, 1));
  const Value* fallback = p.has(1) && !p[1].is(Kind::kNone) ? &p[1] : nullptr;
  SNUG_ASSIGN(const KeyOf key, KeyOf::Parse(rt, p[0], p.True(2, false)));
  SNUG_ASSIGN(const KeyOf shown, KeyOf::Parse(rt, p[0], true));
  SNUG_ASSIGN(std::vector<Value> items, ToVector(rt, self));
  std::vector<Value> keys;
  for (const Value& item : items) {
    SNUG_ASSIGN(Value k, key(rt, item, fallback));
    keys.push_back(std::move(k));
  }
  SNUG_ASSIGN(const std::vector<size_t> order, SortedOrder(rt, keys, false));
  std::vector<Value> groups;
  for (size_t i = 0; i < order.size();) {
    const Value& first = keys[order[i]];
    SNUG_ASSIGN(Value name, shown(rt, items[order[i]], fallback));
    std::vector<Value> members;
    while (i < order.size()) {
      SNUG_ASSIGN(const bool same, Equal(rt, keys[order[i]], first));
      if (!same) break;
      members.push_back(items[order[i++]]);
    }
    if (members.empty()) return Fail("groupby(): a key does not equal itself");
    Ref<List> group = rt.heap.New<List>(
        2 * sizeof(Value), std::vector<Value>{std::move(name), rt.NewList(std::move(members))});
    group->grouped = true;
    groups.push_back(Value(Kind::kTuple, group.get()));
  }
  return rt.NewList(std::move(groups));
}

template <bool kMax>
Result<Value> Extreme(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p,
              Params::Bind(kMax ? "max" : "min", args, {"case_sensitive", "attribute"}));
  const Value none;
  SNUG_ASSIGN(const KeyOf key, KeyOf::Parse(rt, p.has(1) ? p[1] : none, p.True(0, false)));
  std::optional<Value> best, best_key;
  SNUG_TRY(ForEach(rt, self, [&](const Value& item) -> Status {
    SNUG_ASSIGN(Value k, key(rt, item));
    bool better = !best;
    if (best) {
      SNUG_ASSIGN(better, Compare(rt, k, *best_key, kMax ? Relation::kGreater : Relation::kLess));
    }
    if (better) {
      best = item;
      best_key = std::move(k);
    }
    return {};
  }));
  return best ? *best : rt.NewUndefined("No aggregated item, sequence was empty.");
}

Result<Value> Sum(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("sum", args, {"attribute", "start"}));
  const Value none;
  SNUG_ASSIGN(const AttributePath path, AttributePath::Parse(rt, p.has(0) ? p[0] : none));
  Value total = p.has(1) ? p[1] : Value::Int(0);
  if (total.is(Kind::kString)) return Fail("sum() does not join strings; the filter join does");
  SNUG_TRY(ForEach(rt, self, [&](const Value& item) -> Status {
    SNUG_ASSIGN(const Value v, path.Get(rt, item));
    SNUG_ASSIGN(total, Arithmetic(rt, Operator::kAdd, total, v));
    return {};
  }));
  return total;
}

Result<Value> Attribute(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("attr", args, {"name"}, 1));
  SNUG_ASSIGN(const std::string_view name, p.String(0, ""));
  SNUG_ASSIGN(std::optional<Value> found, FindAttribute(rt, self, name));
  if (found) return *std::move(found);
  return rt.NewUndefined(fmt::format("'{} object' has no attribute '{}'", TypeName(self), name));
}

}  // namespace

const NamedFilter kSequenceFilters[] = {
    {"attr", Attribute},     {"count", Length_},   {"d", Default},       {"default", Default},
    {"dictsort", DictSort},  {"first", First},     {"groupby", GroupBy}, {"join", JoinFilter},
    {"last", Last},          {"length", Length_},  {"list", List_},      {"max", Extreme<true>},
    {"min", Extreme<false>}, {"reverse", Reverse}, {"sort", Sort},       {"sum", Sum},
    {"tojson", ToJson},      {nullptr, nullptr},
};

}  // namespace snug::jinja
