// SentencePiece BPE (Kudo and Richardson 2018) over GGUF's pieces and scores, with byte fallback.
#pragma once

#include <memory>

#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace snug {

class SpmTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> Load(const GgufFile& file, Ledger& ledger);
  static Result<uint64_t> PlannedBytes(const GgufFile& file) {
    return Vocabulary::PlannedBytes(file, true, 0);
  }

  void Encode(std::string_view text, const EncodeOptions& options,
              std::vector<Token>* out) const override;
  void Decode(Token token, bool special, std::string* out) const override;
  size_t vocab_size() const override { return vocab_.size(); }
  bool IsControl(Token token) const override;
  std::string TokenText(Token token) const override;
  uint64_t held_bytes() const override { return vocab_.bytes(); }

 private:
  void EncodeRaw(std::string_view text, std::vector<Token>* out) const;
  Vocabulary vocab_;
  Token byte_[256];
  Token unknown_ = -1;
  bool space_prefix_ = true;
};

}  // namespace snug
