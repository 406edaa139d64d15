// A cache within a budget of its own: which encoding of rows, or how many of them, hold to so many
// bytes, a prompt of full context included.
#pragma once

#include "engine/planner.h"

namespace snug {

// Resolved options, with what options.kv_choice leaves open chosen so that the cache takes at most
// options.kv_bytes. Where options.keep is set that is the number of rows that stay, else the
// encoding of rows: the finest that holds of f16, q8_0 and the codecs' steps (q4_0 never, as its
// keys ruin some models). The same file, model, layout and options give the same choice. Errors:
// kDoesNotFit, with the bytes that the smallest such cache takes; MakePlan's.
Result<EngineOptions> FitCache(const ModelFile& file, const Model& model,
                               const WeightLayout& layout, const EngineOptions& options);

}  // namespace snug
