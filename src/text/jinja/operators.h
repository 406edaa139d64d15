// Python's operators on template values: truth, comparison, arithmetic, and str().
#pragma once

#include <optional>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace snug::jinja {

bool Truthy(const Value& v);
// len(); nothing where the kind has none.
std::optional<int64_t> Length(const Value& v);

Result<bool> Equal(Runtime& rt, const Value& a, const Value& b);
// `is`: one object, or one small value.
bool Same(const Value& a, const Value& b);
enum class Relation : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };
Result<bool> Compare(Runtime& rt, const Value& a, const Value& b, Relation relation);
Result<bool> Contains(Runtime& rt, const Value& container, const Value& item);

enum class Operator : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
Result<Value> Arithmetic(Runtime& rt, Operator op, const Value& a, const Value& b);
Result<Value> Negate(const Value& v);
Result<Value> Plus(const Value& v);

// str() and repr().
Status AppendText(const Value& v, Text* out);
Status AppendRepr(const Value& v, Text* out);
// str() as a string of its own; strings go through as they are, markup too.
Result<Value> ToText(Runtime& rt, const Value& v);

// The text with its markup escaped, as markup.
Result<Value> Escape(Runtime& rt, const Value& v);
// The text that `v` becomes within a text that is or is not markup: escaped unless it is markup.
Result<std::string> TextWithin(Runtime& rt, bool markup, const Value& v);

}  // namespace snug::jinja
