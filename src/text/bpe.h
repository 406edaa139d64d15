// Byte-level BPE (Radford et al. 2019; Sennrich et al. 2016): text is cut into words, the words'
// bytes are merged by rank.
#pragma once

#include <memory>

#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace snug {

class BpeTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> Load(const GgufFile& file, Ledger& ledger);
  static Result<uint64_t> PlannedBytes(const GgufFile& file);

  void Encode(std::string_view text, const EncodeOptions& options,
              std::vector<Token>* out) const override;
  void Decode(Token token, bool special, std::string* out) const override;
  size_t vocab_size() const override { return vocab_.size(); }
  bool IsControl(Token token) const override;
  std::string TokenText(Token token) const override;
  uint64_t held_bytes() const override { return vocab_.bytes(); }

 private:
  struct MergeSlot {  // of an open-addressing table; left -1 where empty
    Token left, right, result;
    uint32_t rank;
  };
  static Result<uint64_t> MergeSlots(const GgufFile& file);
  Status LoadMerges(const GgufFile& file, uint64_t slots);
  const MergeSlot* FindMerge(Token left, Token right) const;
  void EncodeWord(std::string_view word, std::vector<Token>* out) const;

  Vocabulary vocab_;
  PreTokenizer pre_ = PreTokenizer::kGpt2;
  uint64_t slots_ = 0;
  Token byte_[256];       // the token of each byte
  int16_t byte_of_[512];  // the byte of each code point that stands for one, or -1
};

}  // namespace snug
