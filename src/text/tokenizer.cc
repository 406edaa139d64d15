#include "text/tokenizer.h"

#include <algorithm>

#include "text/gguf_vocabulary.h"
#include "text/json_vocabulary.h"
#include "text/sentencepiece_vocabulary.h"
#include "text/text_tokenizer.h"

namespace snug {
namespace {

template <class Source>
Result<std::unique_ptr<Tokenizer>> LoadFrom(const Source& source, Ledger& ledger) {
  SNUG_ASSIGN(Vocabulary vocabulary, Vocabulary::Load(source, ledger));
  SNUG_ASSIGN(TokenizerSpec spec, source.Spec(vocabulary));
  return std::unique_ptr<Tokenizer>(
      std::make_unique<TextTokenizer>(std::move(vocabulary), std::move(spec)));
}

}  // namespace

Result<uint64_t> Tokenizer::PlannedBytes(const ModelFile& file) {
  if (file.tokenizer_json()) return PlannedBytesJson(*file.tokenizer_json());
  if (file.tokenizer_model()) {
    SNUG_ASSIGN(const auto source, SentencePieceVocabulary::Open(*file.tokenizer_model(), &file));
    return Vocabulary::PlannedBytes(source.shape());
  }
  SNUG_ASSIGN(const GgufVocabulary source, GgufVocabulary::Open(file));
  return Vocabulary::PlannedBytes(source.shape());
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const ModelFile& file, Ledger& ledger) {
  if (file.tokenizer_json()) {
    SNUG_ASSIGN(const JsonVocabulary source, JsonVocabulary::Open(*file.tokenizer_json(), &file));
    return LoadFrom(source, ledger);
  }
  if (file.tokenizer_model()) {
    SNUG_ASSIGN(const auto source, SentencePieceVocabulary::Open(*file.tokenizer_model(), &file));
    return LoadFrom(source, ledger);
  }
  SNUG_ASSIGN(const GgufVocabulary source, GgufVocabulary::Open(file));
  return LoadFrom(source, ledger);
}

Result<uint64_t> Tokenizer::PlannedBytesJson(const std::string& path) {
  SNUG_ASSIGN(const JsonVocabulary source, JsonVocabulary::Open(path, nullptr));
  return Vocabulary::PlannedBytes(source.shape());
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::LoadJson(const std::string& path, Ledger& ledger) {
  SNUG_ASSIGN(const JsonVocabulary source, JsonVocabulary::Open(path, nullptr));
  return LoadFrom(source, ledger);
}

Result<uint64_t> Tokenizer::PlannedBytesSentencePiece(const std::string& path) {
  SNUG_ASSIGN(const auto source, SentencePieceVocabulary::Open(path, nullptr));
  return Vocabulary::PlannedBytes(source.shape());
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::LoadSentencePiece(const std::string& path,
                                                                Ledger& ledger) {
  SNUG_ASSIGN(const auto source, SentencePieceVocabulary::Open(path, nullptr));
  return LoadFrom(source, ledger);
}

bool Tokenizer::IsEndOfGeneration(Token token) const {
  return std::find(end_.begin(), end_.end(), token) != end_.end();
}

}  // namespace snug
