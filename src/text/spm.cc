#include "text/spm.h"

#include <fmt/format.h>

#include <array>
#include <string>

#include "text/bpe_merge.h"
#include "text/unicode.h"

namespace snug {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte that "<0xNN>" stands for; -1 for another text.
int ByteOf(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = HexDigit(text[3]), low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

void ReplaceAll(std::string_view text, std::string_view from, std::string_view to,
                std::string* out) {
  for (size_t at; (at = text.find(from)) != text.npos; text.remove_prefix(at + from.size()))
    out->append(text.substr(0, at)).append(to);
  out->append(text);
}

class SpmTokenizer : public VocabTokenizer {
 public:
  explicit SpmTokenizer(Vocabulary vocab) : VocabTokenizer(std::move(vocab)) {}

  Status Init(const ModelFile& file) {
    SNUG_TRY(ReadSpecial(file, true));
    add_space_prefix_ = file.GetBool("tokenizer.ggml.add_space_prefix").value_or(true);
    bytes_.fill(-1);
    bool all_bytes = true;
    for (int byte = 0; byte < 256; ++byte) {
      const Token id = vocab_.Find(fmt::format("<0x{:02X}>", byte));
      if (id >= 0 && vocab_.type(id) == TokenType::kByte) bytes_[static_cast<size_t>(byte)] = id;
      all_bytes = all_bytes && bytes_[static_cast<size_t>(byte)] >= 0;
    }
    for (Token id = 0; unknown_ < 0 && vocab_.Contains(id); ++id)
      if (vocab_.type(id) == TokenType::kUnknown) unknown_ = id;
    if (!all_bytes && unknown_ < 0) {
      return MakeError(
          Code::kBadFile,
          fmt::format("{}: the vocabulary has neither all 256 byte tokens <0x00> to <0xFF> nor an "
                      "unknown token, so it cannot write every text",
                      file.path()),
          "convert the model again with its byte tokens",
          {{"key", "tokenizer.ggml.unknown_token_id"}});
    }
    return {};
  }

  void Decode(Token token, bool special, std::string* out) const override {
    if (!vocab_.Contains(token) || (!special && IsHidden(token))) return;
    const std::string_view text = vocab_.text(token);
    const int byte = vocab_.type(token) == TokenType::kByte ? ByteOf(text) : -1;
    if (byte >= 0) {
      out->push_back(static_cast<char>(byte));
    } else {
      out->append(text);
    }
  }

  std::string TokenText(Token token) const override {
    std::string out;
    if (!vocab_.Contains(token)) return out;
    ReplaceAll(vocab_.text(token), " ", vocab_.has_plain_space(token) ? " " : kSpaceMark, &out);
    return out;
  }

 private:
  void EncodeText(std::string_view text, bool parse_special,
                  std::vector<Token>* out) const override {
    std::string plain;
    if (text.find(kSpaceMark) != text.npos) {
      ReplaceAll(text, kSpaceMark, " ", &plain);
      text = plain;
    }
    PieceMerger merger;
    size_t start = 0;
    for (size_t p = 0; parse_special && p < text.size();) {
      const Token id = vocab_.MatchWhole(text, p, false, true);
      if (id < 0) {
        ++p;
        continue;
      }
      EncodeSegment(text.substr(start, p - start), &merger, out);
      out->push_back(id);
      start = p += vocab_.text(id).size();
    }
    EncodeSegment(text.substr(start), &merger, out);
  }

  // A text between control tokens: gets the space that SentencePiece puts before a text.
  void EncodeSegment(std::string_view text, PieceMerger* merger, std::vector<Token>* out) const {
    if (text.empty()) return;
    std::string prefixed;
    if (add_space_prefix_) {
      prefixed.reserve(text.size() + 1);
      prefixed.append(1, ' ').append(text);
      text = prefixed;
    }
    // Cut where a user-defined token stands or where no token can span, and merge between the cuts.
    size_t start = 0;
    uint32_t last = 0;
    for (size_t p = 0; p < text.size();) {
      const Token id = vocab_.MatchWhole(text, p, true, false);
      if (id >= 0) {
        EncodePiece(text.substr(start, p - start), merger, out);
        out->push_back(id);
        start = p += vocab_.text(id).size();
        continue;
      }
      const CodePoint c = DecodeUtf8(text, p);
      if (p > start && (p - start >= kMaxPiece || !vocab_.MayJoin(last, c.value))) {
        EncodePiece(text.substr(start, p - start), merger, out);
        start = p;
      }
      last = c.value;
      p += c.bytes;
    }
    EncodePiece(text.substr(start), merger, out);
  }

  void EncodePiece(std::string_view piece, PieceMerger* merger, std::vector<Token>* out) const {
    merger->Clear();
    for (size_t p = 0; p < piece.size();) {
      const uint32_t bytes = DecodeUtf8(piece, p).bytes;
      merger->Add(static_cast<uint32_t>(p), bytes, -1);
      p += bytes;
    }
    merger->Run([&](const PieceMerger::Symbol& left, const PieceMerger::Symbol& right) -> Merge {
      const Token id = FindPiece(piece.substr(left.start, left.bytes + right.bytes));
      return id < 0 ? Merge{} : Merge{vocab_.priority(id), id};
    });
    merger->ForEach([&](const PieceMerger::Symbol& s) {
      const std::string_view text = piece.substr(s.start, s.bytes);
      const Token id = s.id >= 0 ? s.id : FindPiece(text);
      if (id >= 0) {
        out->push_back(id);
      } else {
        EncodeBytes(text, out);
      }
    });
  }

  // A character outside the vocabulary: its bytes, or one unknown token where one of them is
  // missing.
  void EncodeBytes(std::string_view text, std::vector<Token>* out) const {
    for (const char c : text)
      if (bytes_[static_cast<uint8_t>(c)] < 0) return out->push_back(unknown_);
    for (const char c : text) out->push_back(bytes_[static_cast<uint8_t>(c)]);
  }

  // The token that plain text may become: never a control, unknown or byte token.
  Token FindPiece(std::string_view text) const {
    const Token id = vocab_.Find(text);
    if (id < 0) return -1;
    const TokenType type = vocab_.type(id);
    const bool plain =
        type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kUnused;
    return plain ? id : -1;
  }

  bool add_space_prefix_ = true;
  std::array<Token, 256> bytes_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadSpm(const ModelFile& file, Vocabulary vocab) {
  auto tokenizer = std::make_unique<SpmTokenizer>(std::move(vocab));
  SNUG_TRY(tokenizer->Init(file));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace snug
