// A stable sort whose comparisons may fail.
#pragma once

#include "text/jinja/operators.h"

namespace snug::jinja {

// The order of the keys, as indices: ascending, or descending with equal keys still in their order.
Result<std::vector<size_t>> SortedOrder(Runtime& rt, const std::vector<Value>& keys, bool reverse);

}  // namespace snug::jinja
