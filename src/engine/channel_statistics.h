// Which channels of the keys say most about q.k (kv/read/channels.h): the mean of |q_c k_c| over
// the tokens of a text, queries and keys being of the same token and rotated, summed over the query
// heads of each KV head (Yang et al. 2024, Double Sparsity).
#pragma once

#include <cstdint>
#include <memory>

#include "base/ledger.h"
#include "kv/read/channels.h"
#include "model/observer.h"

namespace snug {

class ChannelStatistics final : public ProductObserver {
 public:
  // Reserves the sums of every layer; `model` must outlive them.
  static Result<std::unique_ptr<ChannelStatistics>> Create(const ModelConfig& model,
                                                           Ledger& ledger);
  // What Create reserves.
  static uint64_t Bytes(const ModelConfig& model);

  void Enter(const Part&, const uint8_t*, uint32_t) override {}
  PackedMatrix See(const PackedMatrix& w, const Activations&) override { return w; }
  void Embedded(float*, size_t) override {}
  void Rotated(uint32_t layer, const float* q, const float* k, const float* v, uint32_t rows,
               uint32_t first_pos) override;

  // Channels by what was summed, of equal ones the first; of the layers that saw tokens.
  ChannelRanking Rank() const;

 private:
  explicit ChannelStatistics(const ModelConfig& model)
      : model_(model), seen_(model.layers, false) {}
  double* Sums(uint32_t layer, uint32_t kv_head) const;

  const ModelConfig& model_;
  Buffer buffer_;
  std::vector<bool> seen_;  // [layers]
};

}  // namespace snug
