#include <algorithm>
#include <iterator>

#include "text/pre_tokenizer.h"

namespace snug {
namespace {

enum Flags : uint8_t { kNone = 0, kWholeWords = 1, kAddBos = 2 };

// llama.cpp's names (src/llama-vocab.cpp) and what they mean there, except that case is that of
// the models' own expressions (gpt-4o, tekken), which llama.cpp approximates.
struct Name {
  std::string_view name;
  Cut cuts[6];
  uint8_t n;
  uint8_t flags = kNone;
};
constexpr Name kNames[] = {
    {"a.x-4.0", {Cut::kGpt2}, 1},
    {"bailingmoe", {Cut::kQwen2}, 1},
    {"bailingmoe2", {Cut::kQwen2}, 1},
    {"bloom", {Cut::kBloom}, 1},
    {"chatglm-bpe", {Cut::kLlama3}, 1},
    {"codeshell", {Cut::kDigit, Cut::kGpt2}, 2},
    {"command-r", {Cut::kDigit, Cut::kGpt2}, 2},
    {"dbrx", {Cut::kLlama3}, 1},
    {"deepseek-coder",
     {Cut::kNewline, Cut::kLetters, Cut::kMarks, Cut::kDeepSeekCjk, Cut::kDigit},
     5},
    {"deepseek-llm",
     {Cut::kNewline, Cut::kDeepSeekWord, Cut::kDeepSeekPunctuation, Cut::kTrailingSpace,
      Cut::kDeepSeekCjk, Cut::kDigits},
     6},
    {"deepseek-r1-qwen", {Cut::kQwen2}, 1},
    {"deepseek-v3", {Cut::kDigits3, Cut::kDeepSeekKana, Cut::kDeepSeek3}, 3},
    {"default", {Cut::kPunctuationsLessGrave, Cut::kGpt2, Cut::kDigits, Cut::kAsciiDigits3}, 4},
    {"exaone", {Cut::kDigit, Cut::kGpt2}, 2},
    {"exaone4", {Cut::kGpt2}, 1},
    {"f2llmv2", {Cut::kQwen2}, 1},
    {"falcon", {Cut::kPunctuations, Cut::kGpt2, Cut::kAsciiDigits3}, 3},
    {"falcon-h1", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"falcon3", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"gigachat", {Cut::kGpt2}, 1},
    {"glm4", {Cut::kLlama3}, 1},
    {"gpt-2", {Cut::kGpt2}, 1},
    {"gpt-4o", {Cut::kGpt4o}, 1},
    {"gpt3-finnish", {Cut::kBloom}, 1},
    {"granite-docling", {Cut::kGpt2}, 1},
    {"grok-2", {Cut::kQwen2}, 1},
    {"hunyuan", {Cut::kQwen2}, 1},
    {"hunyuan-dense", {Cut::kDigits3, Cut::kDeepSeekKana, Cut::kDeepSeek3}, 3},
    {"jais", {Cut::kGpt2}, 1},
    {"jina-de", {Cut::kGpt2}, 1},
    {"jina-es", {Cut::kGpt2}, 1},
    {"jina-v1-en", {Cut::kGpt2}, 1},
    {"jina-v2-code", {Cut::kGpt2}, 1},
    {"jina-v2-de", {Cut::kGpt2}, 1},
    {"jina-v2-es", {Cut::kGpt2}, 1},
    {"jina-v5-nano", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"joyai-llm", {Cut::kDigits3, Cut::kDeepSeekKana, Cut::kDeepSeek3}, 3},
    {"kanana2", {Cut::kGpt4o}, 1},
    {"kormo", {Cut::kQwen2}, 1},
    {"lfm2", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"llada-moe", {Cut::kQwen2}, 1},
    {"llama-bpe", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"llama-v3", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"llama3", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"llama4", {Cut::kGpt4o}, 1},
    {"megrez", {Cut::kQwen2}, 1},
    {"mellum", {Cut::kGpt2}, 1},
    {"midm-2.0", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"minerva-7b", {Cut::kDigit, Cut::kGpt2}, 2},
    {"minimax-m2", {Cut::kGpt4o}, 1},
    {"modern-bert", {Cut::kGpt2}, 1},
    {"mpt", {Cut::kGpt2}, 1},
    {"olmo", {Cut::kGpt2}, 1},
    {"phi-2", {Cut::kGpt2}, 1},
    {"pixtral", {Cut::kLlama3}, 1, kWholeWords | kAddBos},
    {"poro-chat", {Cut::kBloom}, 1},
    {"qwen2", {Cut::kQwen2}, 1},
    {"qwen35", {Cut::kQwen35}, 1},
    {"refact", {Cut::kDigit, Cut::kGpt2}, 2},
    {"roberta-bpe", {Cut::kGpt2}, 1},
    {"seed-coder", {Cut::kSeedCoder}, 1},
    {"smaug-bpe", {Cut::kLlama3}, 1},
    {"smollm", {Cut::kDigit, Cut::kGpt2}, 2},
    {"solar-open", {Cut::kQwen2}, 1},
    {"stablelm2", {Cut::kQwen2}, 1},
    {"starcoder", {Cut::kDigit, Cut::kGpt2}, 2},
    {"tekken", {Cut::kTekken}, 1, kWholeWords | kAddBos},
    {"trillion", {Cut::kGpt2}, 1},
    {"viking", {Cut::kBloom, Cut::kDigit}, 2},
};

// Expressions as the tokenizer.json files of published models spell them. Possessive quantifiers
// and orders of alternatives that change no match are listed as the same cut.
struct Expression {
  std::string_view text;
  Cut cut;
};
constexpr Expression kExpressions[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d)"
     R"(| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     Cut::kGpt2},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Cut::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|)"
     R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     Cut::kQwen2},
    {R"('(?i:[sdmt]|ll|ve|re)|)"
     R"([^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|)"
     R"(\s*[\r\n]|\s+(?!\S)|\s+)",
     Cut::kQwen2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|)"
     R"([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     Cut::kQwen35},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|)"
     R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     Cut::kLlama3},
    {R"('(?i:[sdmt]|ll|ve|re)|)"
     R"([^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|)"
     R"(\s*[\r\n]|\s+(?!\S)|\s+)",
     Cut::kLlama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|)"
     R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     Cut::kSeedCoder},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     Cut::kTekken},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     Cut::kGpt4o},
    {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"
     R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     Cut::kDeepSeek3},
    {R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", Cut::kDeepSeekPunctuation},
    {R"(\s+$)", Cut::kTrailingSpace},
    {"[一-龥ࠀ-一가-\xED\x9F\xBF]+", Cut::kDeepSeekCjk},
    {"[一-龥\u3040-ゟ゠-ヿ]+", Cut::kDeepSeekKana},
    {R"(\s?\p{L}+)", Cut::kLetters},
    {R"(\s?\p{P}+)", Cut::kMarks},
    {R"( ?[^(\s|[.,!?…。，、।۔،])]+)", Cut::kBloom},
    {R"([\r\n])", Cut::kNewline},
    {R"(\p{N})", Cut::kDigit},
    {R"(\p{N}+)", Cut::kDigits},
    {R"(\p{N}{1,3})", Cut::kDigits3},
    {R"([0-9][0-9][0-9])", Cut::kAsciiDigits3},
    {R"(\s)", Cut::kSpace},
};

}  // namespace

std::optional<Cut> FindExpression(std::string_view regex) {
  // Files spell a line's end inside a class as the character or as its escape.
  std::string text;
  for (const char c : regex) {
    if (c == '\n' || c == '\r') {
      text += c == '\n' ? "\\n" : "\\r";
    } else {
      text += c;
    }
  }
  for (const Expression& known : kExpressions)
    if (known.text == text) return known.cut;
  if (text == DeepSeekWordExpression()) return Cut::kDeepSeekWord;
  return std::nullopt;
}

std::optional<NamedPreTokenizer> FindPreTokenizer(std::string_view name) {
  for (const Name& known : kNames) {
    if (known.name != name) continue;
    NamedPreTokenizer found;
    for (uint8_t i = 0; i < known.n; ++i) found.steps.push_back({known.cuts[i]});
    found.whole_words = (known.flags & kWholeWords) != 0;
    found.add_bos = (known.flags & kAddBos) != 0;
    return found;
  }
  return std::nullopt;
}

std::optional<std::string> PreTokenizerName(const std::vector<CutStep>& steps, bool whole_words) {
  constexpr std::string_view kCommon[] = {"gpt-2",     "llama-bpe", "qwen2",
                                          "smaug-bpe", "starcoder", "gpt-4o"};
  const auto same = [&](const Name& known) {
    if (((known.flags & kWholeWords) != 0) != whole_words || known.n != steps.size()) return false;
    for (uint8_t i = 0; i < known.n; ++i) {
      // Where every character is matched, removing what lies between matches is keeping all.
      const bool all = steps[i].keep == Keep::kRemoved && steps[i].invert;
      const bool plain = steps[i].keep == Keep::kIsolated && !steps[i].invert;
      if (steps[i].cut != known.cuts[i] || !(all || plain)) return false;
    }
    return true;
  };
  std::optional<std::string> found;
  for (const Name& known : kNames) {
    if (!same(known)) continue;
    const bool common =
        std::find(std::begin(kCommon), std::end(kCommon), known.name) != std::end(kCommon);
    if (!found || common) found = std::string(known.name);
  }
  return found;
}

std::optional<std::string> ExpressionOf(Cut cut) {
  for (const Expression& known : kExpressions)
    if (known.cut == cut) return std::string(known.text);
  if (cut == Cut::kDeepSeekWord) return DeepSeekWordExpression();
  return std::nullopt;
}

std::string PreTokenizerNames() {
  std::string names;
  for (const Name& known : kNames) {
    if (!names.empty()) names += ", ";
    names += known.name;
  }
  return names;
}

}  // namespace snug
