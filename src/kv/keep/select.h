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
// younger. Returns how many.
template <class Score>
uint32_t DropLeast(const KeepLayer& layer, uint32_t head, KeepAlways always,
                   std::span<uint32_t> dropped, KeepRoom room, const Score& score) {
  const uint32_t* positions = layer.Positions(head);
  const uint32_t count = layer.rows - layer.stay;
  always = always.Within(layer.stay);
  const auto before = [&](uint32_t a, uint32_t b) {
    const auto left = score(a), right = score(b);
    return left != right ? left < right : positions[a] > positions[b];
  };
  if (count == 1) {
    uint32_t least = layer.rows;
    for (uint32_t r = 0; r < layer.rows; ++r) {
      if (always.Holds(positions[r], layer.length)) continue;
      if (least == layer.rows || before(r, least)) least = r;
    }
    assert(least < layer.rows);
    dropped[0] = least;
    return 1;
  }
  size_t n = 0;
  for (uint32_t r = 0; r < layer.rows; ++r) {
    if (!always.Holds(positions[r], layer.length)) room.order[n++] = r;
  }
  assert(n >= count);
  const auto end = room.order.begin() + count;
  if (n > count) {
    std::nth_element(room.order.begin(), end, room.order.begin() + static_cast<std::ptrdiff_t>(n),
                     before);
  }
  std::copy(room.order.begin(), end, dropped.begin());
  std::sort(dropped.begin(), dropped.begin() + count);
  return count;
}

// Drops the rows of a head that got the least attention, of all but the last ones.
inline uint32_t DropLeastAttended(const KeepLayer& layer, uint32_t head, double recent,
                                  std::span<uint32_t> dropped, KeepRoom room) {
  const float* sums = layer.Sums(head);
  return DropLeast(layer, head, {0, ShareOf(recent, layer.stay)}, dropped, room,
                   [&](uint32_t r) { return sums[r]; });
}

// Writes a head's rows to `order` by their tokens.
inline void OrderByPosition(const KeepLayer& layer, uint32_t head, std::span<uint32_t> order) {
  const uint32_t* positions = layer.Positions(head);
  for (uint32_t r = 0; r < layer.rows; ++r) order[r] = r;
  const auto before = [&](uint32_t a, uint32_t b) { return positions[a] < positions[b]; };
  if (!std::is_sorted(order.begin(), order.end(), before)) {
    std::sort(order.begin(), order.end(), before);
  }
}

// Of what a prompt left nothing goes, of the answer only its last `answer` tokens stay: drops the
// oldest of the last `answer` + 1. Rows after a prompt stay in order but for those that filled a
// hole.
inline uint32_t DropFromAnswer(const KeepLayer& layer, uint32_t head, uint32_t answer,
                               std::span<uint32_t> dropped) {
  const uint32_t* positions = layer.Positions(head);
  uint32_t oldest = layer.rows - 1;
  for (uint32_t r = 0; r < layer.rows; ++r) {
    if (positions[r] + answer + 1 < layer.length) continue;
    if (positions[r] < positions[oldest]) oldest = r;
  }
  dropped[0] = oldest;
  return 1;
}
inline constexpr SpecParameter kAnswerParameter = {
    "answer", "tokens after the prompt that stay", "512", 1, 1e9, true};

}  // namespace snug
