// What a model's cache can be: types, codecs, rows that go and rows that are read, and which of
// them go together.
#pragma once

#include "engine/planner.h"

namespace snug {

// kUsage, naming the option, its value and the reason, for what cannot be or ruins the model.
Status CheckCache(const ModelConfig& config, const EngineOptions& options);

// Whether rows of such a model can be dropped, and positions roll.
bool CanRoll(const ModelConfig& config);

}  // namespace snug
