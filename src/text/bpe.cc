#include "text/bpe.h"

#include <fmt/format.h>

#include <array>
#include <string>

#include "text/bpe_merge.h"
#include "text/unicode.h"

namespace snug {
namespace {

// Vocabulary files write bytes as printable characters: those that are printable in Latin-1 as
// themselves, the other 68 as U+0100 and up in their order.
struct ByteAlphabet {
  std::array<uint16_t, 256> to_char{};
  std::array<int16_t, 324> to_byte{};

  constexpr ByteAlphabet() {
    to_byte.fill(-1);
    uint16_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      const uint16_t c = printable ? static_cast<uint16_t>(b) : next++;
      to_char[static_cast<size_t>(b)] = c;
      to_byte[c] = static_cast<int16_t>(b);
    }
  }
};
constexpr ByteAlphabet kAlphabet;

void AppendAsChars(std::string_view bytes, std::string* out) {
  for (const char byte : bytes) {
    const uint16_t c = kAlphabet.to_char[static_cast<uint8_t>(byte)];
    if (c < 0x80) {
      out->push_back(static_cast<char>(c));
    } else {
      out->push_back(static_cast<char>(0xC0 | c >> 6));
      out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
    }
  }
}

class BpeTokenizer : public VocabTokenizer {
 public:
  BpeTokenizer(Vocabulary vocab, PreTokenizer pre)
      : VocabTokenizer(std::move(vocab)), pre_(pre), whole_words_(pre == PreTokenizer::kLlama3) {}

  Status Init(const ModelFile& file) {
    SNUG_TRY(ReadSpecial(file, false));
    for (int byte = 0; byte < 256; ++byte) {
      std::string name;
      const auto as_char = static_cast<char>(byte);
      AppendAsChars({&as_char, 1}, &name);
      Token& id = bytes_[static_cast<size_t>(byte)];
      id = vocab_.Find(name);
      if (id < 0) id = unknown_;
      const bool in_utf8 = byte < 0xF5 && byte != 0xC0 && byte != 0xC1;
      if (id < 0 && in_utf8) {
        return MakeError(Code::kBadFile,
                         fmt::format("{}: the vocabulary has no token \"{}\" for the byte 0x{:02X} "
                                     "and no unknown token",
                                     file.path(), name, byte),
                         "convert the model again with its byte tokens",
                         {{"key", "tokenizer.ggml.tokens"}, {"byte", std::to_string(byte)}});
      }
    }
    return {};
  }

  void Decode(Token token, bool special, std::string* out) const override {
    if (!vocab_.Contains(token) || (!special && IsHidden(token))) return;
    const std::string_view text = vocab_.text(token);
    if (vocab_.type(token) != TokenType::kNormal) {
      out->append(text);
      return;
    }
    for (size_t p = 0; p < text.size();) {
      const CodePoint c = DecodeUtf8(text, p);
      const int byte = c.value < kAlphabet.to_byte.size() ? kAlphabet.to_byte[c.value] : -1;
      if (byte >= 0) {
        out->push_back(static_cast<char>(byte));
      } else {
        out->append(text.substr(p, c.bytes));
      }
      p += c.bytes;
    }
  }

  std::string TokenText(Token token) const override {
    return vocab_.Contains(token) ? std::string(vocab_.text(token)) : std::string();
  }

 private:
  void EncodeText(std::string_view text, bool parse_special,
                  std::vector<Token>* out) const override {
    PieceMerger merger;
    size_t start = 0;
    for (size_t p = 0; p < text.size();) {
      const Token id = vocab_.MatchWhole(text, p, true, parse_special);
      if (id < 0) {
        ++p;
        continue;
      }
      EncodeWords(text.substr(start, p - start), &merger, out);
      out->push_back(id);
      start = p += vocab_.text(id).size();
    }
    EncodeWords(text.substr(start), &merger, out);
  }

  void EncodeWords(std::string_view text, PieceMerger* merger, std::vector<Token>* out) const {
    for (size_t at = 0; at < text.size();) {
      std::string_view word = text.substr(at, NextWord(pre_, text, at));
      at += word.size();
      for (; !word.empty(); word.remove_prefix(std::min(word.size(), kMaxPiece)))
        EncodeWord(word.substr(0, kMaxPiece), merger, out);
    }
  }

  void EncodeWord(std::string_view word, PieceMerger* merger, std::vector<Token>* out) const {
    if (whole_words_) {
      std::string chars;
      AppendAsChars(word, &chars);
      const Token id = vocab_.Find(chars);
      if (id >= 0 && vocab_.type(id) == TokenType::kNormal) return out->push_back(id);
    }
    merger->Clear();
    for (size_t p = 0; p < word.size(); ++p) {
      const Token id = bytes_[static_cast<uint8_t>(word[p])];
      // Only a byte that no valid UTF-8 holds can be without a token.
      if (id >= 0) merger->Add(static_cast<uint32_t>(p), 1, id);
    }
    merger->Run([&](const PieceMerger::Symbol& left, const PieceMerger::Symbol& right) {
      return vocab_.FindMerge(left.id, right.id);
    });
    merger->ForEach([&](const PieceMerger::Symbol& s) { out->push_back(s.id); });
  }

  const PreTokenizer pre_;
  const bool whole_words_;  // a word that is a token is not merged (Llama 3)
  std::array<Token, 256> bytes_{};
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadBpe(const ModelFile& file, Vocabulary vocab,
                                           PreTokenizer pre) {
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(vocab), pre);
  SNUG_TRY(tokenizer->Init(file));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace snug
