// The methods that read.cc lists, one line each, and the parameters that they share.
#pragma once

#include <algorithm>
#include <array>
#include <iterator>

#include "kv/read/blocks.h"
#include "kv/read/read.h"

namespace snug {

extern const ReadEntry kReadBlockSparse;
extern const ReadEntry kReadDhsa;
extern const ReadEntry kReadDoubleSparsity;
extern const ReadEntry kReadQuest;

// The parameters of a method: those of its budget, which all of its kind have, then its own.
inline constexpr SpecParameter kReadBudgetParameters[] = {
    {"tokens", "rows that are read: up to 1 a share of those there are, above 1 so many", "1/16",
     1e-4, 1e9},
    {"least", "rows that are read at least, where tokens is a share", "256", 1, 1e9, true},
    {"dense-layers", "the first layers of the model, which read all rows", "2", 0, 1e6, true},
    {"sinks", "first rows that are always read", "0", 0, 1e9, true},
    {"recent", "last rows that are always read, the newest at least", "1", 1, 1e9, true},
};
inline constexpr size_t kOwnValues = std::size(kReadBudgetParameters);
template <size_t M, size_t N>
constexpr std::array<SpecParameter, M + N> Joined(const SpecParameter (&shared)[M],
                                                  const SpecParameter (&own)[N]) {
  std::array<SpecParameter, M + N> all{};
  std::copy_n(shared, M, all.begin());
  std::copy_n(own, N, all.begin() + M);
  return all;
}
template <size_t N>
constexpr auto WithReadBudget(const SpecParameter (&own)[N]) {
  return Joined(kReadBudgetParameters, own);
}
inline ReadBudget ReadBudgetOf(std::span<const double> values, uint32_t unit) {
  const auto whole = [&](size_t i) { return static_cast<uint32_t>(values[i]); };
  return {values[0], whole(1), whole(2), whole(3), whole(4), unit};
}

// The same for methods that choose blocks.
inline constexpr SpecParameter kBlockBudgetParameters[] = {
    {"density", "blocks of keys that a block of queries reads: a share of the prompt's", "1/8",
     1e-4, 1},
    {"queries", "queries that choose together: a multiple of keys", "128", 16, 1024, true},
    {"keys", "keys that are read together: a multiple of 16", "32", 16, 1024, true},
};
inline constexpr size_t kOwnBlockValues = std::size(kBlockBudgetParameters);
template <size_t N>
constexpr auto WithBlockBudget(const SpecParameter (&own)[N]) {
  return Joined(kBlockBudgetParameters, own);
}
Result<BlockBudget> BlockBudgetOf(std::span<const double> values, std::string_view method);

}  // namespace snug
