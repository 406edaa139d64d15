// The tables of a vocabulary, all in one buffer: the text, type and score of every token, a hash of
// the texts, and for byte-pair encoding the merges by pair of tokens. A source fills them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/ledger.h"
#include "base/status.h"
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

// How a token that is recognised as a whole stands in a text (tokenizer.json's added_tokens).
struct WholeFlags {
  bool lstrip = false, rstrip = false;  // takes the white space before, after it along
  bool single_word = false;             // only where no word character touches it
  bool normalized = false;              // looked for in the normalized text
};

// A merge of two tokens, or of two pieces that form a token: smaller keys go first.
struct Merge {
  uint32_t key = 0;
  Token result = -1;
};

// What the size of the tables depends on.
struct VocabularyShape {
  uint64_t tokens = 0;      // ids are smaller
  uint64_t aliases = 0;     // texts besides the tokens' own, see AddAlias
  uint64_t text_bytes = 0;  // of all texts, at most
  uint64_t merges = 0;
  uint64_t charsmap_bytes = 0;
  bool priorities = false;  // scores as an order of merges (SentencePiece BPE)
  bool scores = false;      // scores to be added up (unigram)
  bool joins = false;       // MayJoin
  bool prefixes = false;    // MayBegin
};

class Vocabulary;

// Where a vocabulary comes from.
class VocabularySource {
 public:
  virtual ~VocabularySource() = default;
  virtual const VocabularyShape& shape() const = 0;
  // Puts everything in: tokens first, then merges. kBadFile naming what is wrong.
  virtual Status Fill(Vocabulary* vocabulary) const = 0;
};

// The hash of a text, byte by byte, so that those of all its beginnings are seen on the way.
class TextHash {
 public:
  void Add(char byte) { state_ = (state_ ^ static_cast<uint8_t>(byte)) * 0x9E3779B97F4A7C15u; }
  uint64_t value() const { return state_ ^ state_ >> 29; }

 private:
  uint64_t state_ = 0x243F6A8885A308D3u;
};

class Vocabulary {
 public:
  static constexpr uint64_t kMaxTokens = 1 << 24, kMaxText = 65535;

  // kBadFile for a shape beyond the limits, kDoesNotFit.
  static Result<Vocabulary> Load(const VocabularySource& source, Ledger& ledger);
  // What Load reserves, in bytes.
  static Result<uint64_t> PlannedBytes(const VocabularyShape& shape);

  uint32_t size() const { return n_tokens_; }
  bool Contains(Token id) const { return id >= 0 && static_cast<uint32_t>(id) < n_tokens_; }
  // The text that a token was found by: its alias where it has one, else its own.
  std::string_view FoundText(Token id) const;
  // The following take an id that the vocabulary contains.
  std::string_view text(Token id) const { return {blob_ + offsets_[id], lengths_[id]}; }
  TokenType type(Token id) const { return static_cast<TokenType>(types_[id] & kTypeMask); }
  WholeFlags flags(Token id) const;
  // priorities: smaller for a higher score; equal for equal scores.
  uint32_t priority(Token id) const { return priorities_[id]; }
  double score(Token id) const { return scores_[id]; }

  // priorities: the score that gave the priority, -0 as 0.
  float PriorityScore(Token id) const;
  // Merges by rank: their two sides, and what they become. Sides of one that takes no part are -1.
  struct Pair {
    Token left, right, result;
  };
  uint32_t merges() const { return n_merges_; }
  const Pair& merge(uint32_t rank) const { return merges_[rank]; }

  // The first token with this text, or -1. Empty tokens are never found.
  Token Find(std::string_view text) const;
  Token Find(std::string_view text, uint64_t hash) const;
  // The merge of two tokens; result is -1 where there is none.
  Merge FindMerge(Token left, Token right) const;
  // joins: false only where no token can span the border between these two characters.
  bool MayJoin(uint32_t left, uint32_t right) const;
  // prefixes: false only where no token begins with the text of this hash.
  bool MayBegin(uint64_t hash) const;

  // The first token, and the longest there, to be recognised as a whole in the text from `from` on:
  // of type kUserDefined, with `control` also kControl and kUnknown; normalized or not as asked.
  struct Whole {
    Token id = -1;  // -1: none
    size_t begin = 0, end = 0;
  };
  Whole FindWhole(std::string_view text, size_t from, bool control, bool normalized) const;
  // The same for one that begins at `pos`.
  Whole WholeAt(std::string_view text, size_t pos, bool control, bool normalized) const;
  // Whether some token is to be looked for in normalized text.
  bool any_normalized() const { return any_normalized_; }

  const uint8_t* charsmap() const { return charsmap_; }
  uint64_t charsmap_bytes() const { return charsmap_bytes_; }
  uint64_t held_bytes() const { return buffer_.size(); }

  // For sources. Each is false for an id outside the shape, and once the texts fill their room.
  // AddToken is false too for an id that has a text, which it keeps, and for a text that another
  // token has, which stays the one that is found.
  bool AddToken(Token id, std::string_view text);
  bool HasText(Token id) const { return Contains(id) && lengths_[id] != 0; }
  bool SetType(Token id, TokenType type, const WholeFlags& flags = {});
  bool SetScore(Token id, double score);
  // Another text by which a token with `normalized` is looked for, instead of its own.
  bool AddAlias(Token id, std::string_view text);
  // False where a side or the result is no token; the merge is then left out.
  bool AddMerge(uint64_t rank, std::string_view left, std::string_view right);
  uint8_t* charsmap() { return charsmap_; }
  // Room for a number of 32 bits for each token; only before the first token is added.
  int32_t* scratch() { return reinterpret_cast<int32_t*>(slots_); }
  void ClearScratch();

 private:
  static constexpr uint8_t kTypeMask = 7, kLstrip = 8, kRstrip = 16, kSingleWord = 32,
                           kNormalized = 64, kAliased = 128;
  struct Layout;
  static Result<Layout> Plan(const VocabularyShape& shape);
  bool PutText(uint32_t entry, std::string_view text);
  bool IsWhole(uint32_t entry) const;
  Whole MatchWhole(std::string_view text, size_t pos, bool control, bool normalized) const;
  Status Finish();

  Buffer buffer_;
  uint32_t n_tokens_ = 0, n_entries_ = 0, n_aliases_ = 0, n_slots_ = 0;
  uint32_t n_merges_ = 0, n_merge_slots_ = 0;
  uint64_t blob_bytes_ = 0, blob_used_ = 0, charsmap_bytes_ = 0, prefix_mask_ = 0;
  uint32_t longest_probe_ = 0;
  bool any_normalized_ = false;
  uint32_t* offsets_ = nullptr;      // [n_entries] into blob_; aliases follow the tokens
  uint16_t* lengths_ = nullptr;      // [n_entries]
  uint32_t* priorities_ = nullptr;   // [n_tokens]
  double* scores_ = nullptr;         // [n_tokens]
  uint32_t* slots_ = nullptr;        // [n_slots] entry + 1 and a part of the text's hash; 0 is free
  Token* alias_of_ = nullptr;        // [aliases]
  Pair* merges_ = nullptr;           // [n_merges] by rank
  uint32_t* merge_slots_ = nullptr;  // [n_merge_slots] rank + 1 and a part of the pair's hash
  uint64_t* joins_ = nullptr;        // a bit for each hash of two neighbours within a token
  uint64_t* prefixes_ = nullptr;     // two bits for each hash of a token's beginning
  uint8_t* types_ = nullptr;         // [n_entries]
  uint8_t* charsmap_ = nullptr;
  char* blob_ = nullptr;
  // Of the tokens that FindWhole looks for: by first byte their lengths, up to 255 bytes, and a bit
  // for each two bytes that begin one.
  std::array<std::array<uint64_t, 4>, 256> whole_lengths_{};
  std::array<uint64_t, 65536 / 64> whole_prefixes_{};
};

}  // namespace snug
