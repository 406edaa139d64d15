#include "format/allocate.h"

#include <algorithm>
#include <queue>

namespace snug {
namespace {

// Choices that a line of some slope touches, by ascending size and descending cost.
std::vector<size_t> Hull(const std::vector<SizeChoice>& choices) {
  std::vector<size_t> order(choices.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return choices[a].bytes != choices[b].bytes ? choices[a].bytes < choices[b].bytes
                                                : choices[a].cost < choices[b].cost;
  });
  const auto gain = [&](size_t from, size_t to) {
    return (choices[from].cost - choices[to].cost) /
           static_cast<double>(choices[to].bytes - choices[from].bytes);
  };
  std::vector<size_t> hull;
  for (const size_t i : order) {
    if (!hull.empty() && (choices[i].bytes == choices[hull.back()].bytes ||
                          !(choices[i].cost < choices[hull.back()].cost)))
      continue;
    while (hull.size() >= 2 && gain(hull[hull.size() - 2], hull.back()) <= gain(hull.back(), i))
      hull.pop_back();
    hull.push_back(i);
  }
  return hull;
}

}  // namespace

std::vector<size_t> ChooseSizes(const std::vector<std::vector<SizeChoice>>& items,
                                uint64_t total_bytes) {
  struct Step {
    double gain;  // cost saved per byte
    size_t item, to;
    bool operator<(const Step& o) const { return gain != o.gain ? gain < o.gain : item > o.item; }
  };
  std::vector<std::vector<size_t>> hulls;
  std::vector<size_t> at(items.size(), 0);
  std::priority_queue<Step> steps;
  uint64_t used = 0;
  const auto push = [&](size_t item) {
    const std::vector<size_t>& hull = hulls[item];
    if (at[item] + 1 >= hull.size()) return;
    const SizeChoice& from = items[item][hull[at[item]]];
    const SizeChoice& to = items[item][hull[at[item] + 1]];
    steps.push(
        {(from.cost - to.cost) / static_cast<double>(to.bytes - from.bytes), item, at[item] + 1});
  };
  for (const auto& choices : items) hulls.push_back(Hull(choices));
  for (size_t i = 0; i < items.size(); ++i) {
    used += items[i][hulls[i][0]].bytes;
    push(i);
  }
  // The best step first; one that no longer fits ends its item, others may still find room.
  while (!steps.empty()) {
    const Step step = steps.top();
    steps.pop();
    const uint64_t from = items[step.item][hulls[step.item][at[step.item]]].bytes;
    const uint64_t to = items[step.item][hulls[step.item][step.to]].bytes;
    if (used - from + to > total_bytes) continue;
    used = used - from + to;
    at[step.item] = step.to;
    push(step.item);
  }
  std::vector<size_t> chosen;
  for (size_t i = 0; i < items.size(); ++i) chosen.push_back(hulls[i][at[i]]);
  return chosen;
}

}  // namespace snug
