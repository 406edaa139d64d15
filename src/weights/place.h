// Where weights live: the place seam. A forward pass acquires each part in order, uses it and
// releases it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "weights/layout.h"
#include "weights/loader.h"

namespace snug {

struct PlaceStats {
  uint64_t bytes_read = 0;  // from disk since construction
  uint64_t loads = 0;       // parts loaded
  uint64_t wait_ns = 0;     // time that Acquire spent blocked
  uint64_t pinned_bytes = 0;
  uint32_t peak_slots = 0;  // slots that were in use at once
  uint64_t slot_bytes = 0;  // of all slots
};

class WeightPlace {
 public:
  virtual ~WeightPlace() = default;
  // Announces the next pass: it will acquire parts [1, parts), in order. `next_parts` says the same
  // of the pass after it, so that prefetch may run on across the boundary; 0 means none is known.
  virtual void BeginPass(size_t parts, size_t next_parts) = 0;
  // Memory of a part, valid until Release. Blocks until loaded. kIo / kBadFile when its read failed
  // or the file changed.
  virtual Result<const uint8_t*> Acquire(size_t part) = 0;
  virtual void Release(size_t part) = 0;
  virtual PlaceStats stats() const = 0;
  virtual bool resident() const = 0;
};

// Everything in one huge-page arena, loaded in parallel before it returns. `progress` may be null.
Result<std::unique_ptr<WeightPlace>> MakeResidentPlace(const ModelFile& file,
                                                       const WeightLayout& layout, Ledger& ledger,
                                                       ThreadPool& pool,
                                                       const LoadProgress& progress);
// What it reserves under Owner::kWeights, and beside that, while it loads, LoadBytes.
uint64_t ResidentBytes(const WeightLayout& layout);

}  // namespace snug
