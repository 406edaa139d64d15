// Reads the hyper-parameters that all decoder-only architectures share from GGUF metadata, with
// limits that make sizes derived from them safe.
#pragma once

#include "base/status.h"
#include "format/model_file.h"
#include "model/config.h"

namespace snug {

// Fills everything but what an architecture decides for itself (activation, windows, scales,
// interleaving).
Result<ModelConfig> ReadCommonConfig(const ModelFile& file);

}  // namespace snug
