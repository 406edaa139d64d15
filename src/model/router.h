// The router of a mixture of experts: which experts a token takes, and with what weights.
#pragma once

#include <cstdint>

#include "model/config.h"

namespace snug {

// From a token's logits [c.experts]: the c.used best experts, the best first and the lower index
// first among equals, and their weights. `correction` [c.experts], which may be null, is added to
// the scores for the choice only (DeepSeek-V3's balancing bias).
void Route(const RouterConfig& c, const float* logits, const float* correction, uint32_t* experts,
           float* weights);

}  // namespace snug
