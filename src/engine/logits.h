// What scores are made of, from logits [vocab], in double and natural logarithms.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace snug {

// Log of the sum of exponentials.
inline double LogSum(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float l : logits) sum += std::exp(l - max);
  return max + std::log(sum);
}

inline double NegativeLogLikelihood(std::span<const float> logits, size_t token) {
  return LogSum(logits) - logits[token];
}

inline size_t LikeliestOf(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Kullback-Leibler divergence of what `from` predicts from what `of` does; rounding may leave it
// just below zero.
inline double Divergence(std::span<const float> of, std::span<const float> from) {
  const double a = LogSum(of), b = LogSum(from);
  double sum = 0;
  for (size_t i = 0; i < of.size(); ++i) {
    const double p = of[i] - a;
    sum += std::exp(p) * (p - (from[i] - b));
  }
  return sum;
}

}  // namespace snug
