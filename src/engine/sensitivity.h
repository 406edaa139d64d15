// How much each matrix of a model matters, measured: the divergence of the model's predictions when
// the matrix is read in few bits, and from it the types that keep a whole model closest to what it
// was within a size.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "engine/engine.h"
#include "format/gguf_convert.h"

namespace snug {

// Matrices that are measured together: of one kind, of neighbouring layers.
struct ProbeGroup {
  std::vector<std::string> tensors;
  // Sum over the segments done so far of the mean KL divergence with the group in the probe's type.
  double divergence = 0;
};
// About `most` groups of the quantizable tensors.
std::vector<ProbeGroup> MakeProbeGroups(const ModelFile& file, uint32_t most);

// Pieces of the text that predictions are compared on: each runs once as it is and once for every
// group.
inline constexpr uint32_t kSegmentTokens = 128;
// Runs one segment of kSegmentTokens and adds to every group's divergence. The engine was opened
// with Observation::kProbe and logit_rows >= WeightProbe::kRows. `progress` and `cancel` may be
// null. kCancelled leaves the groups as they were.
Status MeasureSegment(Engine& engine, std::span<const Token> segment,
                      std::vector<ProbeGroup>* groups,
                      const std::function<void(size_t done, size_t total)>& progress,
                      const std::atomic<bool>* cancel);

// The types of the groups' tensors under which the sum of divergences is least while they take at
// most `bytes` together. Divergence goes with the squared error of the weights, which some rows of
// each tensor show; `importance` may be null. kDoesNotFit, with the least size, where no types are
// that small.
Result<std::map<std::string, DType>> ChooseTypes(const ModelFile& file,
                                                 const std::vector<ProbeGroup>& groups,
                                                 const Importance* importance, uint64_t bytes,
                                                 Ledger& ledger, ThreadPool& pool);

}  // namespace snug
