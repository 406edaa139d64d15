// What can be with a method that chooses which tokens of a prompt are read (tokens/reduce). The
// passes themselves are the engine's: Engine::Reduce.
#pragma once

#include "base/status.h"
#include "engine/planner.h"

namespace snug {

// Refuses, by name and with the reason, what options().reduce cannot be with: kUsage for models and
// layers, kDoesNotFit for lengths.
Status CheckReduce(const ModelConfig& config, const EngineOptions& options);

}  // namespace snug
