#include "text/json_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "text/special_ids.h"

namespace snug {
namespace {

constexpr size_t kMaxPart = 256 << 10;    // bytes of a part such as the pre_tokenizer
constexpr size_t kMaxPartText = 8 << 10;  // of a text within; a charsmap is longer, and stays away
constexpr size_t kMaxName = 1 << 10;      // of keys
constexpr uint64_t kMaxAliasTexts = 1 << 20;

// Decodes base64 as it comes.
class Base64 {
 public:
  Base64(uint8_t* out, uint64_t size) : out_(out), size_(size) {}
  bool Add(std::string_view text) {
    for (const char c : text) {
      if (c == '=') continue;
      const int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                        : c >= 'a' && c <= 'z' ? c - 'a' + 26
                        : c >= '0' && c <= '9' ? c - '0' + 52
                        : c == '+'             ? 62
                        : c == '/'             ? 63
                                               : -1;
      if (digit < 0) return false;
      bits_ = bits_ << 6 | static_cast<uint32_t>(digit);
      if ((n_bits_ += 6) < 8) continue;
      n_bits_ -= 8;
      if (n_ == size_) return false;
      out_[n_++] = static_cast<uint8_t>(bits_ >> n_bits_);
    }
    return true;
  }

 private:
  uint8_t* out_;
  uint64_t size_, n_ = 0;
  uint32_t bits_ = 0;
  int n_bits_ = 0;
};

uint64_t Base64Digits(std::string_view text) {
  return text.size() - static_cast<size_t>(std::count(text.begin(), text.end(), '='));
}

}  // namespace

Error JsonVocabulary::Bad(const std::string& what) const {
  return MakeError(Code::kBadFile, fmt::format("{}: {}", path_, what),
                   "the tokenizer is damaged or not supported: download it again, or convert the "
                   "model to GGUF",
                   {{"file", path_}});
}

Result<JsonVocabulary> JsonVocabulary::Open(const std::string& path, const ModelFile* metadata) {
  JsonVocabulary v;
  v.metadata_ = metadata;
  v.path_ = path;
  SNUG_ASSIGN(v.file_, File::Open(path));
  SNUG_TRY(v.Scan());
  SNUG_TRY(v.ReadParts());
  SNUG_TRY(v.Choose());
  return v;
}

Status JsonVocabulary::Scan() {
  JsonReader reader(file_);
  const bool ok = reader.Object(kMaxName, [&](std::string_view key) {
    const auto part = [&](std::string* text) {
      text->clear();
      return reader.Copy(kMaxPart, kMaxPartText, text);
    };
    if (key == "added_tokens") return ScanAdded(&reader);
    if (key == "model") return ScanModel(&reader);
    if (key == "normalizer") return part(&normalizer_);
    if (key == "pre_tokenizer") return part(&pre_tokenizer_);
    if (key == "post_processor") return part(&post_processor_);
    if (key == "decoder") return part(&decoder_);
    return reader.Skip();
  });
  if (!ok || !reader.AtEnd()) return reader.TakeError();
  if (!vocab_at_) return Bad("there is no model.vocab");
  return {};
}

bool JsonVocabulary::ReadFlag(JsonReader* reader, bool* flag) const {
  const auto value = reader->Bool();
  if (value) *flag = *value;
  return value.has_value();
}

bool JsonVocabulary::ReadText(JsonReader* reader, std::optional<std::string>* text) const {
  const auto value = reader->String(Vocabulary::kMaxText);
  if (value) *text = std::string(*value);
  return value.has_value();
}

bool JsonVocabulary::ScanModel(JsonReader* reader) {
  if (vocab_at_) return reader->Fail("a second model");
  return reader->Object(kMaxName, [&](std::string_view key) {
    const auto kind = reader->Peek();
    if (!kind) return false;
    if (*kind == JsonKind::kNull) return reader->Skip();
    if (key == "vocab") return ScanVocab(reader);
    if (key == "merges") {
      if (merges_at_) return reader->Fail("merges twice");
      merges_at_ = reader->offset();
      return reader->Array([&] {
        ++shape_.merges;
        return reader->Skip();
      });
    }
    if (key == "type") return ReadText(reader, &type_);
    if (key == "unk_token") return ReadText(reader, &unknown_);
    if (key == "continuing_subword_prefix") return ReadText(reader, &subword_prefix_);
    if (key == "end_of_word_suffix") return ReadText(reader, &word_suffix_);
    if (key == "byte_fallback") return ReadFlag(reader, &byte_fallback_);
    if (key == "fuse_unk") return ReadFlag(reader, &fuse_unknown_);
    if (key == "ignore_merges") return ReadFlag(reader, &whole_words_);
    if (key == "unk_id") return (unknown_id_ = reader->Integer()).has_value();
    if (key == "max_input_chars_per_word") return (max_chars_ = reader->Integer()).has_value();
    if (key == "dropout") {
      const auto value = reader->Number();
      dropout_ = value && *value > 0;
      return value.has_value();
    }
    return reader->Skip();
  });
}

bool JsonVocabulary::ScanVocab(JsonReader* reader) {
  if (vocab_at_) return reader->Fail("vocab twice");
  vocab_at_ = reader->offset();
  vocab_is_list_ = reader->Peek() == JsonKind::kArray;
  const auto note = [&](size_t bytes, int64_t id) {
    ++vocab_entries_;
    vocab_bytes_ += bytes;
    last_id_ = std::max(last_id_, id);
    return id >= 0 || reader->Fail(fmt::format("the token id {}", id));
  };
  if (!vocab_is_list_) {
    return reader->Object(Vocabulary::kMaxText, [&](std::string_view text) {
      const auto id = reader->Integer();
      return id && note(text.size(), *id);
    });
  }
  return reader->Array([&] {  // [text, score] each
    int n = 0;
    return reader->Array([&] {
      if (++n == 1) {
        const auto text = reader->String(Vocabulary::kMaxText);
        return text && note(text->size(), static_cast<int64_t>(vocab_entries_));
      }
      return n == 2 ? reader->Number().has_value() : reader->Fail("more than a text and a score");
    });
  });
}

bool JsonVocabulary::ReadAdded(JsonReader* reader, Added* added) const {
  *added = {};
  return reader->Object(kMaxName, [&](std::string_view key) {
    if (key == "id") {
      const auto id = reader->Integer();
      added->id = id.value_or(-1);
      return id.has_value();
    }
    if (key == "content") {
      const auto text = reader->String(Vocabulary::kMaxText);
      if (text) added->text = std::string(*text);
      return text.has_value();
    }
    if (key == "special") return ReadFlag(reader, &added->special);
    if (key == "lstrip") return ReadFlag(reader, &added->flags.lstrip);
    if (key == "rstrip") return ReadFlag(reader, &added->flags.rstrip);
    if (key == "single_word") return ReadFlag(reader, &added->flags.single_word);
    if (key == "normalized") return ReadFlag(reader, &added->flags.normalized);
    return reader->Skip();
  });
}

bool JsonVocabulary::ScanAdded(JsonReader* reader) {
  if (added_at_) return reader->Fail("added_tokens twice");
  if (reader->Peek() == JsonKind::kNull) return reader->Skip();
  added_at_ = reader->offset();
  Added added;
  return reader->Array([&] {
    if (!ReadAdded(reader, &added)) return false;
    if (added.id < 0) return reader->Fail("an added token without an id");
    if (added.text.size() > 255)
      return reader->Fail(
          fmt::format("an added token of {} bytes; at most 255", added.text.size()));
    ++added_entries_;
    added_bytes_ += added.text.size();
    last_id_ = std::max(last_id_, added.id);
    if (added.flags.normalized) {
      ++normalized_entries_;
      normalized_bytes_ += added.text.size();
    }
    return true;
  });
}

Status JsonVocabulary::ReadParts() {
  const auto parse = [&](std::string* text, const char* name) -> Result<Json> {
    auto json = ParseJson(*text, fmt::format("{}: {}", path_, name));
    std::string().swap(*text);
    return json;
  };
  SNUG_ASSIGN(const Json normalizer, parse(&normalizer_, "normalizer"));
  SNUG_TRY(ReadNormalizer(path_, normalizer, &spec_.normalizer, &charsmap_));
  SNUG_ASSIGN(const Json pre_tokenizer, parse(&pre_tokenizer_, "pre_tokenizer"));
  SNUG_TRY(ReadPreTokenizer(path_, pre_tokenizer, &spec_.cuts));
  SNUG_ASSIGN(const Json post_processor, parse(&post_processor_, "post_processor"));
  SNUG_TRY(ReadPostProcessor(path_, post_processor, &before_, &after_));
  SNUG_ASSIGN(const Json decoder, parse(&decoder_, "decoder"));
  return ReadDecoder(path_, decoder, &spec_.decode);
}

Status JsonVocabulary::MeasureCharsmap() {
  if (!charsmap_) return {};
  uint64_t digits = Base64Digits(charsmap_->text);
  if (charsmap_->offset) {
    JsonReader reader(file_, *charsmap_->offset);
    if (!reader.StringPieces([&](std::string_view part) {
          digits += Base64Digits(part);
          return true;
        }))
      return reader.TakeError();
  }
  shape_.charsmap_bytes = digits / 4 * 3 + digits % 4 * 3 / 4;
  return {};
}

Status JsonVocabulary::Choose() {
  // Files before the type was written are told apart by what they have.
  std::string type = type_.value_or(merges_at_ ? "BPE" : vocab_is_list_ ? "Unigram" : "WordPiece");
  if (type == "BPE") {
    if (vocab_is_list_) return Bad("model.vocab is a list, not an object");
    if (dropout_) return Bad("model.dropout is not supported: tokens would be a matter of chance");
    for (const auto& [name, value] : {std::pair("continuing_subword_prefix", &subword_prefix_),
                                      std::pair("end_of_word_suffix", &word_suffix_)})
      if (*value && !(*value)->empty())
        return Bad(fmt::format("model.{} \"{}\" is not supported", name, **value));
    spec_.bpe = {false, false, whole_words_, byte_fallback_, fuse_unknown_, -1};
    // The last step's alphabet is left to the model, which starts from bytes.
    if (!spec_.cuts.empty() && spec_.cuts.back().cut == Cut::kByteAlphabet) {
      spec_.cuts.pop_back();
      spec_.bpe.bytes = true;
    }
    shape_.joins = !spec_.bpe.bytes;
  } else if (type == "Unigram") {
    if (!vocab_is_list_) return Bad("model.vocab is an object, not a list");
    spec_.model = WordModelKind::kUnigram;
    spec_.unigram.byte_fallback = byte_fallback_;
    spec_.unigram.special_pieces = true;
    shape_.scores = shape_.joins = shape_.prefixes = true;
  } else if (type == "WordPiece") {
    if (vocab_is_list_) return Bad("model.vocab is a list, not an object");
    spec_.model = WordModelKind::kWordPiece;
    spec_.word_piece.next = subword_prefix_.value_or("##");
    const int64_t most = max_chars_.value_or(100);
    if (most < 0 || most > 10000)
      return Bad(fmt::format("model.max_input_chars_per_word is {}; at most 10000", most));
    spec_.word_piece.max_chars = static_cast<uint32_t>(most);
    shape_.prefixes = true;
  } else {
    return Bad(
        fmt::format("model.type \"{}\" is not supported; BPE, Unigram and WordPiece are", type));
  }
  const uint64_t entries = vocab_entries_ + added_entries_;
  if (last_id_ >= static_cast<int64_t>(2 * entries + 65536))
    return Bad(fmt::format("the token id {} in a vocabulary of {}", last_id_, entries));
  shape_.tokens = static_cast<uint64_t>(last_id_ + 1);
  shape_.text_bytes = vocab_bytes_ + added_bytes_;
  if (!spec_.normalizer.empty() && normalized_entries_ != 0) {
    // Normalized texts of these tokens, which may be longer than their own.
    shape_.aliases = std::min(normalized_entries_, shape_.tokens);
    shape_.text_bytes += std::min(kMaxAliasTexts, 8 * normalized_bytes_ + 32 * shape_.aliases);
  }
  return MeasureCharsmap();
}

Status JsonVocabulary::Fill(Vocabulary* v) const {
  SNUG_TRY(FillTokens(v));
  SNUG_TRY(FillCharsmap(v));
  SNUG_TRY(FillAdded(v));
  return FillMerges(v);
}

Status JsonVocabulary::FillTokens(Vocabulary* v) const {
  JsonReader reader(file_, *vocab_at_);
  const auto add = [&](int64_t id, std::string_view text) {
    if (text.empty() || v->AddToken(static_cast<Token>(id), text)) return true;
    return reader.Fail(fmt::format("token {} has a text or an id that another has", id));
  };
  bool ok;
  if (vocab_is_list_) {
    int64_t next = 0;
    ok = reader.Array([&] {
      int n = 0;
      const int64_t id = next++;
      return reader.Array([&] {
        if (++n == 1) {
          const auto text = reader.String(Vocabulary::kMaxText);
          return text && add(id, *text);
        }
        const auto score = reader.Number();
        return score && v->SetScore(static_cast<Token>(id), *score);
      });
    });
  } else {
    ok = reader.Object(Vocabulary::kMaxText, [&](std::string_view text) {
      const auto id = reader.Integer();
      return id && add(*id, text);
    });
  }
  if (!ok) return reader.TakeError();
  if (!byte_fallback_ && !spec_.decode.byte_tokens) return {};
  for (int byte = 0; byte < 256; ++byte) {
    const Token id = v->Find(fmt::format("<0x{:02X}>", byte));
    if (id >= 0) v->SetType(id, TokenType::kByte);
  }
  return {};
}

Status JsonVocabulary::FillAdded(Vocabulary* v) const {
  if (!added_at_) return {};
  JsonReader reader(file_, *added_at_);
  std::optional<Charsmap> charsmap;
  if (charsmap_) charsmap = Charsmap::Parse(v->charsmap(), v->charsmap_bytes());
  std::string a, b;
  Added added;
  const bool ok = reader.Array([&] {
    if (!ReadAdded(&reader, &added)) return false;
    if (added.text.empty()) return true;
    // The vocabulary's id goes before the list's.
    auto id = static_cast<Token>(added.id);
    if (const Token known = v->Find(added.text); known >= 0) {
      id = known;
    } else if (!v->AddToken(id, added.text)) {
      return reader.Fail(fmt::format("the added token {} has the id of another text", id));
    }
    v->SetType(id, added.special ? TokenType::kControl : TokenType::kUserDefined, added.flags);
    if (!added.flags.normalized || shape_.aliases == 0) return true;
    const std::string_view normal =
        Normalize(spec_.normalizer, charsmap ? &*charsmap : nullptr, nullptr,
                  NormalizedRoom(added.text.size()), added.text, &a, &b);
    if (normal == added.text || v->Find(normal) >= 0) return true;
    if (normal.size() <= 255 && v->AddAlias(id, normal)) return true;
    return reader.Fail(fmt::format("the normalized text of the added token {} is too long", id));
  });
  if (!ok) return reader.TakeError();
  return {};
}

Status JsonVocabulary::FillCharsmap(Vocabulary* v) const {
  if (!charsmap_) return {};
  Base64 decoder(v->charsmap(), v->charsmap_bytes());
  bool ok = decoder.Add(charsmap_->text);
  if (charsmap_->offset) {
    JsonReader reader(file_, *charsmap_->offset);
    ok = reader.StringPieces([&](std::string_view part) { return decoder.Add(part); });
  }
  if (!ok || !Charsmap::Parse(v->charsmap(), v->charsmap_bytes()))
    return Bad("precompiled_charsmap is no table of rules");
  return {};
}

Status JsonVocabulary::FillMerges(Vocabulary* v) const {
  if (!merges_at_ || shape_.merges == 0) return {};
  JsonReader reader(file_, *merges_at_);
  uint64_t rank = 0;
  std::string left;
  const auto add = [&](std::string_view first, std::string_view second) {
    if (v->AddMerge(rank, first, second)) return true;
    return reader.Fail(fmt::format("merge {} is not of two tokens into one", rank));
  };
  const bool ok = reader.Array([&] {
    bool done = false;
    if (reader.Peek() == JsonKind::kString) {
      const auto line = reader.String(2 * Vocabulary::kMaxText);
      const size_t space = line ? line->find(' ') : std::string_view::npos;
      done = line && space != line->npos && add(line->substr(0, space), line->substr(space + 1));
      if (!done) return reader.Fail(fmt::format("merge {} is not two texts and a space", rank));
    } else {
      int n = 0;
      done = reader.Array([&] {
        const auto text = reader.String(Vocabulary::kMaxText);
        if (!text || ++n > 2) return false;
        if (n == 1) left = std::string(*text);
        return n == 1 || add(left, *text);
      });
      if (n != 2) return reader.Fail(fmt::format("merge {} is no pair of texts", rank));
    }
    ++rank;
    return done;
  });
  if (!ok) return reader.TakeError();
  return {};
}

Result<TokenizerSpec> JsonVocabulary::Spec(const Vocabulary& v) const {
  TokenizerSpec spec = spec_;
  Token unknown = -1;
  if (unknown_) {
    unknown = v.Find(*unknown_);
    if (unknown < 0 && spec.model == WordModelKind::kWordPiece)
      return Bad(fmt::format("model.unk_token \"{}\" is no token", *unknown_));
  }
  if (unknown_id_) {
    if (*unknown_id_ < 0 || *unknown_id_ >= static_cast<int64_t>(v.size()))
      return Bad(
          fmt::format("model.unk_id is {}, the vocabulary has {} tokens", *unknown_id_, v.size()));
    unknown = static_cast<Token>(*unknown_id_);
  }
  spec.bpe.unknown = spec.unigram.unknown = spec.word_piece.unknown = unknown;
  for (const auto& [ids, tokens] :
       {std::pair(&before_, &spec.before), std::pair(&after_, &spec.after)}) {
    for (const int64_t id : *ids) {
      if (id < 0 || id >= static_cast<int64_t>(v.size()))
        return Bad(
            fmt::format("post_processor adds token {}, the vocabulary has {}", id, v.size()));
      tokens->push_back(static_cast<Token>(id));
    }
  }
  if (!spec.before.empty()) spec.bos = spec.before.front();
  if (!spec.after.empty()) spec.eos = spec.after.back();
  if (metadata_ != nullptr) SNUG_TRY(ReadSpecialIds(*metadata_, v, &spec));
  return spec;
}

}  // namespace snug
