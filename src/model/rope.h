// Rotary frequencies (Su et al. 2021) with linear, YaRN (Peng et al. 2023) and Llama 3 scaling.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace snug {

class RopeTable {
 public:
  RopeTable() = default;
  // `divisors` [dim / 2] of each frequency (Llama 3's rope_freqs.weight), or null.
  RopeTable(const RopeConfig& config, const float* divisors);
  // Cosines then sines of one position, [dim / 2] each.
  void Fill(uint32_t position, float* cos_sin) const;
  uint32_t dim() const { return static_cast<uint32_t>(2 * frequency_.size()); }

 private:
  std::vector<float> frequency_;
  float magnitude_ = 1;
};

}  // namespace snug
