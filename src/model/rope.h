// Rotary frequencies (Su et al. 2021) with linear, YaRN (Peng et al. 2023), Llama 3 and LongRoPE
// (Ding et al. 2024) scaling.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/tensors.h"

namespace snug {

class RopeTable {
 public:
  RopeTable() = default;
  // `divisors` [dim / 2] of each frequency, or null.
  RopeTable(const RopeConfig& config, const float* divisors);
  // Cosines then sines of one position, [dim / 2] each.
  void Fill(uint32_t position, float* cos_sin) const;
  const std::vector<float>& frequencies() const { return frequency_; }  // of pairs, per position
  uint32_t dim() const { return static_cast<uint32_t>(2 * frequency_.size()); }

 private:
  std::vector<float> frequency_;
  float magnitude_ = 1;
};

// The divisors of a model's frequencies, or null: Llama 3's, or LongRoPE's for a run of `context`
// tokens. Positions of one run share their list, since the cache holds rotated keys.
const float* RopeDivisors(const RopeConfig& c, const LayerWeights& globals, uint32_t context);

}  // namespace snug
