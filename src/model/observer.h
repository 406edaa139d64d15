// Sees the inputs of every product of weights and activations, and may put other weights in their
// place: what calibration and measurements of sensitivity are made of.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/matmul.h"
#include "weights/layout.h"

namespace snug {

// Called by the thread that steps.
class ProductObserver {
 public:
  virtual ~ProductObserver() = default;
  // The products that follow read weights of this part, which is at `base`; where it is of experts,
  // those of the expert `copy`.
  virtual void Enter(const Part& part, const uint8_t* base, uint32_t copy) = 0;
  // A product of w with these rows is about to run: the matrix to run it with, of the same shape
  // and valid until the next call for another part; w itself as a rule.
  virtual PackedMatrix See(const PackedMatrix& w, const Activations& x) = 0;
  // A row of the embedding was looked up.
  virtual void Embedded(float* row, size_t n) = 0;
  // Queries [rows, heads, head_dim], keys and values [rows, kv_heads, head_dim] of a layer are
  // ready for attention, queries and keys rotated; the first row is at position `first_pos` (of a
  // step's first sequence).
  virtual void Rotated(uint32_t /*layer*/, const float* /*q*/, const float* /*k*/,
                       const float* /*v*/, uint32_t /*rows*/, uint32_t /*first_pos*/) {}
};

// The tensor of a part at `base` that a packed matrix is, or is rows of, and the first of them;
// null where it is none.
struct SeenTensor {
  const PartTensor* tensor = nullptr;
  uint64_t first_row = 0;  // of the whole tensor, or of one expert's
};
SeenTensor FindTensor(const Part& part, const uint8_t* base, const PackedMatrix& w);

}  // namespace snug
