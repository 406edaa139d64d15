// Random weights in every stored type, and an element-by-element reading of them that follows the
// format's definition and shares nothing with the kernels.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "format/dtype.h"

namespace snug::testing {

inline constexpr DType kAllTypes[] = {
    DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ8_0,  DType::kQ4_0,  DType::kQ4_1,
    DType::kQ5_0, DType::kQ5_1,   DType::kQ2_K,   DType::kQ3_K,  DType::kQ4_K,  DType::kQ5_K,
    DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kTQ1_0, DType::kTQ2_0, DType::kMXFP4};

// Rows of random bits with scales that keep the weights near [-1, 1].
std::vector<uint8_t> RandomWeights(DType type, size_t rows, size_t cols, std::mt19937& rng);
// The weight at (row, col) of raw rows.
double WeightAt(DType type, const std::vector<uint8_t>& raw, size_t cols, size_t row, size_t col);

// Standard normal values.
std::vector<float> RandomRows(size_t rows, size_t cols, std::mt19937& rng);

// 64-byte aligned bytes.
class Aligned {
 public:
  explicit Aligned(size_t bytes) : data_(bytes + 64) {}
  uint8_t* get() {
    return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(data_.data()) + 63) &
                                      ~uintptr_t{63});
  }

 private:
  std::vector<uint8_t> data_;
};

}  // namespace snug::testing
