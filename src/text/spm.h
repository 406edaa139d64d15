// SentencePiece BPE (Kudo and Richardson 2018, arXiv 1808.06226) over the pieces of a GGUF file.
#pragma once

#include "text/tokenizer_base.h"

namespace snug {

// Errors: kBadFile for special ids outside the vocabulary, and for a vocabulary that has neither
// byte tokens nor an unknown token to write other characters with.
Result<std::unique_ptr<Tokenizer>> LoadSpm(const ModelFile& file, Vocabulary vocab);

}  // namespace snug
