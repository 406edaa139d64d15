#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/bpe.h"
#include "text/spm.h"
#include "text/unicode.h"

namespace snug {
namespace {

// Texts of tokens that end a turn, in the vocabularies that have them.
constexpr std::string_view kEndTexts[] = {"<|im_end|>",    "<end_of_turn>", "<|eot_id|>",
                                          "<|endoftext|>", "<|end|>",       "<|end_of_text|>"};

Error Unknown(const GgufFile& file, const std::string& model) {
  return MakeError(
      Code::kBadFile, fmt::format("{}: tokenizer '{}' is not supported", file.path(), model),
      "supported: llama (SentencePiece BPE), gpt2 (byte-level BPE)", {{"tokenizer", model}});
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const GgufFile& file, Ledger& ledger) {
  SNUG_ASSIGN(const std::string model, file.NeedString("tokenizer.ggml.model"));
  if (model == "llama") return SpmTokenizer::Load(file, ledger);
  if (model == "gpt2") return BpeTokenizer::Load(file, ledger);
  return Unknown(file, model);
}

Result<uint64_t> Tokenizer::PlannedBytes(const GgufFile& file) {
  SNUG_ASSIGN(const std::string model, file.NeedString("tokenizer.ggml.model"));
  if (model == "llama") return SpmTokenizer::PlannedBytes(file);
  if (model == "gpt2") return BpeTokenizer::PlannedBytes(file);
  return Unknown(file, model);
}

Status Tokenizer::LoadSpecials(const GgufFile& file, bool add_bos_by_default) {
  auto id = [&](const char* key) -> Result<Token> {
    const auto value = file.GetUint(fmt::format("tokenizer.ggml.{}_token_id", key));
    if (!value) return Token{-1};
    if (*value >= vocab_size()) {
      return MakeError(Code::kBadFile,
                       fmt::format("{}: {} token {} is outside the vocabulary of {}", file.path(),
                                   key, *value, vocab_size()));
    }
    return static_cast<Token>(*value);
  };
  SNUG_ASSIGN(bos_, id("bos"));
  SNUG_ASSIGN(eos_, id("eos"));
  for (const char* key : {"eos", "eot", "eom"}) {
    SNUG_ASSIGN(const Token token, id(key));
    if (token >= 0) end_.push_back(token);
  }
  std::vector<Token> found;
  for (const std::string_view text : kEndTexts) {
    found.clear();
    Encode(text, {false, true}, &found);
    if (found.size() == 1 && IsControl(found[0])) end_.push_back(found[0]);
  }
  std::sort(end_.begin(), end_.end());
  end_.erase(std::unique(end_.begin(), end_.end()), end_.end());
  add_bos_ = file.GetBool("tokenizer.ggml.add_bos_token").value_or(add_bos_by_default);
  add_eos_ = file.GetBool("tokenizer.ggml.add_eos_token").value_or(false);
  return {};
}

bool Tokenizer::IsEndOfGeneration(Token token) const {
  return std::binary_search(end_.begin(), end_.end(), token);
}

std::string Tokenizer::Decode(const std::vector<Token>& tokens, bool special) const {
  std::string text;
  for (const Token t : tokens) Decode(t, special, &text);
  return text;
}

void Utf8Stream::Push(std::string_view bytes, std::string* out) {
  std::string text(held_, static_cast<size_t>(n_held_));
  text += bytes;
  n_held_ = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text, i);
    if (c.value != 0xfffd || c.bytes != 1) {
      out->append(text, i, c.bytes);
      i += c.bytes;
      continue;
    }
    // Not valid here: is it the beginning of a sequence that more bytes could complete?
    const size_t left = text.size() - i;
    bool incomplete = false;
    if (left < 4) {
      static constexpr std::array<std::string_view, 6> kTails = {
          "\x80", "\x80\x80", "\x80\x80\x80", "\xbf", "\xbf\xbf", "\xbf\xbf\xbf"};
      for (const std::string_view tail : kTails) {
        const std::string whole = text.substr(i) + std::string(tail);
        const CodePoint w = DecodeUtf8(whole, 0);
        incomplete = incomplete || (w.bytes > left && w.bytes == whole.size());
      }
    }
    if (incomplete) {
      n_held_ = static_cast<int>(left);
      text.copy(held_, left, i);
      return;
    }
    *out += "\xef\xbf\xbd";
    ++i;
  }
}

void Utf8Stream::Finish(std::string* out) {
  if (n_held_ > 0) *out += "\xef\xbf\xbd";
  n_held_ = 0;
}

}  // namespace snug
