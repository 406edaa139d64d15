// Byte-level BPE (Radford et al. 2019): words of a pre-tokenizer, merged from bytes by rank.
#pragma once

#include "text/pre_tokenizer.h"
#include "text/tokenizer_base.h"

namespace snug {

// Errors: kBadFile for special ids outside the vocabulary, and for a vocabulary without a token for
// a byte that valid UTF-8 can hold.
Result<std::unique_ptr<Tokenizer>> LoadBpe(const ModelFile& file, Vocabulary vocab,
                                           PreTokenizer pre);

}  // namespace snug
