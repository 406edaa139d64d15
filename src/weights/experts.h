// Where experts live: all of them in memory, or those most likely to be wanted in a cache of slots,
// the rest read from the file when a router asks for them. The output is the same for any number of
// slots; docs/methods/experts.md says how entries are chosen.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "format/model_file.h"
#include "weights/layout.h"
#include "weights/loader.h"

namespace snug {

struct ExpertStats {
  uint64_t lookups = 0;       // experts that layers asked for, each once a layer and step
  uint64_t misses = 0;        // of them, those that had to be loaded then
  uint64_t prefetches = 0;    // loads ahead of the asking
  uint64_t bytes_loaded = 0;  // of the file, by misses and prefetches
  uint64_t bytes_read = 0;    // with what direct reads take beside that
  uint64_t wait_ns = 0;       // time that Acquire spent blocked
  double hit_rate() const {
    return lookups == 0 ? 1 : 1 - static_cast<double>(misses) / static_cast<double>(lookups);
  }
};

// What happened between two moments.
ExpertStats operator-(const ExpertStats& later, const ExpertStats& earlier);

class ExpertPlace {
 public:
  virtual ~ExpertPlace() = default;
  // The experts of `layer` that will now be acquired, ascending, each once and in this order.
  virtual void Announce(uint32_t layer, std::span<const uint32_t> experts) = 0;
  // What `layer` will probably announce next, the likeliest first; a hint.
  virtual void Expect(uint32_t layer, std::span<const uint32_t> experts) = 0;
  // Whether Acquire would return at once.
  virtual bool Ready(uint32_t layer, uint32_t expert) const = 0;
  // Memory of an announced expert, valid until Release. Blocks until it is loaded; the caller holds
  // no other then, unless Ready. kIo / kBadFile when a read failed or the file changed.
  virtual Result<const uint8_t*> Acquire(uint32_t layer, uint32_t expert) = 0;
  virtual void Release(uint32_t layer, uint32_t expert) = 0;
  virtual ExpertStats stats() const = 0;
  // Slots of a cache, 0 where all experts are in memory.
  virtual uint32_t slots() const = 0;
};

// All experts in one huge-page arena, loaded in parallel before it returns.
Result<std::unique_ptr<ExpertPlace>> MakeResidentExperts(const ModelFile& file,
                                                         const WeightLayout& layout, Ledger& ledger,
                                                         ThreadPool& pool,
                                                         const LoadProgress& progress);
// What it reserves under Owner::kWeights, and beside that, while it loads, LoadBytes.
uint64_t ResidentExpertBytes(const WeightLayout& layout);

struct ExpertCacheOptions {
  uint32_t slots = 0;  // experts in memory at once, at least 1
  enum class Prefetch : uint8_t { kWherePays, kNever, kAlways } prefetch = Prefetch::kWherePays;
  std::function<void()> delay;  // test hook, see PartLoader
};
// A cache of `slots` slots, each as large as the largest expert. Errors: kUsage for no slots,
// kDoesNotFit, kIo.
Result<std::unique_ptr<ExpertPlace>> MakeExpertCache(const ModelFile& file,
                                                     const WeightLayout& layout, Ledger& ledger,
                                                     const ExpertCacheOptions& options);
// What it reserves: the slots (Owner::kWeights), and its bounce buffers (Owner::kIo).
uint64_t ExpertCacheBytes(const WeightLayout& layout, uint32_t slots);
uint64_t ExpertIoBytes(const WeightLayout& layout);
uint32_t TotalExperts(const WeightLayout& layout);
// The most slots that fit `bytes` beside the bounce buffers, at most one per expert.
uint32_t ExpertSlotsWithin(const WeightLayout& layout, uint64_t bytes);

}  // namespace snug
