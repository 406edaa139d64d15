#include "text/word_model.h"

namespace snug {
namespace {

class WordPiece : public WordModel {
 public:
  WordPiece(const Vocabulary& vocabulary, const WordPieceOptions& options)
      : vocab_(vocabulary), options_(options) {}

  void Encode(std::string_view word, WordScratch* s, std::vector<Token>* out) const override {
    const size_t before = out->size();
    uint32_t chars = 0;
    for (size_t p = 0; p < word.size() && chars <= options_.max_chars; ++chars)
      p += DecodeUtf8(word, p).bytes;
    bool known = chars <= options_.max_chars;
    for (size_t begin = 0; known && begin < word.size();) {
      const size_t bytes =
          Longest(word.substr(begin), begin == 0 ? options_.first : options_.next, &s->text, out);
      known = bytes != 0;
      begin += bytes;
    }
    if (known) return;
    out->resize(before);
    if (options_.unknown >= 0) out->push_back(options_.unknown);
  }

 private:
  // Appends the longest token for a beginning of `rest` behind `prefix`; returns its bytes of
  // `rest`, 0 where there is none.
  size_t Longest(std::string_view rest, std::string_view prefix, std::string* text,
                 std::vector<Token>* out) const {
    rest = rest.substr(0, kMaxLookedFor);
    text->assign(prefix).append(rest);
    TextHash hash;
    for (const char c : prefix) hash.Add(c);
    size_t longest = 0;
    Token found = -1;
    for (size_t end = 0; end < rest.size();) {
      const uint32_t bytes = DecodeUtf8(rest, end).bytes;
      for (uint32_t i = 0; i < bytes; ++i) hash.Add(rest[end + i]);
      end += bytes;
      if (!vocab_.MayBegin(hash.value())) break;
      const std::string_view whole = std::string_view(*text).substr(0, prefix.size() + end);
      if (const Token id = vocab_.Find(whole, hash.value()); id >= 0) {
        longest = end;
        found = id;
      }
    }
    if (longest != 0) out->push_back(found);
    return longest;
  }

  const Vocabulary& vocab_;
  const WordPieceOptions options_;
};

}  // namespace

std::unique_ptr<WordModel> MakeWordPiece(const Vocabulary& vocabulary,
                                         const WordPieceOptions& options) {
  return std::make_unique<WordPiece>(vocabulary, options);
}

}  // namespace snug
