#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace snug {
namespace {

// The dimension whose wavelength turns `rotations` times within the original context (YaRN, eq. 17
// ff.).
double CorrectionDim(const RopeConfig& c, double rotations) {
  return c.dim * std::log(c.original_context / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(static_cast<double>(c.base)));
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& c, const float* divisors) : frequency_(c.dim / 2) {
  const uint32_t half = c.dim / 2;
  double low = 0, high = 0;
  if (c.attention_factor > 0) magnitude_ = c.attention_factor;
  if (c.scaling == RopeScaling::kYarn) {
    low = CorrectionDim(c, c.beta_fast);
    high = CorrectionDim(c, c.beta_slow);
    if (c.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(0.0, low);
    high = std::min(c.dim - 1.0, high);
    if (c.attention_factor <= 0) magnitude_ = 0.1f * std::log(std::max(c.factor, 1.0f)) + 1.0f;
  }
  for (uint32_t i = 0; i < half; ++i) {
    double f = std::pow(static_cast<double>(c.base), -2.0 * i / c.dim);
    if (divisors != nullptr) f /= divisors[i];
    if (c.scaling == RopeScaling::kLinear) f /= c.factor;
    if (c.scaling == RopeScaling::kYarn) {
      const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      f = f / c.factor * ramp + f * (1 - ramp);
    }
    frequency_[i] = static_cast<float>(f);
  }
}

const float* RopeDivisors(const RopeConfig& c, const LayerWeights& globals, uint32_t context) {
  const float* far = globals.vec(Role::kLongRopeDivisors);
  const bool is_far = static_cast<float>(context) > c.original_context;
  return far != nullptr && is_far ? far : globals.vec(Role::kRopeDivisors);
}

void RopeTable::Fill(uint32_t position, float* cos_sin) const {
  const size_t half = frequency_.size();
  for (size_t i = 0; i < half; ++i) {
    // In double: far into a text a float's steps are larger than what tells neighbours apart.
    const double angle = double{frequency_[i]} * position;
    cos_sin[i] = static_cast<float>(std::cos(angle)) * magnitude_;
    cos_sin[half + i] = static_cast<float>(std::sin(angle)) * magnitude_;
  }
}

}  // namespace snug
