#include <algorithm>
#include <limits>

#include "text/word_model.h"

namespace snug {
namespace {

constexpr double kUnknownPenalty = 10;  // below the least score, as SentencePiece has it

class Unigram : public WordModel {
 public:
  Unigram(const Vocabulary& vocabulary, const UnigramOptions& options)
      : vocab_(vocabulary), options_(options) {
    if (options.byte_fallback) fallback_ = FindByteTokens(vocabulary);
    double least = std::numeric_limits<double>::infinity();
    for (Token id = 0; vocab_.Contains(id); ++id)
      if (options.special_pieces || vocab_.type(id) == TokenType::kNormal)
        least = std::min(least, vocab_.score(id));
    unknown_score_ = least - kUnknownPenalty;
  }

  void Encode(std::string_view word, WordScratch* s, std::vector<Token>* out) const override {
    s->unknown = false;
    CutWhereNothingJoins(vocab_, word, [&](std::string_view piece) { EncodePiece(piece, s, out); });
  }

 private:
  bool Competes(Token id) const {
    const TokenType type = vocab_.type(id);
    return options_.special_pieces
               ? type != TokenType::kByte
               : type == TokenType::kNormal || type == TokenType::kUserDefined ||
                     (type == TokenType::kUnused && options_.unused_pieces);
  }

  void EncodePiece(std::string_view piece, WordScratch* s, std::vector<Token>* out) const {
    constexpr double kNone = -std::numeric_limits<double>::infinity();
    s->lattice.assign(piece.size() + 1, {kNone, 0, -1});
    s->lattice[0].score = 0;
    // The best way to each end, from the ends before it.
    for (size_t begin = 0; begin < piece.size();) {
      const double so_far = s->lattice[begin].score;
      const uint32_t first = DecodeUtf8(piece, begin).bytes;
      const auto offer = [&](size_t end, double score, Token id) {
        WordScratch::Best& best = s->lattice[end];
        double sum = so_far + score;
        if (options_.single_precision) sum = static_cast<float>(sum);
        if (sum > best.score) best = {sum, static_cast<uint32_t>(begin), id};
      };
      TextHash hash;
      bool single = false;
      const size_t last = std::min(piece.size(), begin + kMaxLookedFor);
      for (size_t end = begin; end < last;) {
        const uint32_t bytes = DecodeUtf8(piece, end).bytes;
        for (uint32_t i = 0; i < bytes; ++i) hash.Add(piece[end + i]);
        end += bytes;
        if (!vocab_.MayBegin(hash.value())) break;
        const Token id = vocab_.Find(piece.substr(begin, end - begin), hash.value());
        if (id < 0 || !Competes(id)) continue;
        single = single || end - begin == first;
        const bool zero =
            options_.user_defined_score_zero && vocab_.type(id) == TokenType::kUserDefined;
        offer(end, zero ? 0 : vocab_.score(id), id);
      }
      if (!single) offer(begin + first, unknown_score_, options_.unknown);
      begin += first;
    }
    s->tokens.clear();
    for (size_t end = piece.size(); end > 0; end = s->lattice[end].from)
      s->tokens.push_back(static_cast<Token>(end));
    size_t begin = 0;
    for (auto t = s->tokens.rbegin(); t != s->tokens.rend(); ++t) {
      const auto end = static_cast<size_t>(*t);
      const Token id = s->lattice[end].id;
      if (id != options_.unknown) {
        out->push_back(id);
        s->unknown = false;
      } else {
        Unknown(piece.substr(begin, end - begin), s, out);
      }
      begin = end;
    }
  }

  void Unknown(std::string_view text, WordScratch* s, std::vector<Token>* out) const {
    bool all = options_.byte_fallback;
    for (const char c : text) all = all && fallback_[static_cast<uint8_t>(c)] >= 0;
    if (all) {
      for (const char c : text) out->push_back(fallback_[static_cast<uint8_t>(c)]);
      s->unknown = false;
    } else if (!s->unknown && options_.unknown >= 0) {
      out->push_back(options_.unknown);
      s->unknown = true;
    }
  }

  const Vocabulary& vocab_;
  const UnigramOptions options_;
  double unknown_score_ = 0;
  std::array<Token, 256> fallback_{};
};

}  // namespace

std::unique_ptr<WordModel> MakeUnigram(const Vocabulary& vocabulary,
                                       const UnigramOptions& options) {
  return std::make_unique<Unigram>(vocabulary, options);
}

}  // namespace snug
