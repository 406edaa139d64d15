#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/bpe.h"
#include "text/pre_tokenizer.h"
#include "text/spm.h"
#include "text/tokenizer_base.h"

namespace snug {
namespace {

// Texts of tokens that end a turn, in the vocabularies that have them.
constexpr std::string_view kEndTexts[] = {"<|im_end|>",    "<end_of_turn>", "<|eot_id|>",
                                          "<|endoftext|>", "<|end|>",       "<|end_of_text|>"};

struct Choice {
  VocabularyKind kind = VocabularyKind::kSentencePiece;
  PreTokenizer pre = PreTokenizer::kGpt2;
};

Result<Choice> Choose(const ModelFile& file) {
  constexpr char kModel[] = "tokenizer.ggml.model", kPre[] = "tokenizer.ggml.pre";
  SNUG_ASSIGN(const std::string model, file.NeedString(kModel));
  if (model == "llama") return Choice{};
  if (model != "gpt2") {
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: {} is \"{}\", which is not supported", file.path(), kModel, model),
        "supported are \"llama\" (SentencePiece BPE) and \"gpt2\" (byte-level BPE)",
        {{"key", kModel}, {"value", model}});
  }
  const std::string pre = file.GetString(kPre).value_or("");
  const auto known = FindPreTokenizer(pre);
  if (!known) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: {} is \"{}\", which is not supported", file.path(), kPre, pre),
        fmt::format("supported are {}", kPreTokenizerNames), {{"key", kPre}, {"value", pre}});
  }
  return Choice{VocabularyKind::kByteLevel, *known};
}

}  // namespace

Result<uint64_t> Tokenizer::PlannedBytes(const ModelFile& file) {
  SNUG_ASSIGN(const Choice choice, Choose(file));
  return Vocabulary::PlannedBytes(file, choice.kind);
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const ModelFile& file, Ledger& ledger) {
  SNUG_ASSIGN(const Choice choice, Choose(file));
  SNUG_ASSIGN(Vocabulary vocab, Vocabulary::Load(file, ledger, choice.kind));
  if (choice.kind == VocabularyKind::kSentencePiece) return LoadSpm(file, std::move(vocab));
  return LoadBpe(file, std::move(vocab), choice.pre);
}

std::string Tokenizer::Decode(const std::vector<Token>& tokens, bool special) const {
  std::string text;
  for (const Token token : tokens) Decode(token, special, &text);
  return text;
}

bool Tokenizer::IsEndOfGeneration(Token token) const {
  return std::find(end_.begin(), end_.end(), token) != end_.end();
}

void VocabTokenizer::Encode(std::string_view text, const EncodeOptions& options,
                            std::vector<Token>* out) const {
  if (options.add_special && add_bos_) out->push_back(bos_);
  EncodeText(text, options.parse_special, out);
  if (options.add_special && add_eos_) out->push_back(eos_);
}

bool VocabTokenizer::IsControl(Token token) const {
  if (!vocab_.Contains(token)) return false;
  const TokenType type = vocab_.type(token);
  return type == TokenType::kControl || type == TokenType::kUnknown;
}

bool VocabTokenizer::IsHidden(Token token) const {
  return IsControl(token) || vocab_.type(token) == TokenType::kUnused;
}

Status VocabTokenizer::ReadSpecial(const ModelFile& file, bool add_bos_default) {
  const auto read = [&](const char* key, Token* id) -> Status {
    const auto value = file.GetInt(key);
    // Writers say "none" as -1, in 32 bits without a sign too.
    if (!value || *value == -1 || *value == UINT32_MAX) return {};
    if (*value < 0 || *value >= static_cast<int64_t>(vocab_.size())) {
      return MakeError(Code::kBadFile,
                       fmt::format("{}: {} is {}, but the vocabulary has {} tokens", file.path(),
                                   key, *value, vocab_.size()),
                       "the vocabulary is damaged: convert or download the model again",
                       {{"key", key}, {"value", std::to_string(*value)}});
    }
    *id = static_cast<Token>(*value);
    return {};
  };
  Token eot = -1, eom = -1;
  SNUG_TRY(read("tokenizer.ggml.bos_token_id", &bos_));
  SNUG_TRY(read("tokenizer.ggml.eos_token_id", &eos_));
  SNUG_TRY(read("tokenizer.ggml.eot_token_id", &eot));
  SNUG_TRY(read("tokenizer.ggml.eom_token_id", &eom));
  SNUG_TRY(read("tokenizer.ggml.unknown_token_id", &unknown_));
  add_bos_ = file.GetBool("tokenizer.ggml.add_bos_token").value_or(add_bos_default) && bos_ >= 0;
  add_eos_ = file.GetBool("tokenizer.ggml.add_eos_token").value_or(false) && eos_ >= 0;

  const auto ends = [&](Token id) {
    if (id >= 0 && !IsEndOfGeneration(id)) end_.push_back(id);
  };
  for (const Token id : {eos_, eot, eom}) ends(id);
  constexpr char kEnds[] = "tokenizer.ggml.eog_token_ids";
  const GgufArray* listed = file.GetArray(kEnds);
  if (listed != nullptr && listed->count <= vocab_.size()) {
    std::vector<int32_t> ids(listed->count);
    SNUG_TRY(file.ReadArray(kEnds, ids.data()));
    for (const int32_t id : ids)
      if (vocab_.Contains(id)) ends(id);
  }
  for (const std::string_view text : kEndTexts) ends(vocab_.Find(text));
  return {};
}

}  // namespace snug
