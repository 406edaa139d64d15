// The architectures, one line each in model.cc.
#pragma once

#include <memory>

#include "model/model.h"

namespace snug {

Result<std::unique_ptr<Model>> OpenGemma3(const GgufFile& file);
Result<std::unique_ptr<Model>> OpenLlama(const GgufFile& file);
Result<std::unique_ptr<Model>> OpenQwen2(const GgufFile& file);

}  // namespace snug
