// A resident output matrix in bit planes (kernel/plane_head.h), loaded and searched for the engine:
// greedy and top-k sampling read the low planes of only those rows that can still matter.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "format/model_file.h"
#include "kernel/plane_head.h"
#include "weights/layout.h"

namespace snug {

class SplitHead {
 public:
  // Whether a head of that type and shape can be split.
  static bool Supports(DType type, uint64_t cols) {
    return type == DType::kQ8_0 && cols <= kMaxPlaneCols;
  }
  static uint64_t WeightBytes(uint64_t rows, uint64_t cols);
  static uint64_t ScratchBytes(uint64_t rows);
  // Bytes that a search reads where few rows survive.
  static uint64_t SearchBytes(uint64_t rows, uint64_t cols);

  // Reads the head's parts (row blocks, in order) into planes.
  static Result<std::unique_ptr<SplitHead>> Load(const ModelFile& file, std::span<const Part> parts,
                                                 Ledger& ledger, ThreadPool& pool);

  void UnpackRow(size_t row, float* dst) const { head_.UnpackRow(row, dst); }
  // All logits of x's tokens: out [tokens, rows].
  void Full(ThreadPool& pool, const Activations& x, float* out) const;
  // Exact logits of at least the `top` best rows of x's only token, -infinity elsewhere. False
  // where too many rows could still matter; `out` is then unchanged. Adds what it read to *bytes.
  bool Top(ThreadPool& pool, const Activations& x, size_t top, float* out, uint64_t* bytes);
  uint64_t bytes() const { return planes_.size(); }

 private:
  Buffer planes_, scratch_;
  PlaneHead head_;
  float* bounds_ = nullptr;
  uint32_t* list_ = nullptr;
  Candidate* found_ = nullptr;
};

}  // namespace snug
