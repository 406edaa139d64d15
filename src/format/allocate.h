// Chooses one of several sizes for each of many things so that the sum of costs is least within a
// total size: the multiple-choice knapsack, solved along its convex hull.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace snug {

struct SizeChoice {
  uint64_t bytes = 0;
  double cost = 0;
};

// The choice for each item, an index into its list. Every item takes its smallest where not even
// those fit. Sums of costs are within one item's step of the least possible.
std::vector<size_t> ChooseSizes(const std::vector<std::vector<SizeChoice>>& items,
                                uint64_t total_bytes);

}  // namespace snug
