#include "format/hf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>

#include "base/json_reader.h"
#include "format/hf_config.h"

namespace snug {
namespace {

constexpr uint64_t kMaxTemplate = 1 << 20;
constexpr uint64_t kMaxAdded = 1 << 17, kMaxTokenText = 1 << 12;
constexpr int64_t kMaxId = int64_t{1} << 31;

using Ids = std::map<std::string, int64_t, std::less<>>;  // of added tokens, by text

// Collects added_tokens of tokenizer.json, which stand before the vocabulary, and stops behind
// them: the file may have tens of megabytes.
void ReadAddedOf(const std::string& tokenizer_json, Ids* ids) {
  const auto file = File::Open(tokenizer_json);
  if (!file.ok()) return;  // whoever reads the vocabulary says so
  JsonReader reader(*file);
  reader.Object(kMaxTokenText, [&](std::string_view name) {
    if (name != "added_tokens") return reader.Skip();
    reader.Array([&] {
      std::optional<int64_t> id;
      std::string text;
      const bool ok = reader.Object(kMaxTokenText, [&](std::string_view key) {
        if (key == "id") return (id = reader.Integer()).has_value();
        if (key != "content") return reader.Skip();
        const auto content = reader.String(kMaxTokenText);
        if (content) text = *content;
        return content.has_value();
      });
      if (ok && id && *id >= 0 && *id < kMaxId && ids->size() < kMaxAdded) ids->emplace(text, *id);
      return ok;
    });
    return false;
  });
}

// A token's text in tokenizer_config.json: a string, or an object with it.
std::string TokenText(const Json& config, const std::string& name) {
  const auto it = config.find(name);
  if (it == config.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_object()) return {};
  const auto content = it->find("content");
  return content != it->end() && content->is_string() ? content->get<std::string>() : "";
}

Ids ReadAddedTokens(const HfFolder& folder, const Json& config) {
  Ids ids;
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder != config.end() && decoder->is_object()) {
    for (const auto& [key, value] : decoder->items()) {
      int64_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      const std::string text = TokenText(*decoder, key);
      if (error == std::errc() && end == key.data() + key.size() && id >= 0 && id < kMaxId &&
          !text.empty())
        ids.emplace(text, id);
    }
  }
  if (ids.empty() && folder.tokenizer_json()) ReadAddedOf(*folder.tokenizer_json(), &ids);
  return ids;
}

// An id or a list of them.
Status ReadIds(const HfFolder& folder, const std::string& file, const Json& config, const char* key,
               std::vector<int32_t>* ids) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return {};
  const auto good = [](const Json& v) {
    return v.is_number_integer() && v.get<int64_t>() >= -1 && v.get<int64_t>() < kMaxId;
  };
  const bool list = it->is_array();
  if (list ? it->size() > kMaxAdded || !std::all_of(it->begin(), it->end(), good) : !good(*it))
    return folder.Bad(file, fmt::format("{} is no token id, nor a list of them", key));
  const auto add = [&](const Json& v) {
    const int32_t id = v.get<int32_t>();
    if (id >= 0 && std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(id);
  };
  if (!list) add(*it);
  if (list) std::for_each(it->begin(), it->end(), add);
  return {};
}

Status ReadTemplates(HfFolder& folder, const Json& config) {
  constexpr char kKey[] = "tokenizer.chat_template";
  const std::string own = folder.path() + "/chat_template.jinja";
  std::error_code error;
  if (std::filesystem::exists(own, error)) {
    SNUG_ASSIGN(std::string text, ReadWholeFile(own, kMaxTemplate));
    folder.SetString(kKey, std::move(text));
  }
  const auto given = config.find("chat_template");
  if (given == config.end() || given->is_null()) return {};
  if (given->is_string()) {
    folder.SetString(kKey, given->get<std::string>());
    return {};
  }
  // Several, by name.
  if (!given->is_array())
    return folder.Bad("tokenizer_config.json", "chat_template is neither text nor a list");
  for (const Json& t : *given) {
    if (!t.is_object() || !t.contains("name") || !t["name"].is_string() ||
        !t.contains("template") || !t["template"].is_string())
      return folder.Bad("tokenizer_config.json", "chat_template lists one without name or text");
    const std::string name = t["name"].get<std::string>();
    folder.SetString(name == "default" ? kKey : std::string(kKey) + "." + name,
                     t["template"].get<std::string>());
  }
  return {};
}

}  // namespace

Status ReadHfTokenizer(HfFolder& folder, const Json& config) {
  const auto path = [&](const char* name) -> std::optional<std::string> {
    std::error_code error;
    const std::string p = folder.path() + "/" + name;
    return std::filesystem::exists(p, error) ? std::optional(p) : std::nullopt;
  };
  folder.SetTokenizer(path("tokenizer.json"), path("tokenizer.model"));
  SNUG_ASSIGN(const Json generation, ReadHfJson(folder, "generation_config.json", false));
  SNUG_ASSIGN(const Json tokenizer, ReadHfJson(folder, "tokenizer_config.json", false));

  const Ids added = ReadAddedTokens(folder, tokenizer);
  for (const auto& [key, name] :
       {std::pair("bos_token", "bos"), std::pair("eos_token", "eos"),
        std::pair("unk_token", "unknown"), std::pair("pad_token", "padding")})
    if (std::string text = TokenText(tokenizer, key); !text.empty())
      folder.SetSpecialText(name, std::move(text));
  struct Special {
    const char *text, *id, *key;
  };
  constexpr Special kSpecial[] = {
      {"bos_token", "bos_token_id", "bos_token_id"},
      {"eos_token", "eos_token_id", "eos_token_id"},
      {"unk_token", "unk_token_id", "unknown_token_id"},
      {"sep_token", "sep_token_id", "seperator_token_id"},
      {"pad_token", "pad_token_id", "padding_token_id"},
      {"cls_token", "cls_token_id", "cls_token_id"},
      {"mask_token", "mask_token_id", "mask_token_id"},
  };
  std::vector<int32_t> ends;
  for (const Special& s : kSpecial) {
    std::vector<int32_t> ids;
    if (const auto it = added.find(TokenText(tokenizer, s.text)); it != added.end())
      ids.push_back(static_cast<int32_t>(it->second));
    SNUG_TRY(ReadIds(folder, "generation_config.json", generation, s.id, &ids));
    SNUG_TRY(ReadIds(folder, "config.json", config, s.id, &ids));
    if (ids.empty()) continue;
    folder.SetUint(std::string("tokenizer.ggml.") + s.key, static_cast<uint64_t>(ids.front()));
    if (std::string_view(s.text) == "eos_token") ends = std::move(ids);
  }
  if (!ends.empty()) folder.SetInts("tokenizer.ggml.eog_token_ids", std::move(ends));
  for (const char* flag : {"add_bos_token", "add_eos_token"}) {
    const auto it = tokenizer.find(flag);
    if (it != tokenizer.end() && it->is_boolean())
      folder.SetBool(std::string("tokenizer.ggml.") + flag, it->get<bool>());
  }
  return ReadTemplates(folder, tokenizer);
}

}  // namespace snug
