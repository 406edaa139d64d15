// The methods that reduce.cc lists, one line each.
#pragma once

#include "tokens/reduce/reduce.h"

namespace snug {

extern const ReduceEntry kReduceGemFilter;

}  // namespace snug
