#include <array>

#include "text/byte_alphabet.h"
#include "text/word_model.h"

namespace snug {
namespace {

class Bpe : public WordModel {
 public:
  Bpe(const Vocabulary& vocabulary, const BpeOptions& options)
      : vocab_(vocabulary), options_(options) {
    if (options.byte_fallback && !options.bytes) fallback_ = FindByteTokens(vocabulary);
    for (int i = 0; i < 256; ++i) {
      const auto as_char = static_cast<char>(i);
      std::string text(1, as_char);
      if (options.bytes) {
        text.clear();
        AppendAsChars({&as_char, 1}, &text);
      }
      symbols_[static_cast<size_t>(i)] = options.bytes || i < 128 ? FindPiece(text) : -1;
    }
  }

  void Encode(std::string_view word, WordScratch* s, std::vector<Token>* out) const override {
    s->unknown = false;
    if (options_.whole_words) {
      std::string_view text = word;
      if (options_.bytes) {
        s->text.clear();
        AppendAsChars(word, &s->text);
        text = s->text;
      }
      if (const Token id = FindPiece(text); id >= 0) return out->push_back(id);
    }
    if (options_.bytes) {
      for (; !word.empty(); word.remove_prefix(std::min(word.size(), kMaxPiece)))
        EncodeBytes(word.substr(0, kMaxPiece), &s->merger, out);
      return;
    }
    CutWhereNothingJoins(vocab_, word, [&](std::string_view piece) { EncodeChars(piece, s, out); });
  }

 private:
  using Symbol = PieceMerger::Symbol;

  void EncodeBytes(std::string_view piece, PieceMerger* merger, std::vector<Token>* out) const {
    merger->Clear();
    for (size_t p = 0; p < piece.size(); ++p) {
      const Token id = symbols_[static_cast<uint8_t>(piece[p])];
      if (id >= 0) merger->Add(static_cast<uint32_t>(p), 1, id);
      if (id < 0 && options_.unknown >= 0)
        merger->Add(static_cast<uint32_t>(p), 1, options_.unknown);
    }
    merger->Run([&](const Symbol& left, const Symbol& right) {
      return vocab_.FindMerge(left.id, right.id);
    });
    merger->ForEach([&](const Symbol& s) { out->push_back(s.id); });
  }

  void EncodeChars(std::string_view piece, WordScratch* scratch, std::vector<Token>* out) const {
    PieceMerger* merger = &scratch->merger;
    merger->Clear();
    for (size_t p = 0; p < piece.size();) {
      const uint32_t bytes = DecodeUtf8(piece, p).bytes;
      const auto first = static_cast<uint8_t>(piece[p]);
      const Token id = first < 128 ? symbols_[first] : FindPiece(piece.substr(p, bytes));
      merger->Add(static_cast<uint32_t>(p), bytes, id);
      p += bytes;
    }
    if (options_.by_scores) {
      merger->Run([&](const Symbol& left, const Symbol& right) -> Merge {
        const Token id = FindPiece(piece.substr(left.start, left.bytes + right.bytes));
        return id < 0 ? Merge{} : Merge{vocab_.priority(id), id};
      });
    } else {
      merger->Run([&](const Symbol& left, const Symbol& right) -> Merge {
        return left.id < 0 || right.id < 0 ? Merge{} : vocab_.FindMerge(left.id, right.id);
      });
    }
    merger->ForEach([&](const Symbol& s) {
      if (s.id >= 0) {
        out->push_back(s.id);
        scratch->unknown = false;
      } else {
        Unknown(piece.substr(s.start, s.bytes), scratch, out);
      }
    });
  }

  // A character without a token: its bytes where each has one, else the unknown token.
  void Unknown(std::string_view text, WordScratch* scratch, std::vector<Token>* out) const {
    bool all = options_.byte_fallback;
    for (const char c : text) all = all && fallback_[static_cast<uint8_t>(c)] >= 0;
    if (all) {
      for (const char c : text) out->push_back(fallback_[static_cast<uint8_t>(c)]);
      scratch->unknown = false;
    } else if (options_.unknown >= 0 && !(scratch->unknown && options_.fuse_unknown)) {
      out->push_back(options_.unknown);
      scratch->unknown = true;
    }
  }

  // The token that plain text may become. Of SentencePiece never a control, unknown or byte token.
  Token FindPiece(std::string_view text) const {
    const Token id = vocab_.Find(text);
    if (id < 0 || !options_.by_scores) return id;
    const TokenType type = vocab_.type(id);
    const bool plain =
        type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kUnused;
    return plain ? id : -1;
  }

  const Vocabulary& vocab_;
  const BpeOptions options_;
  std::array<Token, 256> symbols_{};  // of bytes, or of the characters below 128
  std::array<Token, 256> fallback_{};
};

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

int ByteOfToken(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = HexDigit(text[3]), low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

std::array<Token, 256> FindByteTokens(const Vocabulary& vocabulary) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::array<Token, 256> ids{};
  for (size_t b = 0; b < 256; ++b) {
    const char text[] = {'<', '0', 'x', kHex[b / 16], kHex[b % 16], '>'};
    const Token id = vocabulary.Find({text, sizeof(text)});
    ids[b] = id >= 0 && vocabulary.type(id) == TokenType::kByte ? id : -1;
  }
  return ids;
}

std::unique_ptr<WordModel> MakeBpe(const Vocabulary& vocabulary, const BpeOptions& options) {
  return std::make_unique<Bpe>(vocabulary, options);
}

}  // namespace snug
