#include "text/sentencepiece_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "base/json.h"
#include "text/charsmap.h"
#include "text/special_ids.h"

namespace snug {
namespace {

constexpr uint64_t kMaxConfig = 16 << 20;  // bytes of a file beside the model
constexpr uint64_t kMaxAdded = 1 << 16;    // tokens
constexpr size_t kMaxAddedText = 255;      // bytes, as whole tokens are looked for

// A file seen through a window.
class Window {
 public:
  explicit Window(const File& file) : file_(file), bytes_(kBytes) {}
  uint64_t size() const { return file_.size(); }
  // `n` bytes at `offset`, at most kBytes of them; null where the file ends or cannot be read.
  const uint8_t* At(uint64_t offset, uint64_t n) {
    if (offset > file_.size() || n > file_.size() - offset || n > kBytes) return nullptr;
    if (offset < start_ || offset + n > start_ + fill_) {
      start_ = offset;
      fill_ = std::min<uint64_t>(kBytes, file_.size() - offset);
      if (!file_.ReadAt(start_, bytes_.data(), fill_).ok()) {
        fill_ = 0;
        return nullptr;
      }
    }
    return bytes_.data() + (offset - start_);
  }

 private:
  static constexpr uint64_t kBytes = 128 << 10;
  const File& file_;
  std::vector<uint8_t> bytes_;
  uint64_t start_ = 0, fill_ = 0;
};

struct Field {
  uint32_t number = 0;
  uint32_t wire = 0;
  uint64_t value = 0;   // of numbers
  uint64_t offset = 0;  // of what has a length
  uint64_t bytes = 0;
  float AsFloat() const { return std::bit_cast<float>(static_cast<uint32_t>(value)); }
  int64_t AsInt() const { return static_cast<int32_t>(static_cast<uint32_t>(value)); }
};

bool ReadVarint(Window* window, uint64_t* at, uint64_t end, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64 && *at < end; shift += 7) {
    const uint8_t* byte = window->At((*at)++, 1);
    if (byte == nullptr) return false;
    *value |= uint64_t{*byte & 0x7Fu} << shift;
    if (*byte < 0x80) return true;
  }
  return false;
}

// Calls field(Field) for those of the message in [at, end); false where it is malformed, or once
// field returns false.
template <class Fn>
bool ForEachField(Window* window, uint64_t at, uint64_t end, const Fn& field) {
  while (at < end) {
    Field f;
    uint64_t key = 0;
    if (!ReadVarint(window, &at, end, &key)) return false;
    f.number = static_cast<uint32_t>(key >> 3);
    f.wire = key & 7;
    if (f.wire == 0) {
      if (!ReadVarint(window, &at, end, &f.value)) return false;
    } else if (f.wire == 1 || f.wire == 5) {
      const uint64_t n = f.wire == 1 ? 8 : 4;
      const uint8_t* bytes = n <= end - at ? window->At(at, n) : nullptr;
      if (bytes == nullptr) return false;
      std::memcpy(&f.value, bytes, n);
      at += n;
    } else if (f.wire == 2) {
      if (!ReadVarint(window, &at, end, &f.bytes) || f.bytes > end - at) return false;
      f.offset = at;
      at += f.bytes;
    } else {
      return false;
    }
    if (!field(f)) return false;
  }
  return true;
}

// ModelProto.pieces, .trainer_spec, .normalizer_spec
constexpr uint32_t kPiecesField = 1, kTrainerField = 2, kNormalizerField = 3;

struct StoredPiece {
  std::string_view text;  // within the window, until the next read
  float score = 0;
  uint64_t type = 1;  // numbered as in tokenizer.ggml.token_type
};

bool ReadPiece(Window* window, const Field& message, StoredPiece* piece) {
  *piece = {};
  uint64_t offset = 0, bytes = 0;
  if (message.bytes > Vocabulary::kMaxText ||
      !ForEachField(window, message.offset, message.offset + message.bytes, [&](const Field& f) {
        if (f.number == 1 && f.wire == 2) {
          offset = f.offset;
          bytes = f.bytes;
        }
        if (f.number == 2 && f.wire == 5) piece->score = f.AsFloat();
        if (f.number == 3 && f.wire == 0) piece->type = f.value;
        return true;
      }))
    return false;
  if (bytes == 0) return true;
  const uint8_t* text = window->At(offset, bytes);
  if (text == nullptr) return false;
  piece->text = {reinterpret_cast<const char*>(text), bytes};
  return true;
}

}  // namespace

Error SentencePieceVocabulary::Bad(const std::string& what) const {
  return MakeError(Code::kBadFile, fmt::format("{}: {}", file_.path(), what),
                   "the tokenizer is damaged or not supported: download it again",
                   {{"file", file_.path()}});
}

Result<SentencePieceVocabulary> SentencePieceVocabulary::Open(const std::string& path,
                                                              const ModelFile* metadata) {
  SentencePieceVocabulary v;
  v.metadata_ = metadata;
  SNUG_ASSIGN(v.file_, File::Open(path));
  SNUG_TRY(v.Scan());
  SNUG_TRY(v.ScanAdded());
  return v;
}

Status SentencePieceVocabulary::Scan() {
  Window window(file_);
  const auto within = [&](const Field& message, const auto& field) {
    return ForEachField(&window, message.offset, message.offset + message.bytes, field);
  };
  const bool ok = ForEachField(&window, 0, file_.size(), [&](const Field& f) {
    if (f.wire != 2) return true;
    if (f.number == kPiecesField) {
      StoredPiece piece;
      if (!ReadPiece(&window, f, &piece)) return false;
      ++pieces_;
      shape_.text_bytes += piece.text.size();
      return true;
    }
    if (f.number == kTrainerField) {
      return within(f, [&](const Field& t) {
        if (t.number == 3) model_type_ = t.value;
        if (t.number == 24) space_as_suffix_ = t.value != 0;
        if (t.number == 35) byte_fallback_ = t.value != 0;
        if (t.number == 40) unknown_ = t.AsInt();
        if (t.number == 41) bos_ = t.AsInt();
        if (t.number == 42) eos_ = t.AsInt();
        return true;
      });
    }
    if (f.number != kNormalizerField) return true;
    return within(f, [&](const Field& n) {
      if (n.number == 2 && n.wire == 2) {
        charsmap_at_ = n.offset;
        shape_.charsmap_bytes = n.bytes;
      }
      if (n.number == 3) space_prefix_ = n.value != 0;
      if (n.number == 4) merge_spaces_ = n.value != 0;
      if (n.number == 5) mark_spaces_ = n.value != 0;
      return true;
    });
  });
  if (!ok) return Bad("no SentencePiece model, or cut short");
  if (model_type_ != 1 && model_type_ != 2)
    return Bad(
        fmt::format("model_type {} is not supported; unigram (1) and BPE (2) are", model_type_));
  shape_.tokens = pieces_;
  shape_.joins = true;
  shape_.scores = shape_.prefixes = model_type_ == 1;
  shape_.priorities = model_type_ == 2;
  return {};
}

Status SentencePieceVocabulary::Add(int64_t id, const std::string& text, bool special,
                                    const WholeFlags& flags) {
  if (id < 0 || id >= static_cast<int64_t>(pieces_ + kMaxAdded) || added_.size() >= kMaxAdded)
    return Bad(fmt::format("the added token {} in a vocabulary of {}", id, pieces_));
  if (text.empty() || text.size() > kMaxAddedText)
    return Bad(fmt::format("the added token {} has {} bytes; 1 to {} are supported", id,
                           text.size(), kMaxAddedText));
  added_.push_back({id, text, special, flags});
  if (id < static_cast<int64_t>(pieces_)) return {};
  shape_.tokens = std::max(shape_.tokens, static_cast<uint64_t>(id) + 1);
  shape_.text_bytes += text.size();
  return {};
}

Status SentencePieceVocabulary::ScanAdded() {
  const std::filesystem::path folder = std::filesystem::path(file_.path()).parent_path();
  const auto read = [&](const char* name) -> Result<Json> {
    const std::string path = (folder / name).string();
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return Json::object();
    SNUG_ASSIGN(const std::string text, ReadWholeFile(path, kMaxConfig));
    SNUG_ASSIGN(Json json, ParseJson(text, path));
    return json.is_object() ? std::move(json) : Json::object();
  };
  SNUG_ASSIGN(const Json config, read("tokenizer_config.json"));
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder != config.end() && decoder->is_object() && !decoder->empty()) {
    for (const auto& item : decoder->items()) {
      const std::string& key = item.key();
      const Json& token = item.value();
      int64_t id = -1;
      const char* end = key.data() + key.size();
      const auto parsed = std::from_chars(key.data(), end, id);
      const auto flag = [&](const char* name) {
        const auto it = token.find(name);
        return it != token.end() && it->is_boolean() && it->get<bool>();
      };
      if (parsed.ec != std::errc() || parsed.ptr != end || !token.is_object() ||
          !token.contains("content") || !token["content"].is_string())
        return Bad(fmt::format("added_tokens_decoder[\"{}\"] is no token", key));
      SNUG_TRY(Add(id, token["content"].get<std::string>(), flag("special"),
                   {flag("lstrip"), flag("rstrip"), flag("single_word"), false}));
    }
    return {};
  }
  SNUG_ASSIGN(const Json tokens, read("added_tokens.json"));
  for (const auto& [text, id] : tokens.items()) {
    if (!id.is_number_integer()) return Bad(fmt::format("added_tokens.json: no id of {}", text));
    SNUG_TRY(Add(id.get<int64_t>(), text, true, {}));
  }
  return {};
}

Status SentencePieceVocabulary::FillAdded(Vocabulary* v) const {
  for (const Added& a : added_) {
    const auto id = static_cast<Token>(a.id);
    if (v->HasText(id)) {
      if (v->text(id) != a.text)
        return Bad(fmt::format("the added token {} has the id of another", id));
      // Others that the vocabulary has already stay what they are there.
      if (a.special && v->type(id) != TokenType::kUnknown)
        v->SetType(id, TokenType::kControl, a.flags);
    } else if (v->AddToken(id, a.text)) {
      v->SetType(id, a.special ? TokenType::kControl : TokenType::kUserDefined, a.flags);
    } else {
      return Bad(fmt::format("the added token {} has the text of another", id));
    }
  }
  return {};
}

Status SentencePieceVocabulary::Fill(Vocabulary* v) const {
  Window window(file_);
  Token id = 0, twice = -1;
  const bool ok = ForEachField(&window, 0, file_.size(), [&](const Field& f) {
    if (f.number != kPiecesField || f.wire != 2) return true;
    StoredPiece piece;
    if (!ReadPiece(&window, f, &piece)) return false;
    if (piece.type >= 1 && piece.type <= 6) {
      WholeFlags flags;  // user-defined pieces lie in the normalized text
      flags.normalized = piece.type == static_cast<uint64_t>(TokenType::kUserDefined);
      v->SetType(id, static_cast<TokenType>(piece.type), flags);
    }
    v->SetScore(id, piece.score);
    if (!v->AddToken(id, piece.text) || piece.text.empty()) twice = id;
    ++id;
    return true;
  });
  if (!ok || id != static_cast<Token>(pieces_)) return Bad("changed while it was read");
  if (twice >= 0) return Bad(fmt::format("piece {} has no text, or that of another", twice));
  SNUG_TRY(FillAdded(v));
  if (shape_.charsmap_bytes == 0) return {};
  SNUG_TRY(file_.ReadAt(charsmap_at_, v->charsmap(), shape_.charsmap_bytes));
  if (!Charsmap::Parse(v->charsmap(), v->charsmap_bytes()))
    return Bad("precompiled_charsmap is no table of rules");
  return {};
}

Result<TokenizerSpec> SentencePieceVocabulary::Spec(const Vocabulary& v) const {
  TokenizerSpec spec;
  const auto token = [&](int64_t id) {
    return id >= 0 && id < static_cast<int64_t>(v.size()) ? static_cast<Token>(id) : -1;
  };
  spec.bos = token(bos_);
  spec.eos = token(eos_);
  Token unknown = token(unknown_);
  if (unknown < 0 || v.type(unknown) != TokenType::kUnknown) {
    unknown = 0;
    while (v.Contains(unknown) && v.type(unknown) != TokenType::kUnknown) ++unknown;
  }
  if (!v.Contains(unknown)) return Bad("has no unknown token");
  const bool bpe = model_type_ == 2;
  const std::string space = mark_spaces_ ? kSpaceMark : " ";
  if (shape_.charsmap_bytes != 0) spec.normalizer.push_back({NormalStep::Kind::kCharsmap});
  NormalStep spaces{NormalStep::Kind::kSpaces};
  spaces.to = space;
  spaces.prefix = space_prefix_ && !space_as_suffix_;
  spaces.suffix = space_prefix_ && space_as_suffix_;
  spaces.merge = merge_spaces_;
  spec.normalizer.push_back(spaces);
  spec.decode.replace = {NormalStep::Replace(kSpaceMark, " ")};
  spec.decode.byte_tokens = byte_fallback_;
  spec.decode.strip_space = spaces.prefix || spaces.merge;
  if (bpe) {
    spec.bpe = {false, true, false, byte_fallback_, true, unknown};
    if (spec.bos >= 0) spec.before = {spec.bos};
  } else {
    spec.model = WordModelKind::kUnigram;
    spec.unigram.byte_fallback = byte_fallback_;
    spec.unigram.single_precision = true;
    spec.unigram.unused_pieces = false;
    spec.unigram.unknown = unknown;
    if (spec.eos >= 0) spec.after = {spec.eos};
  }
  if (metadata_ != nullptr) SNUG_TRY(ReadSpecialIds(*metadata_, v, &spec));
  return spec;
}

}  // namespace snug
