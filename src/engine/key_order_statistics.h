// The order of a model's key channels (kv/codec/key_basis.h): ascending by the signed sum that each
// channel of the keys, as they were before rotary embedding and transformed, has over the tokens of
// a text (Su et al. 2025, RotateKV).
#pragma once

#include <memory>
#include <vector>

#include "base/ledger.h"
#include "kv/codec/key_basis.h"
#include "model/observer.h"

namespace snug {

class KeyOrderStatistics final : public ProductObserver {
 public:
  // Reserves the sums, for transforms over `heads` KV heads (0: TransformHeads), and what turns
  // keys back; `model` must outlive them. kUsage where the model has no layer with attention over
  // all rows, or heads that have no such transform.
  static Result<std::unique_ptr<KeyOrderStatistics>> Create(const ModelConfig& model,
                                                            uint32_t heads, uint32_t context,
                                                            const std::vector<float>& frequencies,
                                                            Ledger& ledger);
  // What Create reserves.
  static uint64_t Bytes(const ModelConfig& model, uint32_t context);

  void Enter(const Part&, const uint8_t*, uint32_t) override {}
  PackedMatrix See(const PackedMatrix& w, const Activations&) override { return w; }
  void Embedded(float*, size_t) override {}
  void Rotated(uint32_t layer, const float* q, const float* k, const float* v, uint32_t rows,
               uint32_t first_pos) override;

  // Channels by their sums, of equal ones the first.
  KeyOrder Order() const;

 private:
  explicit KeyOrderStatistics(const ModelConfig& model) : model_(model) {}
  double* Sums(uint32_t layer) const;

  const ModelConfig& model_;
  RotatedFormat format_;
  KeyBasis basis_;
  Buffer sums_;
  std::vector<float> row_;
};

}  // namespace snug
