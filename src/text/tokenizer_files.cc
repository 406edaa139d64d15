#include "text/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/json.h"
#include "text/gguf_vocabulary.h"

namespace snug {
namespace {

constexpr char kTemplate[] = "tokenizer.chat_template";

std::string Quoted(std::string_view text) { return DumpJson(Json(std::string(text))); }

Error NotWritable(const ModelFile& file, const std::string& what) {
  return MakeError(Code::kUsage, fmt::format("{}: {} cannot be written", file.path(), what),
                   "keep the model as GGUF", {{"path", file.path()}});
}

bool IsAdded(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUserDefined ||
         type == TokenType::kUnknown;
}

// --- tokenizer.json

Result<Json> PreTokenizer(const ModelFile& file, const std::vector<CutStep>& cuts) {
  Json steps = Json::array();
  for (const CutStep& c : cuts) {
    const auto regex = ExpressionOf(c.cut);
    if (!regex) {
      return NotWritable(file, fmt::format("the pre-tokenizer \"{}\"",
                                           file.GetString("tokenizer.ggml.pre").value_or("")));
    }
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", *regex}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", false}});
  return Json{{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json PostProcessor(const Vocabulary& v, const TokenizerSpec& spec) {
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto add = [&](const std::vector<Token>& tokens, int type) {
    for (const Token id : tokens) {
      const std::string text(v.text(id));
      const Json item = {{"SpecialToken", {{"id", text}, {"type_id", type}}}};
      if (type == 0) single.push_back(item);
      pair.push_back(item);
      special[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    }
  };
  add(spec.before, 0);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back(single.back());
  add(spec.after, 0);
  add(spec.before, 1);
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  add(spec.after, 1);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special}};
}

// Written as text: as objects the vocabulary would take many times its size.
Result<std::string> TokenizerJson(const ModelFile& file, const Vocabulary& v,
                                  const TokenizerSpec& spec) {
  SNUG_ASSIGN(const Json pre_tokenizer, PreTokenizer(file, spec.cuts));
  std::string out = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)";
  bool first = true;
  for (Token id = 0; v.Contains(id); ++id) {
    if (!v.HasText(id) || !IsAdded(v.type(id))) continue;
    out += fmt::format(
        R"({}{{"id":{},"content":{},"single_word":false,"lstrip":false,"rstrip":false,)"
        R"("normalized":false,"special":{}}})",
        first ? "" : ",", id, Quoted(v.text(id)), v.type(id) != TokenType::kUserDefined);
    first = false;
  }
  const Json decoder = {{"type", "ByteLevel"},
                        {"add_prefix_space", true},
                        {"trim_offsets", true},
                        {"use_regex", true}};
  out += fmt::format(R"(],"normalizer":null,"pre_tokenizer":{},"post_processor":{},"decoder":{},)",
                     DumpJson(pre_tokenizer), DumpJson(PostProcessor(v, spec)), DumpJson(decoder));
  out +=
      fmt::format(R"("model":{{"type":"BPE","dropout":null,"unk_token":null,)"
                  R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,)"
                  R"("byte_fallback":false,"ignore_merges":{},"vocab":{{)",
                  spec.bpe.whole_words);
  first = true;
  for (Token id = 0; v.Contains(id); ++id) {
    // Fillers are no tokens, and of several with one text only the first is ever found.
    if (!v.HasText(id) || v.type(id) == TokenType::kUnused || v.Find(v.text(id)) != id) continue;
    out += fmt::format("{}{}:{}", first ? "" : ",", Quoted(v.text(id)), id);
    first = false;
  }
  out += R"(},"merges":[)";
  first = true;
  for (uint32_t r = 0; r < v.merges(); ++r) {
    const Vocabulary::Pair& m = v.merge(r);
    if (m.left < 0 || m.right < 0 || m.result < 0) continue;
    out += first ? "" : ",";
    out += Quoted(fmt::format("{} {}", v.text(m.left), v.text(m.right)));
    first = false;
  }
  return out + "]}}";
}

// --- tokenizer.model: sentencepiece_model.proto

class Message {
 public:
  void Number(uint32_t field, int64_t value) {
    Varint(field << 3);
    Varint(static_cast<uint64_t>(value));
  }
  void Float(uint32_t field, float value) {
    Varint(field << 3 | 5);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void Text(uint32_t field, std::string_view text) {
    Varint(field << 3 | 2);
    Varint(text.size());
    bytes_ += text;
  }
  std::string& bytes() { return bytes_; }

 private:
  void Varint(uint64_t v) {
    for (; v >= 0x80; v >>= 7) bytes_ += static_cast<char>(v | 0x80);
    bytes_ += static_cast<char>(v);
  }
  std::string bytes_;
};

std::string SentencePieceModel(const Vocabulary& v, const TokenizerSpec& spec) {
  Message model;
  for (Token id = 0; v.Contains(id); ++id) {
    Message piece;
    // GGUF has the texts that are found before others with spaces, as a text has them.
    std::string text;
    const bool found = v.type(id) == TokenType::kUserDefined;
    ReplaceAll(v.text(id), found ? " " : kSpaceMark, kSpaceMark, &text);
    piece.Text(1, text);
    piece.Float(2, v.PriorityScore(id));
    // Some GGUF files have the unknown token as a control token.
    const TokenType type = id == spec.bpe.unknown ? TokenType::kUnknown : v.type(id);
    if (type != TokenType::kNormal) piece.Number(3, static_cast<int64_t>(type));
    model.Text(1, piece.bytes());
  }
  Message trainer;
  trainer.Number(3, 2);  // BPE
  trainer.Number(4, v.size());
  trainer.Number(35, spec.bpe.byte_fallback ? 1 : 0);
  trainer.Number(40, spec.bpe.unknown);
  trainer.Number(41, spec.bos);
  trainer.Number(42, spec.eos);
  trainer.Number(43, -1);
  model.Text(2, trainer.bytes());
  Message normalizer;
  normalizer.Text(1, "identity");
  normalizer.Number(3, spec.decode.strip_space ? 1 : 0);  // a space before the text
  normalizer.Number(4, 0);                                // runs of spaces stay
  normalizer.Number(5, 1);                                // spaces are marked
  model.Text(3, normalizer.bytes());
  return std::move(model.bytes());
}

// --- tokenizer_config.json

std::string TokenizerConfig(const ModelFile& file, const Vocabulary& v, const TokenizerSpec& spec) {
  Json j = {{"clean_up_tokenization_spaces", false}};
  j["tokenizer_class"] = spec.bpe.bytes ? "PreTrainedTokenizerFast" : "LlamaTokenizer";
  const auto has = [](const std::vector<Token>& tokens, Token id) {
    return id >= 0 && std::find(tokens.begin(), tokens.end(), id) != tokens.end();
  };
  j["add_bos_token"] = has(spec.before, spec.bos);
  j["add_eos_token"] = has(spec.after, spec.eos);
  const auto add = [&](const char* name, int64_t id) {
    if (id >= 0 && id < static_cast<int64_t>(v.size()))
      j[name] = std::string(v.text(static_cast<Token>(id)));
  };
  add("bos_token", spec.bos);
  add("eos_token", spec.eos);
  if (!spec.bpe.bytes) add("unk_token", spec.bpe.unknown);
  add("pad_token", file.GetInt("tokenizer.ggml.padding_token_id").value_or(-1));
  Json named = Json::array();
  for (const std::string& key : file.keys()) {
    const auto text = file.GetString(key);
    if (!text || !key.starts_with(kTemplate)) continue;
    if (key == kTemplate) {
      j["chat_template"] = *text;
    } else if (key[std::strlen(kTemplate)] == '.') {
      named.push_back({{"name", key.substr(std::strlen(kTemplate) + 1)}, {"template", *text}});
    }
  }
  if (!named.empty()) {
    if (j.contains("chat_template"))
      named.insert(named.begin(), {{"name", "default"}, {"template", j["chat_template"]}});
    j["chat_template"] = named;
  }
  return DumpJson(j, 2);
}

}  // namespace

Result<std::vector<TextFile>> MakeTokenizerFiles(const ModelFile& file, Ledger& ledger) {
  SNUG_ASSIGN(const GgufVocabulary source, GgufVocabulary::Open(file));
  SNUG_ASSIGN(const Vocabulary v, Vocabulary::Load(source, ledger));
  SNUG_ASSIGN(const TokenizerSpec spec, source.Spec(v));
  if (spec.model != WordModelKind::kBpe) {
    return NotWritable(file, fmt::format("the tokenizer \"{}\"",
                                         file.GetString("tokenizer.ggml.model").value_or("")));
  }
  std::vector<TextFile> files;
  if (spec.bpe.bytes) {
    SNUG_ASSIGN(std::string json, TokenizerJson(file, v, spec));
    files.push_back({"tokenizer.json", std::move(json)});
  } else {
    files.push_back({"tokenizer.model", SentencePieceModel(v, spec)});
  }
  files.push_back({"tokenizer_config.json", TokenizerConfig(file, v, spec)});
  return files;
}

}  // namespace snug
