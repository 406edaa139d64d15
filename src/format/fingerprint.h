// A short name for a model's weights, by which artefacts that were measured on them know them.
#pragma once

#include <string>

#include "base/status.h"
#include "format/model_file.h"

namespace snug {

// 16 hexadecimal digits: a hash (XXH3) of all tensors' names and shapes and of the first, middle
// and last row of each, as float32. Errors are those of reading.
Result<std::string> WeightsFingerprint(const ModelFile& file);

}  // namespace snug
