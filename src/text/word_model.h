// Models that turn a word, as the pre-tokenizer leaves it, into tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_merger.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace snug {

// Pieces of a word longer than this are cut before they are merged or scored, so that no text
// without a space makes the model's own memory (40 bytes for each byte of a piece) large.
inline constexpr size_t kMaxPiece = 32 << 10;
// Longer tokens of unigram and WordPiece vocabularies are never looked for, so that the time per
// byte of text is bounded. Published ones stay below 200 bytes.
inline constexpr size_t kMaxLookedFor = 256;

// What models reuse from one word to the next.
struct WordScratch {
  PieceMerger merger;
  std::string text;
  struct Best {
    double score;
    uint32_t from;
    Token id;
  };
  std::vector<Best> lattice;
  std::vector<Token> tokens;
  bool unknown = false;  // the last token of the word so far stands for unknown characters
};

class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the tokens of one word. Any bytes are accepted.
  virtual void Encode(std::string_view word, WordScratch* scratch,
                      std::vector<Token>* out) const = 0;
};

// Byte-pair encoding.
struct BpeOptions {
  bool bytes = true;          // the vocabulary writes bytes in the byte alphabet
  bool by_scores = false;     // merges by the score of what they form (SentencePiece), not by rank
  bool whole_words = false;   // a word that is a token is not merged
  bool byte_fallback = true;  // unknown characters become <0xNN> tokens
  bool fuse_unknown = false;  // neighbouring unknown characters become one unknown token
  Token unknown = -1;         // -1: unknown characters are left out
};
std::unique_ptr<WordModel> MakeBpe(const Vocabulary& vocabulary, const BpeOptions& options);

// Unigram language model (Kudo 2018, arXiv 1804.10959): the tokens of the best total score.
struct UnigramOptions {
  bool byte_fallback = false;
  bool user_defined_score_zero = false;
  bool single_precision = false;  // sums are rounded as SentencePiece's are
  bool unused_pieces = true;      // tokens of type kUnused compete
  bool special_pieces = false;    // control and unknown tokens compete too
  Token unknown = -1;
};
std::unique_ptr<WordModel> MakeUnigram(const Vocabulary& vocabulary, const UnigramOptions& options);

// WordPiece (Wu et al. 2016, arXiv 1609.08144): the longest token first; a word that has a part
// without a token is one unknown token.
struct WordPieceOptions {
  std::string first, next;   // what tokens that begin a word, and those within, begin with
  uint32_t max_chars = 100;  // longer words are unknown
  Token unknown = -1;
};
std::unique_ptr<WordModel> MakeWordPiece(const Vocabulary& vocabulary,
                                         const WordPieceOptions& options);

// The <0xNN> tokens of a vocabulary, -1 where there is none, and what they stand for.
std::array<Token, 256> FindByteTokens(const Vocabulary& vocabulary);
int ByteOfToken(std::string_view text);  // -1 for another text

// Calls piece(part) for the parts of a word that no token spans, and of at most kMaxPiece bytes
// (and a character).
template <class Fn>
void CutWhereNothingJoins(const Vocabulary& vocabulary, std::string_view word, const Fn& piece) {
  size_t start = 0;
  uint32_t last = 0;
  for (size_t p = 0; p < word.size();) {
    const CodePoint c = DecodeUtf8(word, p);
    if (p > start && (p - start >= kMaxPiece || !vocabulary.MayJoin(last, c.value))) {
      piece(word.substr(start, p - start));
      start = p;
    }
    last = c.value;
    p += c.bytes;
  }
  if (start < word.size()) piece(word.substr(start));
}

}  // namespace snug
