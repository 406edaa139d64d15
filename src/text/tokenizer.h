// Text to tokens and back, as a model's file describes it: byte-level BPE, SentencePiece BPE and
// unigram, WordPiece.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "format/model_file.h"

namespace snug {

using Token = int32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // From tokenizer.ggml.*, or from a folder's tokenizer.json, or its tokenizer.model where it has
  // no other: what is not known is kBadFile naming it. Every table is one Buffer reserved under
  // Owner::kVocab.
  static Result<std::unique_ptr<Tokenizer>> Load(const ModelFile& file, Ledger& ledger);
  // Bytes that Load will reserve, and at its peak, from metadata alone. Equal to what Load does.
  static Result<uint64_t> PlannedBytes(const ModelFile& file);

  // From a tokenizer.json, or a tokenizer.model (and the added tokens in files beside it), alone.
  static Result<std::unique_ptr<Tokenizer>> LoadJson(const std::string& path, Ledger& ledger);
  static Result<uint64_t> PlannedBytesJson(const std::string& path);
  static Result<std::unique_ptr<Tokenizer>> LoadSentencePiece(const std::string& path,
                                                              Ledger& ledger);
  static Result<uint64_t> PlannedBytesSentencePiece(const std::string& path);

  struct EncodeOptions {
    bool add_special = true;    // BOS/EOS where the model's metadata says so
    bool parse_special = true;  // text such as <|im_end|> becomes its control token
  };
  // Appends tokens. Any bytes are accepted (invalid UTF-8 falls back to bytes).
  virtual void Encode(std::string_view text, const EncodeOptions& options,
                      std::vector<Token>* out) const = 0;
  // Appends the bytes of one token; control tokens appear only when `special`. May be an incomplete
  // UTF-8 sequence: see Utf8Stream.
  virtual void Decode(Token token, bool special, std::string* out) const = 0;
  // The text of tokens that begin a text: the space that some vocabularies put before a text is
  // taken off again.
  virtual std::string Decode(const std::vector<Token>& tokens, bool special) const = 0;

  virtual size_t vocab_size() const = 0;
  virtual bool IsControl(Token token) const = 0;
  // -1 where the model has none.
  Token bos() const { return bos_; }
  Token eos() const { return eos_; }
  // Ends a generation: EOS, EOT and the tokens named like <|im_end|>, <end_of_turn>, <|eot_id|>.
  bool IsEndOfGeneration(Token token) const;
  bool add_bos() const { return add_bos_; }
  // The text of a token as stored, e.g. "<s>"; empty for -1.
  virtual std::string TokenText(Token token) const = 0;
  virtual uint64_t held_bytes() const = 0;

 protected:
  Token bos_ = -1, eos_ = -1;
  bool add_bos_ = false;
  std::vector<Token> end_;
};

// Passes whole UTF-8 sequences on and holds an incomplete tail back. Bytes that can never become
// valid are replaced by U+FFFD, so that the output is always valid UTF-8.
class Utf8Stream {
 public:
  // Appends to *out what became complete with `bytes`.
  void Push(std::string_view bytes, std::string* out);
  void Finish(std::string* out);  // an incomplete tail becomes U+FFFD

 private:
  char held_[4];
  int n_held_ = 0;
};

}  // namespace snug
