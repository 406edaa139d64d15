// Reads config.json of a Hugging Face folder, in its spellings of all ages, into GGUF's keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "format/hf_architectures.h"
#include "format/hf_folder.h"

namespace snug {

// The object in FOLDER/NAME, where Python's NaN and Infinity may stand for null. An absent file is
// an error if `needed`, else an empty object.
Result<Json> ReadHfJson(const HfFolder& folder, const std::string& name, bool needed);
// The part of a configuration that describes the language model: all of it, or text_config of a
// model that also sees or hears.
Json TextConfig(const Json& config);

// Values of a configuration: nullopt where absent or null, kBadFile where of another kind.
Result<std::optional<uint64_t>> HfUint(const HfFolder& folder, const Json& config,
                                       std::string_view key);
Result<std::optional<double>> HfFloat(const HfFolder& folder, const Json& config,
                                      std::string_view key);
Result<std::optional<bool>> HfBool(const HfFolder& folder, const Json& config,
                                   std::string_view key);
Result<std::optional<std::string>> HfString(const HfFolder& folder, const Json& config,
                                            std::string_view key);

// Sets every hyper-parameter of the architecture. kBadFile names what is missing, malformed or not
// supported.
Status ReadHfConfig(HfFolder& folder, const Json& config, const HfArchitecture& architecture);

}  // namespace snug
