// The tables of a vocabulary, all in one buffer: the text, type and priority of every token, a hash
// of the texts, and for byte-level BPE the merges by pair of tokens.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/ledger.h"
#include "base/status.h"
#include "format/model_file.h"
#include "text/tokenizer.h"

namespace snug {

// As tokenizer.ggml.token_type numbers them.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

enum class VocabularyKind : uint8_t {
  kSentencePiece,  // scores; U+2581 of the file is kept as the space it stands for
  kByteLevel,      // merges; texts are kept as the file has them
};

// A merge of two tokens, or of two pieces that form a token: smaller keys go first.
struct Merge {
  uint32_t key = 0;
  Token result = -1;
};

class Vocabulary {
 public:
  // Errors: kBadFile naming the key that is missing, of a wrong length or too long; kDoesNotFit.
  static Result<Vocabulary> Load(const ModelFile& file, Ledger& ledger, VocabularyKind kind);
  // What Load reserves, in bytes. Reading the file takes up to 128 KiB of heap besides, while it
  // lasts.
  static Result<uint64_t> PlannedBytes(const ModelFile& file, VocabularyKind kind);

  uint32_t size() const { return n_tokens_; }
  bool Contains(Token id) const { return id >= 0 && static_cast<uint32_t>(id) < n_tokens_; }
  // The following take an id that the vocabulary contains.
  std::string_view text(Token id) const {
    return {blob_ + offsets_[id], offsets_[id + 1] - offsets_[id]};
  }
  TokenType type(Token id) const { return static_cast<TokenType>(types_[id] & kTypeMask); }
  // Whether the file's text had a space itself, not U+2581 (kSentencePiece).
  bool has_plain_space(Token id) const { return (types_[id] & kPlainSpace) != 0; }
  // kSentencePiece: smaller for a higher score; equal for equal scores.
  uint32_t priority(Token id) const { return priorities_[id]; }

  // The first token with this text, or -1. Empty tokens are never found.
  Token Find(std::string_view text) const;
  // The merge of two tokens; result is -1 where there is none.
  Merge FindMerge(Token left, Token right) const;
  // The longest token to be recognised in a text as a whole that starts at text[pos], or -1: of the
  // kinds asked for, user-defined or control (with unknown).
  Token MatchWhole(std::string_view text, size_t pos, bool user_defined, bool control) const;
  // kSentencePiece: false only where no token can span the border between these two characters.
  bool MayJoin(uint32_t left, uint32_t right) const;

  uint64_t held_bytes() const { return buffer_.size(); }

 private:
  static constexpr uint8_t kTypeMask = 0x7F, kPlainSpace = 0x80;
  struct Layout;
  struct Pair {
    Token left, right, result;
  };
  static Result<Layout> Plan(const ModelFile& file, VocabularyKind kind);
  Status ReadTypes(const ModelFile& file);
  Status ReadTokens(const ModelFile& file, VocabularyKind kind);
  Status ReadScores(const ModelFile& file);
  Status ReadMerges(const ModelFile& file);
  void AddText(Token id);
  void NotePairs(std::string_view text);

  Buffer buffer_;
  uint32_t n_tokens_ = 0, n_slots_ = 0;
  uint32_t n_merges_ = 0, n_merge_slots_ = 0;
  uint32_t* offsets_ = nullptr;      // [n_tokens + 1] into blob_
  uint32_t* priorities_ = nullptr;   // [n_tokens]
  uint32_t* slots_ = nullptr;        // [n_slots] id + 1 and a part of the text's hash; 0 is free
  Pair* merges_ = nullptr;           // [n_merges] by rank
  uint32_t* merge_slots_ = nullptr;  // [n_merge_slots] rank + 1 and a part of the pair's hash
  uint64_t* joins_ = nullptr;        // a bit for each hash of two neighbours within a token
  uint8_t* types_ = nullptr;         // [n_tokens]
  char* blob_ = nullptr;
  // Of the tokens that MatchWhole looks for: by first byte their lengths, up to 255 bytes, and a
  // bit for each two bytes that begin one.
  std::array<std::array<uint64_t, 4>, 256> whole_lengths_{};
  std::array<uint64_t, 65536 / 64> whole_prefixes_{};
};

}  // namespace snug
