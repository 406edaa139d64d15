// Special tokens as a Hugging Face folder's configuration gives them, beside its vocabulary.
#pragma once

#include <vector>

#include "format/model_file.h"
#include "text/spec.h"
#include "text/vocabulary.h"

namespace snug {

// tokenizer.ggml.bos_token_id, .eos_token_id, .add_bos_token, .add_eos_token and .eog_token_ids,
// where present, over what the vocabulary's own file says. Ids beyond the vocabulary, which
// configurations name and models never make, are left out.
Status ReadSpecialIds(const ModelFile& metadata, const Vocabulary& vocabulary, TokenizerSpec* spec);
// The tokens of tokenizer.ggml.eog_token_ids that the vocabulary has, or none.
Status ReadEnds(const ModelFile& metadata, const Vocabulary& vocabulary, std::vector<Token>* ends);

}  // namespace snug
