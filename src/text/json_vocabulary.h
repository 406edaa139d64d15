// Vocabularies in tokenizer.json (Hugging Face tokenizers). The file may have tens of megabytes; it
// is walked twice, once for the sizes and once to fill the tables, and never held.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json_reader.h"
#include "format/model_file.h"
#include "text/json_parts.h"
#include "text/spec.h"
#include "text/vocabulary.h"

namespace snug {

class JsonVocabulary : public VocabularySource {
 public:
  // Reads all but the vocabulary, whose sizes it takes. kBadFile for JSON that is malformed, for
  // tables that are missing or disagree, and for what is not supported, naming it. Takes up to 1
  // MiB of heap while it lasts.
  // Ids and flags of special tokens come from `metadata` where it has them
  // (tokenizer.ggml.bos_token_id, ...), else from the post_processor's template; it may be null,
  // and must outlive the vocabulary.
  static Result<JsonVocabulary> Open(const std::string& path, const ModelFile* metadata);

  const VocabularyShape& shape() const override { return shape_; }
  Status Fill(Vocabulary* vocabulary) const override;
  // How the vocabulary, once filled, is used.
  Result<TokenizerSpec> Spec(const Vocabulary& vocabulary) const;

 private:
  struct Added {
    int64_t id = -1;
    std::string text;
    bool special = false;
    WholeFlags flags;
  };

  Error Bad(const std::string& what) const;
  Status Scan();
  bool ScanModel(JsonReader* reader);
  bool ScanVocab(JsonReader* reader);
  bool ScanAdded(JsonReader* reader);
  bool ReadAdded(JsonReader* reader, Added* added) const;
  bool ReadFlag(JsonReader* reader, bool* flag) const;
  bool ReadText(JsonReader* reader, std::optional<std::string>* text) const;
  Status ReadParts();
  Status MeasureCharsmap();
  Status Choose();
  Status FillTokens(Vocabulary* vocabulary) const;
  Status FillAdded(Vocabulary* vocabulary) const;
  Status FillMerges(Vocabulary* vocabulary) const;
  Status FillCharsmap(Vocabulary* vocabulary) const;

  std::string path_;
  const ModelFile* metadata_ = nullptr;
  File file_;
  VocabularyShape shape_;
  // Of the file: where its large values begin.
  std::optional<uint64_t> vocab_at_, merges_at_, added_at_;
  bool vocab_is_list_ = false;
  uint64_t vocab_entries_ = 0, added_entries_ = 0, normalized_entries_ = 0;
  uint64_t vocab_bytes_ = 0, added_bytes_ = 0, normalized_bytes_ = 0;
  int64_t last_id_ = -1;
  std::string normalizer_ = "null", pre_tokenizer_ = "null", post_processor_ = "null",
              decoder_ = "null";
  // Of the model.
  std::optional<std::string> type_, unknown_, subword_prefix_, word_suffix_;
  std::optional<int64_t> unknown_id_, max_chars_;
  bool byte_fallback_ = false, fuse_unknown_ = false, whole_words_ = false, dropout_ = false;
  // What it comes down to.
  TokenizerSpec spec_;
  std::vector<int64_t> before_, after_;
  std::optional<CharsmapText> charsmap_;
};

}  // namespace snug
