// The vocabulary of a Hugging Face folder as the metadata keys of a GGUF file.
#pragma once

#include <cstdint>

#include "base/ledger.h"
#include "format/gguf_write.h"
#include "format/model_file.h"

namespace snug {

// Adds tokenizer.ggml.model, .pre, .tokens, .token_type, .scores and .merges, and ids and flags of
// special tokens where the folder's own metadata, which are copied apart, lack them. `rows` is the
// number of the embedding's rows: the tokens are filled up to it. What GGUF has no words for is
// kUsage that names it, except that Unicode's composition (NFC), which the format has not, is left
// out. The vocabulary is reserved in the ledger while this lasts.
Status AddTokenizerKeys(const ModelFile& folder, uint64_t rows, Ledger& ledger, GgufHeader* header);

}  // namespace snug
