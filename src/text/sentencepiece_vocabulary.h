// Vocabularies in SentencePiece's own files (tokenizer.model): ModelProto of
// sentencepiece_model.proto, read field by field and never held. Tokens that were added to such a
// vocabulary later stand in files beside it: added_tokens.json, and added_tokens_decoder of
// tokenizer_config.json, which goes first.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "format/model_file.h"
#include "text/spec.h"
#include "text/vocabulary.h"

namespace snug {

class SentencePieceVocabulary : public VocabularySource {
 public:
  // Ids and flags of special tokens come from `metadata` where it has them, else from the file; it
  // may be null, and must outlive the vocabulary. kBadFile for files that are malformed, and for
  // models of whole words or characters. Holds the added tokens, a few MiB at most.
  static Result<SentencePieceVocabulary> Open(const std::string& path, const ModelFile* metadata);

  const VocabularyShape& shape() const override { return shape_; }
  Status Fill(Vocabulary* vocabulary) const override;
  // How the vocabulary, once filled, is used.
  Result<TokenizerSpec> Spec(const Vocabulary& vocabulary) const;

 private:
  struct Added {
    int64_t id;
    std::string text;
    bool special;
    WholeFlags flags;
  };
  Error Bad(const std::string& what) const;
  Status Scan();
  Status ScanAdded();
  Status Add(int64_t id, const std::string& text, bool special, const WholeFlags& flags);
  Status FillAdded(Vocabulary* vocabulary) const;

  File file_;
  const ModelFile* metadata_ = nullptr;
  VocabularyShape shape_;
  uint64_t pieces_ = 0;
  std::vector<Added> added_;
  uint64_t charsmap_at_ = 0;
  // trainer_spec and normalizer_spec, with the format's defaults.
  uint64_t model_type_ = 1;
  bool byte_fallback_ = false, space_as_suffix_ = false;
  bool space_prefix_ = true, merge_spaces_ = true, mark_spaces_ = true;
  int64_t unknown_ = 0, bos_ = 1, eos_ = 2;
};

}  // namespace snug
