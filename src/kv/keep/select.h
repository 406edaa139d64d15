// What methods that keep some rows share: budgets in shares or tokens, and the choice of the rows
// of least score beside the first and the last tokens.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <span>

#include "kv/keep/keep.h"

namespace snug {

// A budget of rows: up to 1 a share of the prompt, above 1 so many rows. A share is at least
// `least` rows: pages hold 64, so that fewer would save nothing.
struct KeepBudget {
  double amount = 0;
  uint32_t least = 0;
  uint32_t Rows(uint32_t tokens) const {
    if (amount > 1) return static_cast<uint32_t>(amount);
    return std::max(least, static_cast<uint32_t>(std::floor(amount * tokens)));
  }
};

// Parameters that all methods have, first in their lists.
constexpr SpecParameter BudgetParameter(std::string_view standard) {
  return {"budget", "rows that stay: up to 1 a share of the prompt, above 1 so many", standard,
          1e-4, 1e9};
}
inline constexpr SpecParameter kLeastParameter = {
    "least", "rows that stay at least, where budget is a share", "64", 1, 1e9, true};
inline KeepBudget ReadBudget(std::span<const double> values) {
  return {values[0], static_cast<uint32_t>(values[1])};
}

constexpr SpecParameter RecentParameter(std::string_view standard) {
  return {"recent", "last tokens that stay: up to 1 a share of the budget, above 1 so many",
          standard, 0, 1e9};
}
// Up to 1 a share of `rows`, above 1 so many, at most all.
inline uint32_t ShareOf(double amount, uint32_t rows) {
  return std::min(rows, static_cast<uint32_t>(amount > 1 ? amount : std::floor(amount * rows)));
}

// Tokens that are never dropped: the first `sinks` and the last `recent`.
struct KeepAlways {
  uint32_t sinks = 0, recent = 0;
  bool Holds(uint32_t position, uint32_t length) const {
    return position < sinks || position + recent >= length;
  }
  // As much of this as `rows` rows can hold, the newest token at least.
  KeepAlways Within(uint32_t rows) const {
    const uint32_t last = std::clamp<uint32_t>(recent, 1, std::max(1u, rows));
    return {std::min(sinks, rows - std::min(rows, last)), last};
  }
};

// Drops the rows with the least score(row) of those that `always` does not hold; of equal ones the
// younger.
template <class Score>
void DropLeast(const KeepLayer& layer, uint32_t head, KeepAlways always,
               std::span<uint32_t> dropped, KeepRoom room, const Score& score) {
  const uint32_t* positions = layer.Positions(head);
  always = always.Within(layer.rows - static_cast<uint32_t>(dropped.size()));
  const auto before = [&](uint32_t a, uint32_t b) {
    const auto left = score(a), right = score(b);
    return left != right ? left < right : positions[a] > positions[b];
  };
  if (dropped.size() == 1) {
    uint32_t least = layer.rows;
    for (uint32_t r = 0; r < layer.rows; ++r) {
      if (always.Holds(positions[r], layer.length)) continue;
      if (least == layer.rows || before(r, least)) least = r;
    }
    assert(least < layer.rows);
    dropped[0] = least;
    return;
  }
  size_t n = 0;
  for (uint32_t r = 0; r < layer.rows; ++r) {
    if (!always.Holds(positions[r], layer.length)) room.order[n++] = r;
  }
  assert(n >= dropped.size());
  const auto end = room.order.begin() + static_cast<std::ptrdiff_t>(dropped.size());
  if (n > dropped.size()) {
    std::nth_element(room.order.begin(), end, room.order.begin() + static_cast<std::ptrdiff_t>(n),
                     before);
  }
  std::copy(room.order.begin(), end, dropped.begin());
  std::sort(dropped.begin(), dropped.end());
}

// Drops the rows of a head that got the least attention, of all but the last ones.
inline void DropLeastAttended(const KeepLayer& layer, uint32_t head, double recent,
                              std::span<uint32_t> dropped, KeepRoom room) {
  const float* sums = layer.Sums(head);
  const auto kept = layer.rows - static_cast<uint32_t>(dropped.size());
  DropLeast(layer, head, {0, ShareOf(recent, kept)}, dropped, room,
            [&](uint32_t r) { return sums[r]; });
}

}  // namespace snug
