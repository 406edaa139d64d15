// What methods of str and filters share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/chars.h"
#include "text/jinja/runtime.h"

namespace snug::jinja {

// A text made from `self`: markup where that is.
Value Like(Runtime& rt, const Value& self, std::string text);

// All take a string.
enum class Side : uint8_t { kLeft, kRight, kBoth };
Result<Value> Strip(Runtime& rt, const Value& self, const Value* chars, Side side);
Result<Value> Recase(Runtime& rt, const Value& self, Case to);
Result<Value> Capitalize(Runtime& rt, const Value& self);
// The first `count` occurrences, all where it is negative.
Result<Value> Replace(Runtime& rt, const Value& self, std::string_view old, std::string_view with,
                      int64_t count);
Result<std::vector<Value>> SplitLines(Runtime& rt, const Value& self, bool keep_ends);
// islower(), isupper()
bool IsInCase(std::string_view s, Case which);

}  // namespace snug::jinja
