// Learns the codebooks of a model's cache (kv/codec/codebooks.h): while a text runs through the
// engine, a sample of each layer's keys, rotated, and values is kept; k-means then finds the
// centroids of every sub-vector (Wang et al. 2025, MILLION).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/ledger.h"
#include "base/threads.h"
#include "kv/codec/codebooks.h"
#include "model/observer.h"

namespace snug {

struct CodebookOptions {
  uint32_t dims = 2;                   // of a sub-vector, 2 or 4
  bool global = false;                 // one pair of books for all layers, as the paper has it
  uint32_t vectors = 64 * kCentroids;  // sampled for a book, of keys and of values, at most
};
// Points of a centroid that k-means gains from, at most, and below which it lacks some.
inline constexpr uint32_t kMostVectors = 256 * kCentroids, kFewVectors = 30 * kCentroids;

class CodebookTraining final : public ProductObserver {
 public:
  // Reserves the sample, the books and each thread's room; `model` must outlive them. kUsage where
  // the model has no layer whose rows are coded, or heads that sub-vectors do not divide.
  static Result<std::unique_ptr<CodebookTraining>> Create(const ModelConfig& model,
                                                          const CodebookOptions& options,
                                                          int threads, Ledger& ledger);
  // What Create reserves.
  static uint64_t Bytes(const ModelConfig& model, const CodebookOptions& options, int threads);

  void Enter(const Part&, const uint8_t*, uint32_t) override {}
  PackedMatrix See(const PackedMatrix& w, const Activations&) override { return w; }
  void Embedded(float*, size_t) override {}
  void Rotated(uint32_t layer, const float* q, const float* k, const float* v, uint32_t rows,
               uint32_t first_pos) override;

  // Vectors that each book is learnt from.
  uint32_t vectors() const;
  // Learns all books from what was seen. `progress` may be null; it gets the books that are done,
  // and returns false to cancel. Errors: kBadInput for fewer vectors than centroids, kCancelled.
  // Depends on what was seen alone, whatever the threads.
  Status Train(ThreadPool& pool,
               const std::function<bool(uint32_t done, uint32_t total)>& progress);
  Codebooks& books() { return books_; }

 private:
  CodebookTraining(const ModelConfig& model, const CodebookShape& shape, uint32_t capacity)
      : model_(model), shape_(shape), capacity_(capacity), seen_(shape.layers.size()) {}
  // The sample of a layer: f16 [capacity, head_dim] of keys, then of values.
  uint16_t* Sample(size_t layer, bool values);
  uint32_t Held(size_t layer) const;
  void TrainBook(size_t pair, bool values, uint32_t subspace, uint8_t* room);

  const ModelConfig& model_;
  const CodebookShape shape_;
  const uint32_t capacity_;     // of a layer's sample
  std::vector<uint64_t> seen_;  // [layers that are coded] vectors so far
  Buffer samples_, rooms_;
  uint64_t room_bytes_ = 0;
  Codebooks books_;
};

}  // namespace snug
