#include "text/text_tokenizer.h"

#include <algorithm>

#include "text/byte_alphabet.h"
#include "text/unicode.h"

namespace snug {
namespace {

// Texts of tokens that end a turn, in the vocabularies that have them.
constexpr std::string_view kEndTexts[] = {
    "<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>",           "<|endoftext|>",
    "<|end|>",    "<|return|>",    "<|call|>",   "<|end_of_text|>",      "<end_of_utterance>",
    "<turn|>",    "[EOT]",         "<EOT>",      "<｜end▁of▁sentence｜>"};

std::unique_ptr<WordModel> MakeModel(const Vocabulary& vocabulary, const TokenizerSpec& spec) {
  switch (spec.model) {
    case WordModelKind::kUnigram:
      return MakeUnigram(vocabulary, spec.unigram);
    case WordModelKind::kWordPiece:
      return MakeWordPiece(vocabulary, spec.word_piece);
    case WordModelKind::kBpe:
      break;
  }
  return MakeBpe(vocabulary, spec.bpe);
}

// Where the white space begins that ends at text[end], or `end`.
size_t SpaceBefore(std::string_view text, size_t begin, size_t end) {
  const CharTable& table = CharTable::Get();
  while (end > begin) {
    size_t at = end - 1;
    while (at > begin && end - at < 4 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
    const CodePoint c = DecodeUtf8(text, at);
    if (c.bytes != end - at || (table[c.value] & kIsSpace) == 0) break;
    end = at;
  }
  return end;
}

size_t SpaceAfter(std::string_view text, size_t at) {
  while (at < text.size()) {
    const CodePoint c = DecodeUtf8(text, at);
    if ((CharTable::Get()[c.value] & kIsSpace) == 0) break;
    at += c.bytes;
  }
  return at;
}

bool WordCharacterBefore(std::string_view text, size_t end) {
  if (end == 0) return false;
  size_t at = end - 1;
  while (at > 0 && end - at < 4 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return IsWordCharacter(DecodeUtf8(text, at).value);
}

// The pieces before which WordPiece's decoder leaves no space.
bool NeedsNoSpace(std::string_view text) {
  constexpr std::string_view kPieces[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
  return std::any_of(std::begin(kPieces), std::end(kPieces),
                     [&](std::string_view piece) { return text.substr(0, piece.size()) == piece; });
}

}  // namespace

struct TextTokenizer::Run {
  explicit Run(const TokenizerSpec& spec, std::vector<Token>* o) : cutter(spec.cuts), out(o) {}
  Cutter cutter;
  std::string normal_a, normal_b;
  WordScratch words;
  uint64_t room = 0;  // bytes that are left to normalized text
  std::vector<Token>* out;
};

TextTokenizer::TextTokenizer(Vocabulary vocabulary, TokenizerSpec spec)
    : vocab_(std::move(vocabulary)),
      spec_(std::move(spec)),
      charsmap_(Charsmap::Parse(vocab_.charsmap(), vocab_.charsmap_bytes())),
      model_(MakeModel(vocab_, spec_)) {
  bos_ = spec_.bos;
  eos_ = spec_.eos;
  const auto has = [](const std::vector<Token>& list, Token id) {
    return std::find(list.begin(), list.end(), id) != list.end();
  };
  add_bos_ = bos_ >= 0 && has(spec_.before, bos_);
  const auto ends = [&](Token id) {
    if (id >= 0 && !has(end_, id)) end_.push_back(id);
  };
  ends(eos_);
  for (const Token id : spec_.ends) ends(id);
  // In harmony's format <|end|> ends a message, after which the answer goes on.
  const bool harmony = vocab_.Find("<|return|>") >= 0 && vocab_.Find("<|call|>") >= 0;
  for (const std::string_view text : kEndTexts)
    if (!harmony || text != "<|end|>") ends(vocab_.Find(text));
}

template <class Between, class Found>
void TextTokenizer::ForEachWhole(std::string_view text, bool control, bool normalized,
                                 const Between& between, const Found& found) const {
  size_t start = 0, from = 0;
  while (from < text.size()) {
    const auto whole = vocab_.FindWhole(text, from, control, normalized);
    if (whole.id < 0) break;
    from = whole.end;
    size_t begin = whole.begin;
    const WholeFlags flags = vocab_.flags(whole.id);
    if (flags.single_word &&
        (WordCharacterBefore(text, begin) ||
         (from < text.size() && IsWordCharacter(DecodeUtf8(text, from).value))))
      continue;
    if (flags.lstrip) begin = SpaceBefore(text, start, begin);
    if (flags.rstrip) from = SpaceAfter(text, from);
    if (begin > start) between(start, begin);
    found(whole.id);
    start = from;
  }
  if (start < text.size()) between(start, text.size());
}

void TextTokenizer::Encode(std::string_view text, const EncodeOptions& options,
                           std::vector<Token>* out) const {
  Run run(spec_, out);
  run.room = NormalizedRoom(text.size());
  if (options.add_special) out->insert(out->end(), spec_.before.begin(), spec_.before.end());
  ForEachWhole(
      text, options.parse_special, false,
      [&](size_t begin, size_t end) {
        EncodeSection(text.substr(begin, end - begin), begin == 0, options.parse_special, &run);
      },
      [&](Token id) { out->push_back(id); });
  if (options.add_special) out->insert(out->end(), spec_.after.begin(), spec_.after.end());
}

void TextTokenizer::EncodeSection(std::string_view section, bool begins_input, bool control,
                                  Run* run) const {
  const std::string_view text =
      Normalize(spec_.normalizer, charsmap_ ? &*charsmap_ : nullptr, &vocab_, run->room, section,
                &run->normal_a, &run->normal_b);
  run->room -= std::min<uint64_t>(run->room, text.size());
  const auto words = [&](size_t begin, size_t end) {
    run->cutter.Cut(text.substr(begin, end - begin), begins_input && begin == 0,
                    [&](std::string_view word) { model_->Encode(word, &run->words, run->out); });
  };
  if (vocab_.any_normalized()) {
    ForEachWhole(text, control, true, words, [&](Token id) { run->out->push_back(id); });
  } else if (!text.empty()) {
    words(0, text.size());
  }
}

bool TextTokenizer::IsControl(Token token) const {
  if (!vocab_.Contains(token)) return false;
  const TokenType type = vocab_.type(token);
  return type == TokenType::kControl || type == TokenType::kUnknown;
}

std::string TextTokenizer::TokenText(Token token) const {
  return vocab_.Contains(token) ? std::string(vocab_.text(token)) : std::string();
}

void TextTokenizer::Decode(Token token, bool special, std::string* out) const {
  if (!vocab_.Contains(token)) return;
  const TokenType type = vocab_.type(token);
  if (!special && (IsControl(token) || type == TokenType::kUnused)) return;
  std::string_view text = vocab_.FoundText(token);
  const DecodeSpec& d = spec_.decode;
  const bool plain = type == TokenType::kNormal || type == TokenType::kUnused;
  if (d.words) {
    const bool inner = d.outer.empty() ? text.substr(0, d.inner.size()) == d.inner
                                       : plain && text.substr(0, d.outer.size()) != d.outer;
    if (inner) return void(out->append(text.substr(d.outer.empty() ? d.inner.size() : 0)));
    if (plain) text.remove_prefix(d.outer.size());
    if (!(d.cleanup && NeedsNoSpace(text))) out->push_back(' ');
    out->append(text);
    return;
  }
  if (d.byte_tokens && type == TokenType::kByte) {
    if (const int byte = ByteOfToken(text); byte >= 0) {
      out->push_back(static_cast<char>(byte));
      return;
    }
  }
  if (d.bytes && type == TokenType::kNormal) {
    for (size_t p = 0; p < text.size();) {
      const CodePoint c = DecodeUtf8(text, p);
      const auto& to_byte = kByteLetters.to_byte;
      const int byte = c.value < to_byte.size() ? to_byte[c.value] : -1;
      if (byte >= 0) {
        out->push_back(static_cast<char>(byte));
      } else {
        out->append(text.substr(p, c.bytes));
      }
      p += c.bytes;
    }
    return;
  }
  if (d.replace.empty()) return void(out->append(text));
  std::string a, b;
  out->append(Normalize(d.replace, nullptr, nullptr, NormalizedRoom(text.size()), text, &a, &b));
}

std::string TextTokenizer::Decode(const std::vector<Token>& tokens, bool special) const {
  std::string text;
  for (const Token token : tokens) Decode(token, special, &text);
  if (spec_.decode.strip_space && !text.empty() && text[0] == ' ') text.erase(0, 1);
  return text;
}

}  // namespace snug
