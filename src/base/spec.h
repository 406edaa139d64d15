// Spec strings: the one way in which options name a method and its parameters, as in
// `h2o:budget=0.2,recent=0.5`. Numbers may be fractions: 1/16.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace snug {

// A parameter of a method: a number within bounds, or one of some names.
struct SpecParameter {
  std::string_view name, help;
  std::string_view standard;  // its value where none is given, as a user would write it
  double least = 0, most = 0;
  bool whole = false;  // no fractions
  // Where not empty, values are these names, and what is read is a name's index.
  std::span<const std::string_view> names = {};
  bool automatic = false;  // a number or "auto", which is read as -1
};

// What a spec string may name.
struct SpecMethod {
  std::string_view name;
  std::span<const SpecParameter> parameters;
};

// A method and the values of all its parameters, in their order.
struct SpecChoice {
  size_t method = 0;  // of those that were to choose from
  std::vector<double> values;
};

// Reads `text`, the value of `option`. kUsage, naming the parameter, its value and the nearest
// name, for unknown methods and parameters, values that are no numbers or out of bounds, and
// parameters given twice.
Result<SpecChoice> ParseSpec(std::string_view text, std::span<const SpecMethod> methods,
                             std::string_view option);

}  // namespace snug
