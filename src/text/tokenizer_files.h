// The vocabulary of a GGUF file as the tokenizer's files of a Hugging Face folder.
#pragma once

#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "format/model_file.h"

namespace snug {

struct TextFile {
  std::string name, content;
};

// tokenizer.json for byte-level vocabularies, tokenizer.model for SentencePiece's BPE, and
// tokenizer_config.json with names of special tokens and the chat template. Others are kUsage. The
// vocabulary is reserved in the ledger while this lasts; the files take about as much again.
Result<std::vector<TextFile>> MakeTokenizerFiles(const ModelFile& gguf, Ledger& ledger);

}  // namespace snug
