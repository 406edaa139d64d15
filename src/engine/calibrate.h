// Collects an importance matrix: sums of squares of the inputs of every matrix while texts run
// through the engine, each expert's apart.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "format/imatrix.h"
#include "model/observer.h"

namespace snug {

class Calibration final : public ProductObserver {
 public:
  // Reserves the sums of every matrix of the layers, before the first step.
  static Result<std::unique_ptr<Calibration>> Create(const WeightLayout& layout, Ledger& ledger);
  // What Create reserves.
  static uint64_t Bytes(const WeightLayout& layout);

  void Enter(const Part& part, const uint8_t* base, uint32_t copy) override;
  PackedMatrix See(const PackedMatrix& w, const Activations& x) override;
  void Embedded(float*, size_t) override {}

  // Goes on from sums that an earlier run left. kBadFile where they are of another model.
  Status Resume(const Imatrix& earlier);
  Imatrix Sum(uint32_t chunks, uint32_t chunk_size, std::vector<std::string> datasets) const;

 private:
  struct Sums {
    double* sums = nullptr;  // [slices, cols]
    uint64_t cols = 0, slices = 1, slice_rows = 0;
    std::vector<double> counts;  // [slices]
  };
  std::map<std::string, Sums, std::less<>> sums_;  // by tensor
  Buffer buffer_;
  const Part* part_ = nullptr;
  const uint8_t* base_ = nullptr;
  uint32_t expert_ = 0;
};

}  // namespace snug
