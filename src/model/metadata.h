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

// Whether rotary pairs are neighbouring rows of q and k, as in the GGUF files of architectures
// whose converter permutes them; false where the model comes from a folder.
bool RotaryInterleaved(const ModelFile& file, const std::string& arch);
// Gives every layer the window of attention.sliding_window, if the file has one.
Status ReadWindow(const ModelFile& file, ModelConfig* config);

}  // namespace snug
