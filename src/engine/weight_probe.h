// Reads chosen matrices of a model in a type of few bits while it runs, to measure how much they
// matter.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ledger.h"
#include "base/threads.h"
#include "model/observer.h"

namespace snug {

class WeightProbe final : public ProductObserver {
 public:
  static constexpr DType kType = DType::kQ3_K;  // or FittingType of it
  static constexpr uint32_t kRows = 64;         // positions whose predictions are compared

  static Result<std::unique_ptr<WeightProbe>> Create(const WeightLayout& layout, uint32_t vocab,
                                                     Ledger& ledger, ThreadPool& pool);
  // What Create reserves.
  static uint64_t Bytes(const WeightLayout& layout, uint32_t vocab, int threads);

  // The tensors to put in the probe's type from now on; one matrix of a product at a time.
  void Choose(const std::vector<std::string>& tensors);
  std::span<float> reference() { return {reference_.as<float>(), reference_.size() / 4}; }

  void Enter(const Part& part, const uint8_t* base, uint32_t copy) override;
  PackedMatrix See(const PackedMatrix& w, const Activations& x) override;
  void Embedded(float* row, size_t n) override;

 private:
  struct Sizes;
  static Sizes SizesOf(const WeightLayout& layout, int threads);
  explicit WeightProbe(ThreadPool& pool) : pool_(pool) {}

  ThreadPool& pool_;
  Buffer packed_, scratch_, reference_;
  uint64_t per_thread_ = 0;
  std::set<std::string, std::less<>> active_;
  const Part* part_ = nullptr;
  const uint8_t* base_ = nullptr;
};

}  // namespace snug
