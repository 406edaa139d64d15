#include "model/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace snug {

void Route(const RouterConfig& c, const float* logits, const float* correction, uint32_t* experts,
           float* weights) {
  const bool sigmoid = c.score == RouterConfig::Score::kSigmoid;
  const float max = *std::max_element(logits, logits + c.experts);
  float total = 1;
  auto score = [&](uint32_t e) {
    return sigmoid ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e] - max) / total;
  };
  if (!sigmoid && (correction != nullptr || !c.normalize)) {
    float sum = 0;
    for (uint32_t e = 0; e < c.experts; ++e) sum += score(e);
    total = sum;
  }
  // Sigmoid and softmax keep the order of the logits.
  auto key = [&](uint32_t e) {
    const float value = correction == nullptr ? logits[e] : score(e) + correction[e];
    return std::isnan(value) ? -std::numeric_limits<float>::infinity() : value;
  };
  uint32_t n = 0;
  for (uint32_t e = 0; e < c.experts; ++e) {
    const float value = key(e);
    if (n == c.used && !(value > weights[n - 1])) continue;
    uint32_t at = n < c.used ? n++ : n - 1;
    for (; at > 0 && value > weights[at - 1]; --at) {
      weights[at] = weights[at - 1];
      experts[at] = experts[at - 1];
    }
    weights[at] = value;
    experts[at] = e;
  }
  float sum = 0;
  for (uint32_t r = 0; r < c.used; ++r) sum += weights[r] = score(experts[r]);
  const float scale = c.normalize ? c.scale / sum : c.scale;
  for (uint32_t r = 0; r < c.used; ++r) weights[r] *= scale;
}

}  // namespace snug
