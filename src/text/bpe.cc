#include "text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <queue>

#include "text/unicode.h"

namespace snug {
namespace {

constexpr char kMerges[] = "tokenizer.ggml.merges";
constexpr uint64_t kMaxMerges = 1 << 24;

// The printable code point that stands for a byte in GPT-2's vocabulary files: itself where
// printable, else the next one from 256 on.
uint32_t CodePointOf(int byte) {
  auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  if (printable(byte)) return static_cast<uint32_t>(byte);
  uint32_t n = 256;
  for (int b = 0; b < byte; ++b) n += printable(b) ? 0 : 1;
  return n;
}

std::string Utf8(uint32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
}

uint64_t PairHash(Token left, Token right) {
  uint64_t h =
      (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right)) *
      0x9e3779b97f4a7c15u;
  return h ^ h >> 29;
}

struct Symbol {
  int32_t previous, next;
  Token token;  // -1 once merged away
};

// Lowest rank first, then leftmost.
struct Merge {
  uint32_t rank;
  int32_t left, right;
  Token left_token, right_token, result;
  bool operator<(const Merge& o) const {
    return rank > o.rank || (rank == o.rank && left > o.left);
  }
};

}  // namespace

Result<uint64_t> BpeTokenizer::MergeSlots(const GgufFile& file) {
  const GgufArray* merges = file.GetArray(kMerges);
  if (merges == nullptr || merges->element != GgufType::kString || merges->count > kMaxMerges) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: {} is missing or impossible", file.path(), kMerges),
                     "the file's vocabulary is damaged");
  }
  return std::bit_ceil(merges->count + merges->count / 4 + 1);
}

Result<uint64_t> BpeTokenizer::PlannedBytes(const GgufFile& file) {
  SNUG_ASSIGN(const uint64_t slots, MergeSlots(file));
  return Vocabulary::PlannedBytes(file, false, slots * sizeof(MergeSlot));
}

Result<std::unique_ptr<Tokenizer>> BpeTokenizer::Load(const GgufFile& file, Ledger& ledger) {
  auto t = std::make_unique<BpeTokenizer>();
  const std::string pre = file.GetString("tokenizer.ggml.pre").value_or("");
  const auto kind = FindPreTokenizer(pre);
  if (!kind) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: pre-tokenizer '{}' is not supported", file.path(), pre),
                     fmt::format("supported: {}", kPreTokenizerNames), {{"pre", pre}});
  }
  t->pre_ = *kind;
  SNUG_ASSIGN(t->slots_, MergeSlots(file));
  SNUG_ASSIGN(t->vocab_, Vocabulary::Load(file, false, t->slots_ * sizeof(MergeSlot), ledger));
  std::fill(std::begin(t->byte_of_), std::end(t->byte_of_), int16_t{-1});
  for (int b = 0; b < 256; ++b) {
    t->byte_of_[CodePointOf(b)] = static_cast<int16_t>(b);
    t->byte_[b] = t->vocab_.Find(Utf8(CodePointOf(b)));
  }
  SNUG_TRY(t->LoadMerges(file, t->slots_));
  SNUG_TRY(t->LoadSpecials(file, false));
  return std::unique_ptr<Tokenizer>(std::move(t));
}

Status BpeTokenizer::LoadMerges(const GgufFile& file, uint64_t slots) {
  auto* table = reinterpret_cast<MergeSlot*>(vocab_.extra());
  std::fill_n(table, slots, MergeSlot{-1, -1, -1, 0});
  std::string joined;
  return file.ForEachString(kMerges, [&](uint64_t rank, std::string_view text) {
    const size_t space = text.find(' ', 1);
    if (space == std::string_view::npos) return;
    joined.assign(text.substr(0, space));
    joined += text.substr(space + 1);
    const Token left = vocab_.Find(text.substr(0, space)),
                right = vocab_.Find(text.substr(space + 1));
    const Token result = vocab_.Find(joined);
    if (left < 0 || right < 0 || result < 0) return;  // can never apply
    uint64_t slot = PairHash(left, right) & (slots - 1);
    while (table[slot].left >= 0) {
      if (table[slot].left == left && table[slot].right == right) return;  // the first rank stands
      slot = (slot + 1) & (slots - 1);
    }
    table[slot] = {left, right, result, static_cast<uint32_t>(rank)};
  });
}

const BpeTokenizer::MergeSlot* BpeTokenizer::FindMerge(Token left, Token right) const {
  const auto* table = reinterpret_cast<const MergeSlot*>(vocab_.extra());
  uint64_t slot = PairHash(left, right) & (slots_ - 1);
  while (table[slot].left >= 0) {
    if (table[slot].left == left && table[slot].right == right) return &table[slot];
    slot = (slot + 1) & (slots_ - 1);
  }
  return nullptr;
}

bool BpeTokenizer::IsControl(Token token) const {
  return token < 0 || static_cast<uint32_t>(token) >= vocab_.size() ||
         vocab_.type(token) == TokenType::kControl;
}

std::string BpeTokenizer::TokenText(Token token) const {
  if (token < 0 || static_cast<uint32_t>(token) >= vocab_.size()) return {};
  return std::string(vocab_.text(token));
}

void BpeTokenizer::EncodeWord(std::string_view word, std::vector<Token>* out) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const Token token = byte_[static_cast<uint8_t>(c)];
    if (token < 0) continue;  // a vocabulary without that byte cannot say it
    const auto i = static_cast<int32_t>(symbols.size());
    symbols.push_back({i - 1, i + 1, token});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  std::priority_queue<Merge> queue;
  auto propose = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const Token a = symbols[left].token, b = symbols[right].token;
    if (const MergeSlot* m = FindMerge(a, b)) queue.push({m->rank, left, right, a, b, m->result});
  };
  for (int32_t i = 1; i < static_cast<int32_t>(symbols.size()); ++i) propose(i - 1, i);
  while (!queue.empty()) {
    const Merge m = queue.top();
    queue.pop();
    Symbol& left = symbols[m.left];
    Symbol& right = symbols[m.right];
    if (left.token != m.left_token || right.token != m.right_token || left.next != m.right)
      continue;
    left.token = m.result;
    right.token = -1;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = m.left;
    propose(left.previous, m.left);
    propose(m.left, left.next);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) out->push_back(symbols[i].token);
}

void BpeTokenizer::Encode(std::string_view text, const EncodeOptions& options,
                          std::vector<Token>* out) const {
  if (options.add_special && add_bos_ && bos_ >= 0) out->push_back(bos_);
  for (size_t i = 0; i < text.size();) {
    const Vocabulary::Special special = vocab_.NextSpecial(text, i, options.parse_special);
    const size_t end = special.token >= 0 ? special.at : text.size();
    const std::string_view plain = text.substr(i, end - i);
    for (size_t w = 0; w < plain.size();) {
      const size_t n = NextWord(pre_, plain, w);
      EncodeWord(plain.substr(w, n), out);
      w += n;
    }
    i = end;
    if (special.token >= 0) {
      out->push_back(special.token);
      i += special.bytes;
    }
  }
  if (options.add_special && add_eos_ && eos_ >= 0) out->push_back(eos_);
}

void BpeTokenizer::Decode(Token token, bool special, std::string* out) const {
  if (token < 0 || static_cast<uint32_t>(token) >= vocab_.size()) return;
  const TokenType type = vocab_.type(token);
  if (type == TokenType::kControl && !special) return;
  const std::string_view text = vocab_.text(token);
  if (type == TokenType::kControl || type == TokenType::kUserDefined) {
    *out += text;
    return;
  }
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text, i);
    const int16_t byte = c.value < std::size(byte_of_) ? byte_of_[c.value] : int16_t{-1};
    if (byte >= 0) {
      *out += static_cast<char>(byte);
    } else {
      *out += text.substr(i, c.bytes);
    }
    i += c.bytes;
  }
}

}  // namespace snug
