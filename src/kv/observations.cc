#include "kv/observations.h"

#include <algorithm>

#include "base/random.h"

namespace snug {

void ChooseProbes(const Probes& probes, uint32_t tokens, std::vector<uint32_t>* chosen) {
  chosen->clear();
  const auto share = [&](double part) {
    return std::min(tokens, static_cast<uint32_t>(part * tokens + 1e-9));
  };
  const uint32_t last = std::max(std::min(tokens, 1u), share(probes.last));
  const uint32_t before = tokens - last;
  // Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S).
  uint64_t left = std::min(before, share(probes.random));
  const uint64_t key = Mix64(Mix64(probes.seed) + tokens);
  for (uint32_t i = 0; i < before && left > 0; ++i) {
    if ((Mix64(key + i) >> 32) * (before - i) >> 32 >= left) continue;
    chosen->push_back(i);
    --left;
  }
  for (uint32_t i = before; i < tokens; ++i) chosen->push_back(i);
}

}  // namespace snug
