#include "text/gguf_vocabulary.h"

#include <fmt/format.h>

#include "text/byte_alphabet.h"
#include "text/special_ids.h"

namespace snug {
namespace {

constexpr char kModel[] = "tokenizer.ggml.model", kPre[] = "tokenizer.ggml.pre",
               kTokens[] = "tokenizer.ggml.tokens", kTypes[] = "tokenizer.ggml.token_type",
               kScores[] = "tokenizer.ggml.scores", kMerges[] = "tokenizer.ggml.merges",
               kCharsmap[] = "tokenizer.ggml.precompiled_charsmap";

bool IsNumbers(const GgufArray* array) {
  return array != nullptr && array->element != GgufType::kString &&
         array->element != GgufType::kArray;
}

}  // namespace

Error GgufVocabulary::Bad(const char* key, const std::string& what) const {
  return MakeError(Code::kBadFile, fmt::format("{}: {} {}", file_.path(), key, what),
                   "the vocabulary is damaged: convert or download the model again",
                   {{"key", key}});
}

Result<GgufVocabulary> GgufVocabulary::Open(const ModelFile& file) {
  GgufVocabulary v(file);
  const auto unknown = [&](const char* key, const std::string& value, const std::string& known) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: {} is \"{}\", which is not supported", file.path(), key, value),
        "supported are " + known, {{"key", key}, {"value", value}});
  };
  SNUG_ASSIGN(const std::string model, file.NeedString(kModel));
  if (model == "gpt2") {
    const std::string pre = file.GetString(kPre).value_or("");
    auto found = FindPreTokenizer(pre);
    if (!found) return unknown(kPre, pre, PreTokenizerNames());
    v.pre_ = std::move(*found);
  } else if (model == "llama") {
    v.kind_ = Kind::kSentencePiece;
  } else if (model == "t5") {
    v.kind_ = Kind::kUnigram;
  } else if (model == "bert") {
    v.kind_ = Kind::kWordPiece;
  } else {
    return unknown(
        kModel, model,
        "\"gpt2\" (byte-level BPE), \"llama\" (SentencePiece BPE), \"t5\" (SentencePiece "
        "unigram) and \"bert\" (WordPiece)");
  }
  SNUG_TRY(v.CheckArrays());
  return v;
}

Status GgufVocabulary::CheckArrays() {
  const auto strings = [&](const char* key) -> Result<const GgufArray*> {
    const GgufArray* array = file_.GetArray(key);
    if (array == nullptr || array->element != GgufType::kString)
      return Bad(key, "is missing or no array of strings");
    return array;
  };
  SNUG_ASSIGN(const GgufArray* tokens, strings(kTokens));
  shape_.tokens = tokens->count;
  shape_.text_bytes = tokens->bytes - 8 * tokens->count;
  for (const char* key : {kTypes, kScores}) {
    const GgufArray* array = file_.GetArray(key);
    const bool needed =
        key == kScores && (kind_ == Kind::kSentencePiece || kind_ == Kind::kUnigram);
    if (array == nullptr && !needed) continue;
    if (!IsNumbers(array)) return Bad(key, "is missing or no array of numbers");
    if (array->count != shape_.tokens)
      return Bad(key, fmt::format("has {} entries for {} tokens", array->count, shape_.tokens));
  }
  switch (kind_) {
    case Kind::kByteLevel: {
      SNUG_ASSIGN(const GgufArray* merges, strings(kMerges));
      shape_.merges = merges->count;
      break;
    }
    case Kind::kSentencePiece:
      shape_.priorities = shape_.joins = true;
      break;
    case Kind::kUnigram:
      shape_.scores = shape_.joins = shape_.prefixes = true;
      if (const GgufArray* map = file_.GetArray(kCharsmap)) {
        if (map->element != GgufType::kU8 && map->element != GgufType::kI8)
          return Bad(kCharsmap, "is no array of bytes");
        shape_.charsmap_bytes = map->count;
      }
      break;
    case Kind::kWordPiece:
      shape_.prefixes = true;
      break;
  }
  return {};
}

Status GgufVocabulary::Fill(Vocabulary* v) const {
  const auto n = static_cast<Token>(shape_.tokens);
  if (file_.GetArray(kTypes) != nullptr) {
    int32_t* types = v->scratch();
    SNUG_TRY(file_.ReadArray(kTypes, types));
    for (Token id = 0; id < n; ++id)
      if (types[id] >= 1 && types[id] <= 6) v->SetType(id, static_cast<TokenType>(types[id]));
  }
  if (shape_.scores || shape_.priorities) {
    auto* scores = reinterpret_cast<float*>(v->scratch());
    SNUG_TRY(file_.ReadArray(kScores, scores));
    for (Token id = 0; id < n; ++id) v->SetScore(id, scores[id]);
  }
  v->ClearScratch();
  int64_t too_long = -1;
  SNUG_TRY(file_.ForEachString(kTokens, [&](uint64_t id, std::string_view text) {
    if (text.size() > Vocabulary::kMaxText) too_long = static_cast<int64_t>(id);
    v->AddToken(static_cast<Token>(id), text);
  }));
  if (too_long >= 0)
    return Bad(kTokens, fmt::format("has a token of more than {} bytes, {}", Vocabulary::kMaxText,
                                    too_long));
  int64_t malformed = -1;
  if (shape_.merges != 0) {
    SNUG_TRY(file_.ForEachString(kMerges, [&](uint64_t rank, std::string_view line) {
      const size_t space = line.find(' ', 1);
      if (space == line.npos || space + 1 == line.size() || line.size() > Vocabulary::kMaxText) {
        if (malformed < 0) malformed = static_cast<int64_t>(rank);
        return;
      }
      // A merge of what is no token, or into none, can never take part.
      (void)v->AddMerge(rank, line.substr(0, space), line.substr(space + 1));
    }));
  }
  if (malformed >= 0)
    return Bad(kMerges, fmt::format("entry {} is not two texts and a space", malformed));
  if (shape_.charsmap_bytes == 0) return {};
  SNUG_TRY(file_.files()[0].ReadAt(file_.GetArray(kCharsmap)->offset, v->charsmap(),
                                   shape_.charsmap_bytes));
  if (!Charsmap::Parse(v->charsmap(), v->charsmap_bytes()))
    return Bad(kCharsmap, "is no table of rules");
  return {};
}

Status GgufVocabulary::ReadId(const Vocabulary& v, const char* key, Token* id) const {
  const auto value = file_.GetInt(key);
  // Writers say "none" as -1, in 32 bits without a sign too.
  if (!value || *value == -1 || *value == UINT32_MAX) return {};
  if (*value < 0 || *value >= static_cast<int64_t>(v.size()))
    return Bad(key, fmt::format("is {}, but the vocabulary has {} tokens", *value, v.size()));
  *id = static_cast<Token>(*value);
  return {};
}

Status GgufVocabulary::ReadSpecial(const Vocabulary& v, TokenizerSpec* spec) const {
  Token eot = -1, eom = -1, separator = -1, first = -1;
  SNUG_TRY(ReadId(v, "tokenizer.ggml.bos_token_id", &spec->bos));
  SNUG_TRY(ReadId(v, "tokenizer.ggml.eos_token_id", &spec->eos));
  SNUG_TRY(ReadId(v, "tokenizer.ggml.eot_token_id", &eot));
  SNUG_TRY(ReadId(v, "tokenizer.ggml.eom_token_id", &eom));
  SNUG_TRY(ReadId(v, "tokenizer.ggml.seperator_token_id", &separator));  // the format's spelling
  SNUG_TRY(ReadId(v, "tokenizer.ggml.cls_token_id", &first));
  SNUG_TRY(ReadEnds(file_, v, &spec->ends));
  for (const Token id : {eot, eom})
    if (id >= 0) spec->ends.push_back(id);
  const bool word_piece = kind_ == Kind::kWordPiece;
  if (spec->bos < 0 && word_piece) spec->bos = first;
  const auto flag = [&](const char* key, bool otherwise) {
    return file_.GetBool(key).value_or(otherwise);
  };
  const bool bos = kind_ == Kind::kByteLevel ? pre_.add_bos : kind_ != Kind::kUnigram;
  if (flag("tokenizer.ggml.add_bos_token", bos) && spec->bos >= 0) spec->before = {spec->bos};
  if (flag("tokenizer.ggml.add_eos_token", kind_ == Kind::kUnigram) && spec->eos >= 0)
    spec->after = {spec->eos};
  if (flag("tokenizer.ggml.add_sep_token", word_piece) && separator >= 0) spec->after = {separator};
  return {};
}

// Without an unknown token, every byte that valid UTF-8 can hold needs its token.
Status GgufVocabulary::CheckBytes(const Vocabulary& v, Token unknown) const {
  // Published byte-level vocabularies (Falcon's) lack some control bytes, which their own
  // tokenizers leave out of a text.
  if (unknown >= 0 || kind_ == Kind::kByteLevel) return {};
  const auto fallback = FindByteTokens(v);
  for (int byte = 0; byte < 256; ++byte) {
    if (byte >= 0xF5 || byte == 0xC0 || byte == 0xC1) continue;
    const std::string name = fmt::format("<0x{:02X}>", byte);
    if (fallback[static_cast<size_t>(byte)] >= 0) continue;
    return MakeError(Code::kBadFile,
                     fmt::format("{}: the vocabulary has no token \"{}\" for the byte 0x{:02X} and "
                                 "no unknown token",
                                 file_.path(), name, byte),
                     "convert the model again with its byte tokens",
                     {{"key", kTokens}, {"byte", std::to_string(byte)}});
  }
  return {};
}

Result<TokenizerSpec> GgufVocabulary::Spec(const Vocabulary& v) const {
  TokenizerSpec spec;
  SNUG_TRY(ReadSpecial(v, &spec));
  Token unknown = -1;
  SNUG_TRY(ReadId(v, "tokenizer.ggml.unknown_token_id", &unknown));
  for (Token id = 0; kind_ != Kind::kByteLevel && unknown < 0 && v.Contains(id); ++id)
    if (v.type(id) == TokenType::kUnknown) unknown = id;
  const bool prefix = file_.GetBool("tokenizer.ggml.add_space_prefix").value_or(true);
  spec.decode.replace = {NormalStep::Replace(kSpaceMark, " ")};
  switch (kind_) {
    case Kind::kByteLevel:
      SNUG_TRY(CheckBytes(v, unknown));
      spec.cuts = pre_.steps;
      spec.bpe = {true, false, pre_.whole_words, false, false, unknown};
      spec.decode = {};
      spec.decode.bytes = true;
      break;
    case Kind::kSentencePiece: {
      SNUG_TRY(CheckBytes(v, unknown));
      NormalStep first{NormalStep::Kind::kPrepend};
      first.to = kSpaceMark;
      if (prefix) spec.normalizer.push_back(first);
      spec.normalizer.push_back(NormalStep::Replace(" ", kSpaceMark));
      spec.bpe = {false, true, false, true, false, unknown};
      spec.decode.byte_tokens = true;
      spec.decode.strip_space = prefix;
      break;
    }
    case Kind::kUnigram: {
      spec.model = WordModelKind::kUnigram;
      NormalStep words{NormalStep::Kind::kWords};
      words.to = kSpaceMark;
      words.prefix = prefix;
      words.merge = file_.GetBool("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
      if (shape_.charsmap_bytes != 0) spec.normalizer.push_back({NormalStep::Kind::kCharsmap});
      spec.normalizer.push_back(words);
      spec.unigram.user_defined_score_zero = true;
      spec.unigram.unknown = unknown >= 0 ? unknown : 2;
      if (!v.Contains(spec.unigram.unknown)) return Bad(kTokens, "has no unknown token");
      spec.decode.strip_space = prefix;
      break;
    }
    case Kind::kWordPiece:
      spec.model = WordModelKind::kWordPiece;
      spec.normalizer.push_back({NormalStep::Kind::kBert});
      spec.cuts = {{Cut::kSpace, Keep::kRemoved}, {Cut::kPunctuation}};
      spec.word_piece.first = kSpaceMark;
      spec.word_piece.unknown = unknown;
      if (unknown < 0) return Bad(kTokens, "has no unknown token");
      spec.decode = {};
      spec.decode.words = true;
      spec.decode.outer = kSpaceMark;
      spec.decode.cleanup = spec.decode.strip_space = true;
      break;
  }
  return spec;
}

}  // namespace snug
