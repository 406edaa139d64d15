// A model's tensors, row by row, in other types and orders: what writing a model anew is made of.
// Bounded memory: rows pass through one buffer whatever the tensor's size.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/ledger.h"
#include "base/threads.h"
#include "format/model_file.h"

namespace snug {

// How one tensor is written.
struct Reencoding {
  const TensorInfo* tensor = nullptr;
  DType type = DType::kF32;
  uint64_t first_row = 0, rows = 0;  // the rows that are written
  // Rows come in groups of 2 * half, of which row i and row i + half become neighbours, or come
  // apart again. 0: rows keep their order.
  uint64_t half = 0;
  bool join = true;  // neighbours, else apart
  // Importance of the columns [slices, cols], where `rows_per_slice` rows share each; or null.
  const float* importance = nullptr;
  uint64_t rows_per_slice = 0;
  // Applied to each value after all else, or null.
  float (*value)(float) = nullptr;
};

class Reencoder {
 public:
  // Takes what the ledger has free, up to what makes reads and threads efficient. Errors:
  // kDoesNotFit when not even a group of the widest tensor's rows fits.
  static Result<Reencoder> Create(const ModelFile& file, const std::vector<Reencoding>& work,
                                  Ledger& ledger, ThreadPool& pool);

  // Calls sink(data, bytes) with the tensor's bytes in order, from `skip` bytes on. Stops with
  // kCancelled when *cancel, which may be null, is set.
  Status Write(const Reencoding& r, uint64_t skip,
               const std::function<Status(const uint8_t*, uint64_t)>& sink,
               const std::atomic<bool>* cancel);

 private:
  Reencoder(const ModelFile& file, ThreadPool& pool) : file_(file), pool_(pool) {}
  void Convert(const Reencoding& r, uint64_t first, uint64_t rows, const uint8_t* stored,
               uint8_t* out);

  const ModelFile& file_;
  ThreadPool& pool_;
  Buffer buffer_;
};

}  // namespace snug
