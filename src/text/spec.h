// Everything that says how a vocabulary is used: what GGUF metadata and tokenizer.json both come
// down to.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/word_model.h"

namespace snug {

enum class WordModelKind : uint8_t { kBpe, kUnigram, kWordPiece };

// How tokens are turned back into text.
struct DecodeSpec {
  bool bytes = false;                    // texts are in the byte alphabet
  bool byte_tokens = false;              // <0xNN> stands for a byte
  std::vector<NormalStep> replace = {};  // in each token
  // WordPiece: tokens begin with `inner` within a word, or with `outer` at its start; the other has
  // nothing. A space goes before each word.
  bool words = false;
  std::string inner = {}, outer = {};
  bool cleanup = false;      // no space before punctuation and English contractions
  bool strip_space = false;  // a text that begins with a space loses it
};

struct TokenizerSpec {
  WordModelKind model = WordModelKind::kBpe;
  std::vector<NormalStep> normalizer = {};
  std::vector<CutStep> cuts = {};
  BpeOptions bpe = {};
  UnigramOptions unigram = {};
  WordPieceOptions word_piece = {};
  DecodeSpec decode = {};
  // Around a text with special tokens.
  std::vector<Token> before = {}, after = {};
  Token bos = -1, eos = -1;
  std::vector<Token> ends = {};  // besides eos
};

}  // namespace snug
