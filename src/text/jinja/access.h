// a.b, a["b"], a[1:2], and the methods of Python's types.
#pragma once

#include <string_view>

#include "text/jinja/runtime.h"

namespace snug::jinja {

struct Method {
  std::string_view name;
  Builtin call;  // null: it would change its object, which the sandbox forbids
};

// The method of the value's type, or null.
const Method* FindMethod(const Value& v, std::string_view name);
// Calls a method; one that the sandbox forbids is an error.
Result<Value> CallMethod(Runtime& rt, const Method& method, const Value& self, const Args& args);

// a.name: methods and attributes before a dict's keys. Undefined where there is nothing.
Result<Value> GetAttribute(Runtime& rt, const Value& v, std::string_view name);
// The same without looking for a key.
Result<std::optional<Value>> FindAttribute(Runtime& rt, const Value& v, std::string_view name);
// a[key]: keys and positions before methods and attributes. Undefined where there is nothing.
Result<Value> GetItem(Runtime& rt, const Value& v, const Value& key);
// a[start:stop:step], each none where it is left out.
Result<Value> GetSlice(Runtime& rt, const Value& v, const Value& start, const Value& stop,
                       const Value& step);

// A path as filters take it, "a.b.0": keys by name, positions by number.
class AttributePath {
 public:
  // `path` may be a string, an int, or none (the item itself).
  static Result<AttributePath> Parse(Runtime& rt, const Value& path);
  // Where `fallback` is given, it stands for what is undefined on the way.
  Result<Value> Get(Runtime& rt, const Value& item, const Value* fallback = nullptr) const;

 private:
  std::vector<Value> parts_;
};

// The methods by type, each in the file of its type.
const Method* FindStringMethod(std::string_view name);
const Method* FindListMethod(std::string_view name);
const Method* FindTupleMethod(std::string_view name);
const Method* FindDictMethod(std::string_view name);

}  // namespace snug::jinja
