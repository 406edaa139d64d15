// What both tokenizers share: a vocabulary, its special tokens, and BOS and EOS around a text.
#pragma once

#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace snug {

class VocabTokenizer : public Tokenizer {
 public:
  void Encode(std::string_view text, const EncodeOptions& options,
              std::vector<Token>* out) const override;
  size_t vocab_size() const override { return vocab_.size(); }
  bool IsControl(Token token) const override;
  uint64_t held_bytes() const override { return vocab_.held_bytes(); }

  // Reads the ids and flags of special tokens. kBadFile for an id outside the vocabulary.
  Status ReadSpecial(const ModelFile& file, bool add_bos_default);

 protected:
  explicit VocabTokenizer(Vocabulary vocab) : vocab_(std::move(vocab)) {}
  virtual void EncodeText(std::string_view text, bool parse_special,
                          std::vector<Token>* out) const = 0;
  // Whether Decode leaves the token out unless asked for special tokens.
  bool IsHidden(Token token) const;

  Vocabulary vocab_;
  Token unknown_ = -1;
};

// Pieces of a text longer than this are cut before they are merged, so that no text without a space
// makes the merge's own memory (36 bytes for each byte of a piece) large.
inline constexpr size_t kMaxPiece = 32 << 10;

}  // namespace snug
