// The architectures, one line each in model.cc.
#pragma once

#include <memory>

#include "model/model.h"

namespace snug {

Result<std::unique_ptr<Model>> OpenBert(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenGemma2(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenGemma3(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenGptOss(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenGranite(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenLlama(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenMamba(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenMamba2(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenMixtral(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenOlmo2(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenOlmoe(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenPhi3(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenQwen2(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenQwen3(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenQwen3Moe(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenQwen3Next(const ModelFile& file);
Result<std::unique_ptr<Model>> OpenSmolLm3(const ModelFile& file);

}  // namespace snug
