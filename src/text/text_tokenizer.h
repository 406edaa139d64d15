// The one tokenizer there is: a vocabulary used as a spec says. A text goes through recognition of
// whole tokens, normalization, cutting into words, and the model of words.
#pragma once

#include <memory>
#include <optional>

#include "text/spec.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace snug {

class TextTokenizer : public Tokenizer {
 public:
  // The ids in `spec` are -1 or tokens of the vocabulary.
  TextTokenizer(Vocabulary vocabulary, TokenizerSpec spec);

  void Encode(std::string_view text, const EncodeOptions& options,
              std::vector<Token>* out) const override;
  void Decode(Token token, bool special, std::string* out) const override;
  std::string Decode(const std::vector<Token>& tokens, bool special) const override;
  size_t vocab_size() const override { return vocab_.size(); }
  bool IsControl(Token token) const override;
  std::string TokenText(Token token) const override;
  uint64_t held_bytes() const override { return vocab_.held_bytes(); }

 private:
  struct Run;  // what encoding one text holds
  // Calls found(id) for the tokens that FindWhole finds, and between(begin, end) for what is left.
  template <class Between, class Found>
  void ForEachWhole(std::string_view text, bool control, bool normalized, const Between& between,
                    const Found& found) const;
  void EncodeSection(std::string_view section, bool begins_input, bool control, Run* run) const;

  const Vocabulary vocab_;
  const TokenizerSpec spec_;
  const std::optional<Charsmap> charsmap_;
  const std::unique_ptr<WordModel> model_;
};

}  // namespace snug
