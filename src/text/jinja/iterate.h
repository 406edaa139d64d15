// Iteration over values, and searching in text.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"

namespace snug::jinja {

// iter(): an iterator over what can be iterated, itself for an iterator; else an error.
Result<Value> Iterate(Runtime& rt, const Value& v);
bool IsIterable(const Value& v);
// list()
Result<std::vector<Value>> ToVector(Runtime& rt, const Value& v);
// Calls each(item) -> Status for every item.
template <class F>
Status ForEach(Runtime& rt, const Value& v, const F& each) {
  SNUG_ASSIGN(const Value iterator, Iterate(rt, v));
  Value item;
  while (true) {
    SNUG_ASSIGN(const bool more, iterator.iterator().Next(rt, &item));
    if (!more) return {};
    SNUG_TRY(each(item));
  }
}
// An iterator over a vector.
Value IterateVector(Runtime& rt, std::vector<Value> items);

// The i-th of a view's parts.
Value ViewItem(Runtime& rt, const View& view, size_t i);

// As string_view's find, in time linear in both lengths.
size_t FindText(std::string_view in, std::string_view what, size_t from);
size_t FindLastText(std::string_view in, std::string_view what);

}  // namespace snug::jinja
