// How fast a model's steps are on this machine: measured over its own layers with made-up weights,
// so that predictions rest on the kernels that will run.
#pragma once

#include <memory>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "engine/planner.h"
#include "weights/experts.h"
#include "weights/place.h"

namespace snug {

// Seconds of steps of a resident model, with the plan's threads and cache types.
struct StepTimes {
  double decode_s = 0;            // one token after none, its logits included
  double head_s = 0;              // of it, the whole head
  double decode_per_kv_byte = 0;  // more for each byte of cache that the token reads
  uint32_t prompt_tokens = 0;     // a prompt of so many tokens takes ...
  double prompt_s = 0;            // ... this long
};

// Takes some tenths of a second and some hundred MiB. Errors: those of MakePlan, and kIo.
Result<StepTimes> MeasureSteps(const EngineOptions& options, const MemoryPlan& plan);

// Fills plan.predicted. `disk_bytes_per_s` is that of direct reads of the model's file; it counts
// where weights are streamed.
void PredictSpeed(const StepTimes& times, double disk_bytes_per_s, MemoryPlan& plan);

// Weights without a meaning for every part: parts share a ring of memory that is larger than the
// caches, and smaller than most models.
Result<std::unique_ptr<WeightPlace>> MakeProbePlace(const WeightLayout& layout, Ledger& ledger,
                                                    ThreadPool& pool);
Result<std::unique_ptr<ExpertPlace>> MakeProbeExperts(const WeightLayout& layout, Ledger& ledger,
                                                      ThreadPool& pool);

}  // namespace snug
