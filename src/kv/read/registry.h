// The methods that read.cc lists, one line each, and the parameters that they share.
#pragma once

#include "kv/read/read.h"

namespace snug {

extern const ReadEntry kReadDoubleSparsity;
extern const ReadEntry kReadQuest;

// The first parameters of every method, in this order.
constexpr SpecParameter TokensParameter(std::string_view standard) {
  return {"tokens", "rows that are read: up to 1 a share of those there are, above 1 so many",
          standard, 1e-4, 1e9};
}
constexpr SpecParameter LeastParameter(std::string_view standard) {
  return {"least", "rows that are read at least, where tokens is a share", standard, 1, 1e9, true};
}
inline constexpr SpecParameter kDenseLayersParameter = {
    "dense-layers", "the first layers of the model, which read all rows", "2", 0, 1e6, true};
constexpr SpecParameter SinksParameter(std::string_view standard) {
  return {"sinks", "first rows that are always read", standard, 0, 1e9, true};
}
constexpr SpecParameter RecentParameter(std::string_view standard) {
  return {"recent", "last rows that are always read, the newest at least", standard, 1, 1e9, true};
}
inline ReadBudget ReadBudgetOf(std::span<const double> values, uint32_t unit) {
  const auto whole = [&](size_t i) { return static_cast<uint32_t>(values[i]); };
  return {values[0], whole(1), whole(2), whole(3), whole(4), unit};
}

}  // namespace snug
