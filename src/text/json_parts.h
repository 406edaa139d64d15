// The parts of tokenizer.json besides its vocabulary: normalizer, pre_tokenizer, post_processor and
// decoder (Hugging Face tokenizers), read into a spec. What is not known is an error that names it.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "text/spec.h"

namespace snug {

// Where a charsmap's base64 text is: within the part, or left in the file at an offset.
struct CharsmapText {
  std::string text;
  std::optional<uint64_t> offset;
};

// `path` names the file in errors. A part that is null leaves the spec as it is.
Status ReadNormalizer(const std::string& path, const Json& part, std::vector<NormalStep>* steps,
                      std::optional<CharsmapText>* charsmap);
Status ReadPreTokenizer(const std::string& path, const Json& part, std::vector<CutStep>* cuts);
// Ids as the file states them, unchecked.
Status ReadPostProcessor(const std::string& path, const Json& part, std::vector<int64_t>* before,
                         std::vector<int64_t>* after);
Status ReadDecoder(const std::string& path, const Json& part, DecodeSpec* decode);

}  // namespace snug
