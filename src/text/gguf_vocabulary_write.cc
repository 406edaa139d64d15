#include "text/gguf_vocabulary_write.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/json_vocabulary.h"
#include "text/sentencepiece_vocabulary.h"

namespace snug {
namespace {

constexpr uint64_t kMaxRows = 1 << 24;

Error Unsayable(const ModelFile& folder, const std::string& what) {
  return MakeError(Code::kUsage, fmt::format("{}: GGUF has no words for {}", folder.path(), what),
                   "run the folder as it is", {{"path", folder.path()}});
}

class Writer {
 public:
  Writer(const ModelFile& folder, const Vocabulary& v, const TokenizerSpec& spec, uint64_t rows,
         GgufHeader* header)
      : folder_(folder), v_(v), spec_(spec), header_(*header) {
    tokens_ = static_cast<uint32_t>(std::max<uint64_t>(v.size(), std::min(rows, kMaxRows)));
  }

  Status Write() {
    switch (spec_.model) {
      case WordModelKind::kBpe:
        SNUG_TRY(spec_.bpe.bytes ? ByteLevel() : SentencePiece());
        break;
      case WordModelKind::kWordPiece:
        SNUG_TRY(WordPiece());
        break;
      case WordModelKind::kUnigram:
        return Unsayable(folder_, "this unigram vocabulary");
    }
    Special();
    return {};
  }

 private:
  Status ByteLevel() {
    const bool composed =
        spec_.normalizer.empty() ||
        (spec_.normalizer.size() == 1 && spec_.normalizer[0].kind == NormalStep::Kind::kForm &&
         spec_.normalizer[0].form == NormalForm::kNfc);
    if (!composed) return Unsayable(folder_, "the tokenizer's normalizer");
    const auto pre = PreTokenizerName(spec_.cuts, spec_.bpe.whole_words);
    if (!pre) return Unsayable(folder_, "the tokenizer's pre_tokenizer");
    header_.AddString("tokenizer.ggml.model", "gpt2");
    header_.AddString("tokenizer.ggml.pre", *pre);
    AddTokens([&](Token id) { return std::string(v_.text(id)); });
    std::vector<std::string> merges;
    merges.reserve(v_.merges());
    for (uint32_t r = 0; r < v_.merges(); ++r) {
      const Vocabulary::Pair& m = v_.merge(r);
      merges.push_back(fmt::format("{} {}", v_.text(m.left), v_.text(m.right)));
    }
    header_.AddStrings("tokenizer.ggml.merges", merges);
    return {};
  }

  // Whether a space goes before a text; nullopt where spaces are treated in some other way.
  std::optional<bool> SpacePrefix() const {
    bool prefix = false, marked = false;
    for (const NormalStep& s : spec_.normalizer) {
      if (s.kind == NormalStep::Kind::kPrepend && s.to == kSpaceMark) {
        prefix = true;
      } else if (s.kind == NormalStep::Kind::kReplace && s.from == " " && s.to == kSpaceMark) {
        marked = true;
      } else if ((s.kind == NormalStep::Kind::kWords || s.kind == NormalStep::Kind::kSpaces) &&
                 s.to == kSpaceMark && !s.suffix && !s.merge) {
        prefix = s.prefix;
        marked = true;
      } else {
        return std::nullopt;
      }
    }
    for (const CutStep& c : spec_.cuts) {
      const bool mark = c.text == kSpaceMark && !marked;
      if (mark && (c.cut == Cut::kMetaspaceFirst || c.cut == Cut::kMetaspaceAlways)) {
        prefix = marked = true;
      } else if (mark && c.cut == Cut::kMetaspaceNever) {
        marked = true;
      } else if (!(c.cut == Cut::kText && c.text == " " && marked)) {  // which finds no more spaces
        return std::nullopt;
      }
    }
    return marked ? std::optional(prefix) : std::nullopt;
  }

  Status SentencePiece() {
    const auto prefix = SpacePrefix();
    if (!prefix) return Unsayable(folder_, "the tokenizer's treatment of spaces");
    std::vector<float> scores(tokens_);
    if (v_.merges() != 0) {
      SNUG_TRY(ScoresOfMerges(&scores));
    } else {
      for (Token id = 0; v_.Contains(id); ++id)
        scores[static_cast<size_t>(id)] = v_.PriorityScore(id);
    }
    header_.AddString("tokenizer.ggml.model", "llama");
    header_.AddString("tokenizer.ggml.pre", "default");
    AddTokens([&](Token id) {
      std::string text;
      const bool found = v_.type(id) == TokenType::kUserDefined;
      ReplaceAll(v_.text(id), kSpaceMark, found ? " " : kSpaceMark, &text);
      return text;
    });
    header_.AddFloats("tokenizer.ggml.scores", scores);
    header_.AddBool("tokenizer.ggml.add_space_prefix", *prefix);
    AddId("tokenizer.ggml.unknown_token_id", spec_.bpe.unknown);
    return {};
  }

  // Merges go by rank, GGUF's by the score of what they become: the same order where all merges
  // into one token are neighbours.
  Status ScoresOfMerges(std::vector<float>* scores) const {
    Token last = -1;
    for (uint32_t r = 0; r < v_.merges(); ++r) {
      const Token result = v_.merge(r).result;
      if (result < 0 || result == last) continue;
      float& score = (*scores)[static_cast<size_t>(result)];
      if (score != 0) return Unsayable(folder_, "an order of merges that is none of tokens");
      score = -1 - static_cast<float>(r);
      last = result;
    }
    return {};
  }

  Status WordPiece() {
    const bool bert = spec_.normalizer.size() == 1 &&
                      spec_.normalizer[0].kind == NormalStep::Kind::kBert &&
                      spec_.normalizer[0].lower && spec_.normalizer[0].accents;
    if (!bert || spec_.word_piece.next != "##")
      return Unsayable(folder_, "a WordPiece tokenizer that is not lower-case BERT's");
    header_.AddString("tokenizer.ggml.model", "bert");
    header_.AddString("tokenizer.ggml.pre", "default");
    AddTokens([&](Token id) {
      std::string text(v_.text(id));
      if (v_.type(id) != TokenType::kNormal) return text;
      return text.starts_with("##") ? text.substr(2) : kSpaceMark + text;
    });
    AddId("tokenizer.ggml.unknown_token_id", spec_.word_piece.unknown);
    AddId("tokenizer.ggml.cls_token_id", spec_.before.empty() ? -1 : spec_.before.front());
    AddId("tokenizer.ggml.seperator_token_id", spec_.after.empty() ? -1 : spec_.after.back());
    return {};
  }

  template <class Text>
  void AddTokens(const Text& text_of) {
    const Token unknown = spec_.bpe.unknown;
    std::vector<std::string> texts(tokens_);
    std::vector<int32_t> types(tokens_, static_cast<int32_t>(TokenType::kUnused));
    for (uint32_t i = 0; i < tokens_; ++i) {
      const auto id = static_cast<Token>(i);
      if (!v_.HasText(id)) {
        texts[i] = fmt::format("[PAD{}]", i);
        continue;
      }
      texts[i] = text_of(id);
      types[i] = static_cast<int32_t>(id == unknown && !spec_.bpe.bytes ? TokenType::kUnknown
                                                                        : v_.type(id));
    }
    header_.AddStrings("tokenizer.ggml.tokens", texts);
    header_.AddInts("tokenizer.ggml.token_type", types);
  }

  void AddId(const char* key, Token id) {
    if (id >= 0 && !folder_.Has(key)) header_.AddUint(key, static_cast<uint32_t>(id));
  }

  void Special() {
    AddId("tokenizer.ggml.bos_token_id", spec_.bos);
    AddId("tokenizer.ggml.eos_token_id", spec_.eos);
    const auto flag = [&](const char* key, Token id, const std::vector<Token>& around) {
      if (!folder_.Has(key))
        header_.AddBool(key, std::find(around.begin(), around.end(), id) != around.end());
    };
    if (spec_.model == WordModelKind::kWordPiece) return;
    flag("tokenizer.ggml.add_bos_token", spec_.bos, spec_.before);
    flag("tokenizer.ggml.add_eos_token", spec_.eos, spec_.after);
  }

  const ModelFile& folder_;
  const Vocabulary& v_;
  const TokenizerSpec& spec_;
  GgufHeader& header_;
  uint32_t tokens_ = 0;
};

template <class Source>
Status AddFrom(const Source& source, const ModelFile& folder, uint64_t rows, Ledger& ledger,
               GgufHeader* header) {
  SNUG_ASSIGN(const Vocabulary vocabulary, Vocabulary::Load(source, ledger));
  SNUG_ASSIGN(const TokenizerSpec spec, source.Spec(vocabulary));
  return Writer(folder, vocabulary, spec, rows, header).Write();
}

}  // namespace

Status AddTokenizerKeys(const ModelFile& folder, uint64_t rows, Ledger& ledger,
                        GgufHeader* header) {
  if (folder.tokenizer_json()) {
    SNUG_ASSIGN(const auto source, JsonVocabulary::Open(*folder.tokenizer_json(), &folder));
    return AddFrom(source, folder, rows, ledger, header);
  }
  if (folder.tokenizer_model()) {
    SNUG_ASSIGN(const auto source,
                SentencePieceVocabulary::Open(*folder.tokenizer_model(), &folder));
    return AddFrom(source, folder, rows, ledger, header);
  }
  return MakeError(Code::kBadFile,
                   fmt::format("{} has neither tokenizer.json nor tokenizer.model", folder.path()),
                   "download the folder's tokenizer too", {{"path", folder.path()}});
}

}  // namespace snug
