#include "text/json_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/unicode.h"

namespace snug {
namespace {

// One object of a part, such as {"type": "Split", ...}.
struct Node {
  const std::string& path;
  const char* part;
  const Json& json;

  Error Bad(const std::string& what) const {
    return MakeError(Code::kBadFile, fmt::format("{}: {}: {}", path, part, what),
                     "this tokenizer is not supported: convert the model to GGUF, or report it",
                     {{"file", path}, {"part", part}});
  }
  Error Unknown(const std::string& kind, const std::string& name) const {
    Error error = Bad(fmt::format("the {} \"{}\" is not supported", kind, name));
    error.values.emplace_back(kind, name);
    return error;
  }
  Status AtMost(size_t limit, size_t n, const char* what) const {
    if (n <= limit) return {};
    return Bad(fmt::format("{} {}; at most {} are supported", n, what, limit));
  }
  Result<std::string> Type() const {
    if (!json.is_object()) return Bad("an object expected");
    const auto it = json.find("type");
    if (it == json.end() || !it->is_string()) return Bad("an object without a type");
    return it->get<std::string>();
  }
  // A member of the object, null where it is absent.
  const Json& Get(const char* key) const {
    static const Json null;
    const auto it = json.find(key);
    return it == json.end() ? null : *it;
  }
  Result<bool> Flag(const char* key, bool otherwise) const {
    const Json& value = Get(key);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) return Bad(fmt::format("{} is neither true nor false", key));
    return value.get<bool>();
  }
  Result<std::string> Text(const char* key, const char* otherwise = nullptr) const {
    const Json& value = Get(key);
    if (value.is_null() && otherwise != nullptr) return std::string(otherwise);
    if (!value.is_string()) return Bad(fmt::format("{} is no text", key));
    return value.get<std::string>();
  }
  // Calls each(Node) for the members of a list.
  template <class Fn>
  Status Each(const char* key, const Fn& each) const {
    const Json& list = Get(key);
    if (!list.is_array()) return Bad(fmt::format("{} is no list", key));
    for (const Json& item : list) SNUG_TRY(each(Node{path, part, item}));
    return {};
  }
};

// What published tokenizers stay far below. More could make hours, or gigabytes, of a short text.
constexpr size_t kMaxSteps = 32;     // of a part
constexpr size_t kMaxChanges = 4;    // among them, of steps of a pre-tokenizer that lengthen pieces
constexpr size_t kMaxPattern = 256;  // bytes of a text to be looked for, or put in
constexpr size_t kMaxAround = 64;    // tokens before a text, and behind it

struct Pattern {
  std::string text;
  bool regex = false;
};

// {"String": ...} or {"Regex": ...}; an expression without special characters is a text too.
Result<Pattern> ReadPattern(const Node& node) {
  const Json& pattern = node.Get("pattern");
  for (const char* kind : {"String", "Regex"}) {
    const auto it = pattern.is_object() ? pattern.find(kind) : pattern.end();
    if (it == pattern.end() || !it->is_string()) continue;
    Pattern out{it->get<std::string>(), kind[0] == 'R'};
    if (kind[0] == 'S' && out.text.size() > kMaxPattern)
      return node.Bad(
          fmt::format("a pattern of {} bytes; at most {}", out.text.size(), kMaxPattern));
    out.regex = out.regex && out.text.find_first_of("\\^$.|?*+()[]{}") != out.text.npos;
    return out;
  }
  return node.Bad("a pattern that is neither String nor Regex");
}

Status ReadReplace(const Node& node, std::vector<NormalStep>* steps) {
  SNUG_ASSIGN(Pattern pattern, ReadPattern(node));
  NormalStep step{NormalStep::Kind::kReplace};
  SNUG_ASSIGN(step.to, node.Text("content"));
  if (pattern.regex) {
    if (pattern.text == " {2,}") {
      step.kind = NormalStep::Kind::kReplaceSpaces;
    } else if (pattern.text == "\\s+") {
      step.kind = NormalStep::Kind::kReplaceWhite;
    } else {
      return node.Unknown("expression", pattern.text);
    }
  }
  step.from = std::move(pattern.text);
  steps->push_back(std::move(step));
  return {};
}

Status ReadBert(const Node& node, std::vector<NormalStep>* steps) {
  NormalStep step{NormalStep::Kind::kBert};
  SNUG_ASSIGN(step.clean, node.Flag("clean_text", true));
  SNUG_ASSIGN(step.ideographs, node.Flag("handle_chinese_chars", true));
  SNUG_ASSIGN(step.lower, node.Flag("lowercase", true));
  SNUG_ASSIGN(step.accents, node.Flag("strip_accents", step.lower));
  steps->push_back(step);
  return {};
}

Status ReadCharsmap(const Node& node, std::vector<NormalStep>* steps,
                    std::optional<CharsmapText>* charsmap) {
  const Json& map = node.Get("precompiled_charsmap");
  if (map.is_null()) return {};
  if (*charsmap) return node.Bad("more than one precompiled_charsmap");
  if (map.is_string()) {
    charsmap->emplace().text = map.get<std::string>();
  } else if (map.is_number_unsigned()) {
    charsmap->emplace().offset = map.get<uint64_t>();
  } else {
    return node.Bad("precompiled_charsmap is no text");
  }
  steps->push_back({NormalStep::Kind::kCharsmapByCharacter});
  return {};
}

Status ReadStep(const Node& node, std::vector<NormalStep>* steps,
                std::optional<CharsmapText>* charsmap) {
  SNUG_ASSIGN(const std::string type, node.Type());
  if (type == "Sequence")
    return node.Each("normalizers",
                     [&](const Node& each) { return ReadStep(each, steps, charsmap); });
  if (type == "Replace") return ReadReplace(node, steps);
  if (type == "BertNormalizer") return ReadBert(node, steps);
  if (type == "Precompiled") return ReadCharsmap(node, steps, charsmap);
  NormalStep step;
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    const bool compatible = type.size() == 4;
    step.form = type.back() == 'C' ? (compatible ? NormalForm::kNfkc : NormalForm::kNfc)
                                   : (compatible ? NormalForm::kNfkd : NormalForm::kNfd);
  } else if (type == "Lowercase") {
    step.kind = NormalStep::Kind::kLowercase;
  } else if (type == "Prepend") {
    step.kind = NormalStep::Kind::kPrepend;
    SNUG_ASSIGN(step.to, node.Text("prepend"));
  } else if (type == "Strip") {
    step.kind = NormalStep::Kind::kStrip;
    SNUG_ASSIGN(step.left, node.Flag("strip_left", true));
    SNUG_ASSIGN(step.right, node.Flag("strip_right", true));
  } else if (type == "StripAccents") {
    step.kind = NormalStep::Kind::kStripAccents;
  } else if (type == "Nmt") {
    step.kind = NormalStep::Kind::kNmt;
  } else if (type == "ByteLevel") {
    step.kind = NormalStep::Kind::kByteAlphabet;
  } else {
    return node.Unknown("type", type);
  }
  steps->push_back(std::move(step));
  return {};
}

Result<Keep> ReadBehavior(const Node& node, const char* otherwise) {
  constexpr std::array<std::pair<const char*, Keep>, 5> kNames = {{
      {"Isolated", Keep::kIsolated},
      {"Removed", Keep::kRemoved},
      {"MergedWithPrevious", Keep::kWithPrevious},
      {"MergedWithNext", Keep::kWithNext},
      {"Contiguous", Keep::kContiguous},
  }};
  SNUG_ASSIGN(const std::string name, node.Text("behavior", otherwise));
  for (const auto& [known, keep] : kNames)
    if (name == known) return keep;
  return node.Unknown("behavior", name);
}

Status ReadSplit(const Node& node, std::vector<CutStep>* cuts) {
  SNUG_ASSIGN(Pattern pattern, ReadPattern(node));
  CutStep step{Cut::kText};
  SNUG_ASSIGN(step.keep, ReadBehavior(node, nullptr));
  SNUG_ASSIGN(step.invert, node.Flag("invert", false));
  if (pattern.regex) {
    const auto cut = FindExpression(pattern.text);
    if (!cut) return node.Unknown("expression", pattern.text);
    step.cut = *cut;
  } else {
    step.text = std::move(pattern.text);
  }
  cuts->push_back(std::move(step));
  return {};
}

Status ReadMetaspace(const Node& node, std::vector<CutStep>* cuts) {
  CutStep step;
  SNUG_ASSIGN(step.text, node.Text("replacement", "\u2581"));
  if (step.text.empty() || DecodeUtf8(step.text, 0).bytes != step.text.size())
    return node.Bad("a Metaspace whose replacement is not one character");
  SNUG_ASSIGN(const bool always, node.Flag("add_prefix_space", true));
  SNUG_ASSIGN(const std::string scheme, node.Text("prepend_scheme", always ? "always" : "never"));
  SNUG_ASSIGN(const bool split, node.Flag("split", true));
  if (scheme == "always") {
    step.cut = Cut::kMetaspaceAlways;
  } else if (scheme == "first") {
    step.cut = Cut::kMetaspaceFirst;
  } else if (scheme == "never") {
    step.cut = Cut::kMetaspaceNever;
  } else {
    return node.Unknown("prepend_scheme", scheme);
  }
  cuts->push_back(step);
  if (split) cuts->push_back({Cut::kText, Keep::kWithNext, false, step.text});
  return {};
}

Status ReadByteLevel(const Node& node, std::vector<CutStep>* cuts) {
  SNUG_ASSIGN(const bool prefix, node.Flag("add_prefix_space", true));
  SNUG_ASSIGN(const bool regex, node.Flag("use_regex", true));
  if (prefix) cuts->push_back({Cut::kPrefixSpace});
  if (regex) cuts->push_back({Cut::kGpt2});
  cuts->push_back({Cut::kByteAlphabet});
  return {};
}

Status ReadCut(const Node& node, std::vector<CutStep>* cuts) {
  SNUG_ASSIGN(const std::string type, node.Type());
  if (type == "Sequence")
    return node.Each("pretokenizers", [&](const Node& each) { return ReadCut(each, cuts); });
  if (type == "Split") return ReadSplit(node, cuts);
  if (type == "Metaspace") return ReadMetaspace(node, cuts);
  if (type == "ByteLevel") return ReadByteLevel(node, cuts);
  if (type == "Whitespace") {
    cuts->push_back({Cut::kSpace, Keep::kRemoved});
    cuts->push_back({Cut::kWord});
  } else if (type == "WhitespaceSplit") {
    cuts->push_back({Cut::kSpace, Keep::kRemoved});
  } else if (type == "BertPreTokenizer") {
    cuts->push_back({Cut::kSpace, Keep::kRemoved});
    cuts->push_back({Cut::kPunctuation});
  } else if (type == "Digits") {
    SNUG_ASSIGN(const bool individual, node.Flag("individual_digits", false));
    cuts->push_back({Cut::kDigit, individual ? Keep::kIsolated : Keep::kContiguous});
  } else if (type == "Punctuation") {
    SNUG_ASSIGN(const Keep keep, ReadBehavior(node, "Isolated"));
    cuts->push_back({Cut::kPunctuation, keep});
  } else if (type == "CharDelimiterSplit") {
    SNUG_ASSIGN(std::string delimiter, node.Text("delimiter"));
    cuts->push_back({Cut::kText, Keep::kRemoved, false, std::move(delimiter)});
  } else {
    return node.Unknown("type", type);
  }
  return {};
}

// [text, id], as BertProcessing has it.
Result<int64_t> ReadPairId(const Node& node, const char* key) {
  const Json& pair = node.Get(key);
  if (!pair.is_array() || pair.size() != 2 || !pair[1].is_number_integer())
    return node.Bad(fmt::format("{} is no pair of a text and an id", key));
  return pair[1].get<int64_t>();
}

Status ReadTemplate(const Node& node, std::vector<int64_t>* before, std::vector<int64_t>* after) {
  const Json& known = node.Get("special_tokens");
  std::vector<int64_t> first, last;
  bool seen = false;
  SNUG_TRY(node.Each("single", [&](const Node& piece) -> Status {
    if (piece.json.is_object() && piece.json.contains("Sequence")) {
      if (seen) return node.Bad("a template that repeats the text");
      seen = true;
      return {};
    }
    const Json& special = piece.json.is_object() ? piece.Get("SpecialToken") : piece.json;
    if (!special.is_object() || !special.contains("id") || !special["id"].is_string())
      return node.Bad("a template with neither Sequence nor SpecialToken");
    const auto it = known.is_object() ? known.find(special["id"].get<std::string>()) : known.end();
    if (it == known.end() || !it->is_object() || !it->contains("ids") || !(*it)["ids"].is_array())
      return node.Bad(fmt::format("special_tokens lacks {}", DumpJson(special["id"])));
    for (const Json& id : (*it)["ids"]) {
      if (!id.is_number_integer()) return node.Bad("special_tokens has an id that is no number");
      (seen ? last : first).push_back(id.get<int64_t>());
    }
    return {};
  }));
  if (!seen) return node.Bad("a template without the text");
  before->insert(before->begin(), first.begin(), first.end());
  after->insert(after->end(), last.begin(), last.end());
  return {};
}

Status ReadProcessor(const Node& node, std::vector<int64_t>* before, std::vector<int64_t>* after) {
  SNUG_ASSIGN(const std::string type, node.Type());
  if (type == "Sequence")
    return node.Each("processors",
                     [&](const Node& each) { return ReadProcessor(each, before, after); });
  if (type == "ByteLevel") return {};  // offsets only
  if (type == "TemplateProcessing") return ReadTemplate(node, before, after);
  if (type != "BertProcessing" && type != "RobertaProcessing") return node.Unknown("type", type);
  SNUG_ASSIGN(const int64_t first, ReadPairId(node, "cls"));
  SNUG_ASSIGN(const int64_t last, ReadPairId(node, "sep"));
  before->insert(before->begin(), first);
  after->push_back(last);
  return {};
}

Status ReadStrip(const Node& node, DecodeSpec* decode) {
  const auto count = [&](const char* key) {
    const Json& value = node.Get(key);
    return value.is_number_unsigned() ? value.get<uint64_t>() : 0;
  };
  SNUG_ASSIGN(const std::string content, node.Text("content", " "));
  if (content != " " || count("start") > 1 || count("stop") != 0)
    return node.Bad("a Strip of more than one space at the start is not supported");
  decode->strip_space = decode->strip_space || count("start") == 1;
  return {};
}

Status ReadPiece(const Node& node, DecodeSpec* decode) {
  SNUG_ASSIGN(const std::string type, node.Type());
  if (type == "Sequence")
    return node.Each("decoders", [&](const Node& each) { return ReadPiece(each, decode); });
  if (type == "ByteLevel") {
    decode->bytes = true;
  } else if (type == "ByteFallback") {
    decode->byte_tokens = true;
  } else if (type == "Strip") {
    return ReadStrip(node, decode);
  } else if (type == "Replace") {
    SNUG_ASSIGN(const Pattern pattern, ReadPattern(node));
    SNUG_ASSIGN(const std::string content, node.Text("content"));
    if (pattern.regex) return node.Unknown("expression", pattern.text);
    if (!pattern.text.empty())
      decode->replace.push_back(NormalStep::Replace(pattern.text, content));
  } else if (type == "Metaspace") {
    std::vector<CutStep> cuts;
    SNUG_TRY(ReadMetaspace(node, &cuts));
    decode->replace.push_back(NormalStep::Replace(cuts[0].text, " "));
    decode->strip_space = cuts[0].cut != Cut::kMetaspaceNever;
  } else if (type == "WordPiece") {
    decode->words = decode->strip_space = true;
    SNUG_ASSIGN(decode->inner, node.Text("prefix", "##"));
    SNUG_ASSIGN(decode->cleanup, node.Flag("cleanup", true));
  } else if (type != "Fuse") {  // which only joins
    return node.Unknown("type", type);
  }
  return {};
}

}  // namespace

Status ReadNormalizer(const std::string& path, const Json& part, std::vector<NormalStep>* steps,
                      std::optional<CharsmapText>* charsmap) {
  if (part.is_null()) return {};
  const Node node{path, "normalizer", part};
  SNUG_TRY(ReadStep(node, steps, charsmap));
  return node.AtMost(kMaxSteps, steps->size(), "steps");
}

Status ReadPreTokenizer(const std::string& path, const Json& part, std::vector<CutStep>* cuts) {
  if (part.is_null()) return {};
  const Node node{path, "pre_tokenizer", part};
  SNUG_TRY(ReadCut(node, cuts));
  SNUG_TRY(node.AtMost(kMaxSteps, cuts->size(), "steps"));
  const auto changes = std::count_if(cuts->begin(), cuts->end(),
                                     [](const CutStep& step) { return Changes(step.cut); });
  return node.AtMost(kMaxChanges, static_cast<size_t>(changes), "steps that lengthen the text");
}

Status ReadPostProcessor(const std::string& path, const Json& part, std::vector<int64_t>* before,
                         std::vector<int64_t>* after) {
  if (part.is_null()) return {};
  const Node node{path, "post_processor", part};
  SNUG_TRY(ReadProcessor(node, before, after));
  return node.AtMost(kMaxAround, std::max(before->size(), after->size()), "tokens around a text");
}

Status ReadDecoder(const std::string& path, const Json& part, DecodeSpec* decode) {
  if (part.is_null()) {
    // Without a decoder tokens are words. No text begins with a byte that UTF-8 has not.
    decode->words = decode->strip_space = true;
    decode->inner.assign(1, '\xFF');
    return {};
  }
  const Node node{path, "decoder", part};
  SNUG_TRY(ReadPiece(node, decode));
  return node.AtMost(kMaxSteps, decode->replace.size(), "steps");
}

}  // namespace snug
