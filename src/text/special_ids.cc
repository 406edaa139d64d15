#include "text/special_ids.h"

#include <algorithm>

namespace snug {

Status ReadSpecialIds(const ModelFile& metadata, const Vocabulary& v, TokenizerSpec* spec) {
  const auto read = [&](const char* key, Token* id) {
    const auto value = metadata.GetInt(key);
    if (value && *value >= 0 && *value < static_cast<int64_t>(v.size()))
      *id = static_cast<Token>(*value);
  };
  const Token template_bos = spec->bos, template_eos = spec->eos;
  read("tokenizer.ggml.bos_token_id", &spec->bos);
  read("tokenizer.ggml.eos_token_id", &spec->eos);
  const auto flag = [&](const char* key, Token id, Token in_template, std::vector<Token>* around,
                        bool front) {
    const auto wanted = metadata.GetBool(key);
    if (!wanted || id < 0) return;
    const auto at = std::find(around->begin(), around->end(), id);
    if (!*wanted && at != around->end() && id == in_template) around->erase(at);
    if (*wanted && at == around->end()) around->insert(front ? around->begin() : around->end(), id);
  };
  flag("tokenizer.ggml.add_bos_token", spec->bos, template_bos, &spec->before, true);
  flag("tokenizer.ggml.add_eos_token", spec->eos, template_eos, &spec->after, false);
  return ReadEnds(metadata, v, &spec->ends);
}

Status ReadEnds(const ModelFile& metadata, const Vocabulary& v, std::vector<Token>* tokens) {
  constexpr char kEnds[] = "tokenizer.ggml.eog_token_ids";
  const GgufArray* ends = metadata.GetArray(kEnds);
  if (ends == nullptr || ends->count == 0 || ends->count > 4096 ||
      ends->element == GgufType::kString || ends->element == GgufType::kArray)
    return {};
  tokens->resize(ends->count);
  SNUG_TRY(metadata.ReadArray(kEnds, tokens->data()));
  tokens->erase(
      std::remove_if(tokens->begin(), tokens->end(), [&](Token id) { return !v.Contains(id); }),
      tokens->end());
  return {};
}

}  // namespace snug
