#include "text/pre_tokenizer.h"

#include "text/unicode.h"

namespace snug {
namespace {

// Walks code points of a text.
struct Cursor {
  std::string_view text;
  size_t at;
  bool end() const { return at >= text.size(); }
  uint32_t value() const { return end() ? 0 : DecodeUtf8(text, at).value; }
  bool Is(CharClass c) const { return !end() && ClassOf(value()) == c; }
  bool newline() const { return !end() && (text[at] == '\n' || text[at] == '\r'); }
  void Step() { at += DecodeUtf8(text, at).bytes; }
  void Skip(CharClass c) {
    while (Is(c)) Step();
  }
  Cursor Next() const {
    Cursor c = *this;
    c.Step();
    return c;
  }
};

// Bytes of 's 't 'm 'd 're 've 'll at text[i], else 0.
size_t Contraction(std::string_view text, size_t i, bool any_case) {
  if (text[i] != '\'') return 0;
  auto letter = [&](size_t j) {
    const char c = j < text.size() ? text[j] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char a = letter(i + 1), b = letter(i + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return 0;
}

// `\s+(?!\S)|\s+`: a run of white space, less its last character where a word follows.
size_t SpaceRun(Cursor c) {
  const size_t start = c.at;
  size_t last = start;
  while (c.Is(CharClass::kSpace)) {
    last = c.at;
    c.Step();
  }
  return (c.end() || last == start ? c.at : last) - start;
}

// GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t Gpt2(std::string_view text, size_t i) {
  if (const size_t n = Contraction(text, i, false)) return n;
  Cursor c{text, i};
  if (text[i] == ' ') c.Step();
  if (!c.end() && !c.Is(CharClass::kSpace)) {
    c.Skip(ClassOf(c.value()));
    return c.at - i;
  }
  return SpaceRun({text, i});
}

// Qwen 2 (one digit) and Llama 3 (three):
// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+| \s+(?!\S)|\s+
size_t Qwen2(std::string_view text, size_t i, int digits) {
  if (const size_t n = Contraction(text, i, true)) return n;
  Cursor c{text, i};
  if (c.Is(CharClass::kNumber)) {
    for (; digits > 0 && c.Is(CharClass::kNumber); --digits) c.Step();
    return c.at - i;
  }
  if (!c.Is(CharClass::kLetter) && !c.newline() && c.Next().Is(CharClass::kLetter)) c.Step();
  if (c.Is(CharClass::kLetter)) {
    c.Skip(CharClass::kLetter);
    return c.at - i;
  }
  if (text[i] == ' ' && c.Next().Is(CharClass::kOther)) c.Step();
  if (c.Is(CharClass::kOther)) {
    c.Skip(CharClass::kOther);
    while (c.newline()) ++c.at;
    return c.at - i;
  }
  size_t past_newline = 0;
  for (Cursor s{text, i}; s.Is(CharClass::kSpace); s.Step()) {
    if (s.newline()) past_newline = s.at + 1;
  }
  return past_newline != 0 ? past_newline - i : SpaceRun({text, i});
}

}  // namespace

std::optional<PreTokenizer> FindPreTokenizer(std::string_view name) {
  if (name == "gpt-2") return PreTokenizer::kGpt2;
  if (name == "qwen2") return PreTokenizer::kQwen2;
  if (name == "llama-bpe") return PreTokenizer::kLlama3;
  return std::nullopt;
}

size_t NextWord(PreTokenizer kind, std::string_view text, size_t i) {
  if (kind == PreTokenizer::kGpt2) return Gpt2(text, i);
  return Qwen2(text, i, kind == PreTokenizer::kQwen2 ? 1 : 3);
}

}  // namespace snug
