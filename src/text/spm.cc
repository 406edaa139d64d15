#include "text/spm.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>

#include "text/unicode.h"

namespace snug {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581

// A merge of two neighbouring symbols that the vocabulary knows. Best score first, then leftmost.
struct Merge {
  float score;
  int32_t left, right;
  uint32_t bytes;  // of both when it was proposed: a symbol that has grown since makes it stale
  bool operator<(const Merge& o) const {
    return score < o.score || (score == o.score && left > o.left);
  }
};

struct Symbol {
  int32_t previous, next;
  uint32_t at, bytes;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> SpmTokenizer::Load(const GgufFile& file, Ledger& ledger) {
  auto t = std::make_unique<SpmTokenizer>();
  SNUG_ASSIGN(t->vocab_, Vocabulary::Load(file, true, 0, ledger));
  for (int b = 0; b < 256; ++b) t->byte_[b] = t->vocab_.Find(fmt::format("<0x{:02X}>", b));
  t->space_prefix_ = file.GetBool("tokenizer.ggml.add_space_prefix").value_or(true);
  const auto unknown = file.GetUint("tokenizer.ggml.unknown_token_id");
  if (unknown && *unknown < t->vocab_.size()) t->unknown_ = static_cast<Token>(*unknown);
  SNUG_TRY(t->LoadSpecials(file, true));
  return std::unique_ptr<Tokenizer>(std::move(t));
}

bool SpmTokenizer::IsControl(Token token) const {
  return token < 0 || static_cast<uint32_t>(token) >= vocab_.size() ||
         vocab_.type(token) == TokenType::kControl;
}

std::string SpmTokenizer::TokenText(Token token) const {
  if (token < 0 || static_cast<uint32_t>(token) >= vocab_.size()) return {};
  return std::string(vocab_.text(token));
}

void SpmTokenizer::EncodeRaw(std::string_view text, std::vector<Token>* out) const {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (uint32_t i = 0; i < text.size();) {
    const uint32_t n = DecodeUtf8(text, i).bytes;
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({index - 1, index + 1, i, n});
    i += n;
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  std::priority_queue<Merge> queue;
  auto propose = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const uint32_t bytes = symbols[left].bytes + symbols[right].bytes;
    const Token token = vocab_.Find(text.substr(symbols[left].at, bytes));
    if (token >= 0) queue.push({vocab_.score(token), left, right, bytes});
  };
  for (int32_t i = 1; i < static_cast<int32_t>(symbols.size()); ++i) propose(i - 1, i);
  while (!queue.empty()) {
    const Merge m = queue.top();
    queue.pop();
    Symbol& left = symbols[m.left];
    Symbol& right = symbols[m.right];
    if (left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != m.bytes) continue;
    left.bytes = m.bytes;
    right.bytes = 0;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = m.left;
    propose(left.previous, m.left);
    propose(m.left, left.next);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) {
    const std::string_view piece = text.substr(symbols[i].at, symbols[i].bytes);
    if (const Token token = vocab_.Find(piece); token >= 0) {
      out->push_back(token);
      continue;
    }
    for (const char c : piece) {
      const Token token = byte_[static_cast<uint8_t>(c)];
      if (token >= 0 || unknown_ >= 0) out->push_back(token >= 0 ? token : unknown_);
    }
  }
}

void SpmTokenizer::Encode(std::string_view text, const EncodeOptions& options,
                          std::vector<Token>* out) const {
  if (options.add_special && add_bos_ && bos_ >= 0) out->push_back(bos_);
  std::string escaped;
  for (size_t i = 0; i < text.size();) {
    const Vocabulary::Special special = vocab_.NextSpecial(text, i, options.parse_special);
    const size_t end = special.token >= 0 ? special.at : text.size();
    if (end > i) {
      // Each run of plain text counts as a beginning, as after a special token it is.
      escaped.assign(space_prefix_ ? kSpace : "");
      for (const char c : text.substr(i, end - i)) {
        if (c == ' ') {
          escaped += kSpace;
        } else {
          escaped += c;
        }
      }
      EncodeRaw(escaped, out);
    }
    i = end;
    if (special.token >= 0) {
      out->push_back(special.token);
      i += special.bytes;
    }
  }
  if (options.add_special && add_eos_ && eos_ >= 0) out->push_back(eos_);
}

void SpmTokenizer::Decode(Token token, bool special, std::string* out) const {
  if (token < 0 || static_cast<uint32_t>(token) >= vocab_.size()) return;
  if (vocab_.type(token) == TokenType::kControl && !special) return;
  const std::string_view text = vocab_.text(token);
  if (vocab_.type(token) == TokenType::kByte && text.size() == 6) {
    *out += static_cast<char>(std::find(byte_, byte_ + 256, token) - byte_);
    return;
  }
  for (size_t i = 0; i < text.size();) {
    if (text.substr(i, kSpace.size()) == kSpace) {
      *out += ' ';
      i += kSpace.size();
    } else {
      *out += text[i++];
    }
  }
}

}  // namespace snug
