// The filters, tests and global functions that templates find by name.
#pragma once

#include <string_view>

#include "text/jinja/runtime.h"

namespace snug::jinja {

// Null for an unknown name.
Builtin FindFilter(std::string_view name);
using Test = Result<bool> (*)(Runtime& rt, const Value& value, const Args& args);
Test FindTest(std::string_view name);
Builtin FindGlobal(std::string_view name);  // called without an object

// The filters, by file. A table ends with a null name.
struct NamedFilter {
  const char* name;
  Builtin filter;
};
extern const NamedFilter kTextFilters[], kNumberFilters[], kSequenceFilters[], kLazyFilters[];

}  // namespace snug::jinja
