// Vocabularies in GGUF metadata (tokenizer.ggml.*, as llama.cpp's converter writes them).
#pragma once

#include "format/model_file.h"
#include "text/spec.h"
#include "text/vocabulary.h"

namespace snug {

class GgufVocabulary : public VocabularySource {
 public:
  // `file` must outlive it. kBadFile for a model or pre-tokenizer that is not known, naming it, and
  // for tables that are missing or disagree.
  static Result<GgufVocabulary> Open(const ModelFile& file);

  const VocabularyShape& shape() const override { return shape_; }
  Status Fill(Vocabulary* vocabulary) const override;
  // How the vocabulary, once filled, is used. kBadFile for special ids outside it, and for one that
  // cannot write every text.
  Result<TokenizerSpec> Spec(const Vocabulary& vocabulary) const;

 private:
  enum class Kind : uint8_t { kByteLevel, kSentencePiece, kUnigram, kWordPiece };
  explicit GgufVocabulary(const ModelFile& file) : file_(file) {}
  Error Bad(const char* key, const std::string& what) const;
  Status CheckArrays();
  Status ReadId(const Vocabulary& vocabulary, const char* key, Token* id) const;
  Status ReadSpecial(const Vocabulary& vocabulary, TokenizerSpec* spec) const;
  Status CheckBytes(const Vocabulary& vocabulary, Token unknown) const;

  const ModelFile& file_;
  Kind kind_ = Kind::kByteLevel;
  NamedPreTokenizer pre_;
  VocabularyShape shape_;
};

}  // namespace snug
