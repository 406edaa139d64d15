#include "kv/extremes.h"

#include <algorithm>
#include <cmath>

namespace snug {

std::vector<uint32_t> TokensOfExtremes(const float* x, size_t tokens, size_t width,
                                       uint32_t count) {
  struct Element {
    float size;
    size_t at;
  };
  // A heap whose top is the first to go.
  const auto before = [](const Element& a, const Element& b) {
    return a.size != b.size ? a.size > b.size : a.at < b.at;
  };
  std::vector<Element> largest;
  largest.reserve(size_t{count} + 1);
  float least = -1;  // that one must exceed to count
  for (size_t i = 0; count > 0 && i < tokens * width; ++i) {
    const float size = std::abs(x[i]);
    if (!(size > least)) continue;
    largest.push_back({size, i});
    std::push_heap(largest.begin(), largest.end(), before);
    if (largest.size() > count) {
      std::pop_heap(largest.begin(), largest.end(), before);
      largest.pop_back();
    }
    if (largest.size() == count) least = largest.front().size;
  }
  std::vector<uint32_t> chosen;
  for (const Element& e : largest) chosen.push_back(static_cast<uint32_t>(e.at / width));
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

}  // namespace snug
