// The `stream` place: a layered model of which only some parts are in memory. Pins what fits and
// streams the rest through k fixed slots, loading ahead on its own threads, on across the token
// boundary. After "Superpipeline" (Abbasi and Lim 2024), inference part; see
// docs/methods/superpipeline.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "format/model_file.h"
#include "weights/layout.h"
#include "weights/place.h"

namespace snug {

struct StreamOptions {
  uint32_t slots = 0;         // k, parts in fast memory at once beside the pinned ones; 0: chosen
  uint32_t return_batch = 1;  // k', slots freed together
  uint32_t pinned = 0;        // parts kept in memory, spread evenly over the pass
  // Test hook, called on the loading threads before each read and each pack.
  std::function<void()> delay;
};

// Which parts are pinned: part 0 and `pinned` others, spread so that streamed parts come at even
// distances.
std::vector<bool> PinnedParts(const WeightLayout& layout, uint32_t pinned);

// What a place with these options reserves: arena (Owner::kWeights) and bounce buffers
// (Owner::kIo).
uint64_t StreamWeightBytes(const WeightLayout& layout, const StreamOptions& options);
uint64_t StreamIoBytes();
// Bytes read from the file in one pass over all parts, k < streamed parts.
uint64_t StreamPassBytes(const WeightLayout& layout, const StreamOptions& options);

// Reads the pinned parts before it returns, telling `progress`. Errors: kUsage for k < 1, k >
// parts, k' < 1, k' > k; kDoesNotFit, kIo.
Result<std::unique_ptr<WeightPlace>> MakeStreamPlace(const ModelFile& file,
                                                     const WeightLayout& layout, Ledger& ledger,
                                                     const StreamOptions& options,
                                                     const LoadProgress& progress = nullptr);

// Options for `bytes` of memory: as many pinned parts as fit beside the slots. `disk_bytes_per_s`
// and `read_bytes_per_s` (of memory) predict the time of a decode pass; zeros where unknown.
struct StreamChoice {
  StreamOptions options;
  uint64_t weight_bytes = 0, io_bytes = 0;
  uint64_t pass_bytes = 0;
};
StreamChoice ChooseStream(const WeightLayout& layout, const StreamOptions& wanted, uint64_t bytes);

}  // namespace snug
