// config.json and generation_config.json of a model whose metadata is GGUF's.
#pragma once

#include <vector>

#include "base/json.h"
#include "format/hf_architectures.h"
#include "format/model_file.h"

namespace snug {

// The architecture whose folder holds what the GGUF file does. kUsage where there is none.
Result<const HfArchitecture*> FolderArchitecture(const ModelFile& file);
// kBadFile where the configuration has no words for what the metadata says.
Result<Json> MakeHfConfig(const ModelFile& file, const HfArchitecture& architecture, DType type,
                          const std::vector<bool>& windowed);
Json MakeHfGeneration(const ModelFile& file);  // ids of special tokens

}  // namespace snug
