#include "text/jinja/sort.h"

#include <algorithm>

namespace snug::jinja {

// Merging from the bottom up, for std::stable_sort would go on with a comparison that failed.
Result<std::vector<size_t>> SortedOrder(Runtime& rt, const std::vector<Value>& keys, bool reverse) {
  const size_t n = keys.size();
  std::vector<size_t> from(n), to(n);
  for (size_t i = 0; i < n; ++i) from[i] = i;
  const Relation before = reverse ? Relation::kGreater : Relation::kLess;
  for (size_t width = 1; width < n; width *= 2) {
    for (size_t low = 0; low < n; low += 2 * width) {
      const size_t middle = std::min(low + width, n), high = std::min(low + 2 * width, n);
      size_t a = low, b = middle;
      for (size_t i = low; i < high; ++i) {
        bool take_right = a == middle;
        if (!take_right && b < high) {
          SNUG_ASSIGN(take_right, Compare(rt, keys[from[b]], keys[from[a]], before));
        }
        to[i] = take_right ? from[b++] : from[a++];
      }
    }
    std::swap(from, to);
  }
  return from;
}

}  // namespace snug::jinja
