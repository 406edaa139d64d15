#include "text/pre_tokenizer.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <map>

#include "base/file.h"
#include "base/json.h"
#include "testing.h"

namespace snug {
namespace {

using ::testing::ElementsAre;

// By their names in tests/data/pre_tokenizer.json.
const std::map<std::string, Cut> kCuts = {
    {"gpt2", Cut::kGpt2},
    {"qwen2", Cut::kQwen2},
    {"qwen35", Cut::kQwen35},
    {"llama3", Cut::kLlama3},
    {"seed_coder", Cut::kSeedCoder},
    {"tekken", Cut::kTekken},
    {"gpt4o", Cut::kGpt4o},
    {"deepseek3", Cut::kDeepSeek3},
    {"deepseek_word", Cut::kDeepSeekWord},
    {"deepseek_punctuation", Cut::kDeepSeekPunctuation},
    {"deepseek_cjk", Cut::kDeepSeekCjk},
    {"deepseek_kana", Cut::kDeepSeekKana},
    {"letters", Cut::kLetters},
    {"marks", Cut::kMarks},
    {"trailing_space", Cut::kTrailingSpace},
    {"bloom", Cut::kBloom},
    {"newline", Cut::kNewline},
    {"digit", Cut::kDigit},
    {"digits", Cut::kDigits},
    {"digits3", Cut::kDigits3},
    {"ascii_digits3", Cut::kAsciiDigits3},
    {"space", Cut::kSpace},
    {"word", Cut::kWord},
};

// Bytes of each piece, negative between matches.
std::vector<int> Pieces(Cut cut, std::string_view text) {
  std::vector<int> out;
  for (size_t i = 0; i < text.size();) {
    const Piece piece = NextPiece({cut}, text, i);
    out.push_back(piece.match ? static_cast<int>(piece.bytes) : -static_cast<int>(piece.bytes));
    i += piece.bytes;
  }
  return out;
}

std::vector<std::string> Words(const std::vector<CutStep>& steps, std::string_view text) {
  std::vector<std::string> words;
  Cutter(steps).Cut(text, true, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

TEST(PreTokenizer, CutsAsTheExpressionsDo) {
  const auto text = ReadWholeFile(testing::SourcePath("tests/data/pre_tokenizer.json"), 1 << 20);
  ASSERT_TRUE(text.ok());
  const auto json = ParseJson(*text, "pre_tokenizer.json");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["cuts"].size(), kCuts.size());
  for (const auto& [name, cut] : (*json)["cuts"].items()) {
    ASSERT_TRUE(kCuts.count(name)) << name;
    size_t i = 0;
    for (const Json& expected : cut["pieces"]) {
      const std::string sample = (*json)["texts"][i++];
      EXPECT_EQ(Json(Pieces(kCuts.at(name), sample)), expected) << name << " " << DumpJson(sample);
    }
    EXPECT_GT(i, 100u);
    if (name == "word") continue;  // a type of its own in tokenizer.json
    const std::string expression = cut["expression"];
    EXPECT_EQ(FindExpression(expression), kCuts.at(name)) << name;
  }
}

TEST(PreTokenizer, UnknownExpressionsAndNamesAreNotGuessed) {
  EXPECT_EQ(FindExpression(R"(\p{N}{1,4})"), std::nullopt);
  EXPECT_EQ(FindPreTokenizer(""), std::nullopt);
  EXPECT_EQ(FindPreTokenizer("gpt-5"), std::nullopt);
}

TEST(PreTokenizer, EveryNameCutsAnyBytesAndCoversThem) {
  std::string text;
  uint32_t state = 5;
  for (int i = 0; i < 5000; ++i) {
    state = state * 1664525 + 1013904223;
    static constexpr const char* kParts[] = {
        " ",        "\n",           "\r",           "a", "Z",    "7",        "'",       "s", "'LL",
        "\xc3\xa9", "\xe3\x80\x80", "\xe4\xb8\xad", "!", "\xff", "\xd9\xa3", "\xe4\xb8"};
    text += kParts[state >> 28];
  }
  for (const std::string name :
       {"llama-bpe", "qwen2",     "gpt-2",        "falcon",         "starcoder",
        "refact",    "command-r", "deepseek-llm", "deepseek-coder", "deepseek-v3",
        "mpt",       "smollm",    "gpt-4o",       "tekken",         "olmo",
        "dbrx",      "default",   "viking",       "qwen35",         "seed-coder"}) {
    ASSERT_THAT(PreTokenizerNames(), ::testing::HasSubstr(name));
    const auto pre = FindPreTokenizer(name);
    ASSERT_TRUE(pre.has_value()) << name;
    std::string all;
    for (const std::string& word : Words(pre->steps, text)) {
      ASSERT_FALSE(word.empty());
      all += word;
    }
    EXPECT_EQ(all, text) << name;
  }
}

TEST(PreTokenizer, StepsCutThePiecesOfTheStepBefore) {
  EXPECT_THAT(Words(FindPreTokenizer("starcoder")->steps, "ab 12 c"),
              ElementsAre("ab", " ", "1", "2", " c"));
  EXPECT_THAT(Words(FindPreTokenizer("falcon")->steps, "x== 12345 y"),
              ElementsAre("x", "==", " ", "123", "45", " y"));
}

TEST(PreTokenizer, MatchesAreKeptAsTheFileSays) {
  const auto cut = [](Keep keep, bool invert, std::string_view text) {
    return Words({{Cut::kText, keep, invert, "-"}}, text);
  };
  // The examples of the PyPI package's own documentation, where "-" is the match.
  const std::string text = "the-final--countdown";
  EXPECT_THAT(cut(Keep::kRemoved, false, text), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(cut(Keep::kIsolated, false, text),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(cut(Keep::kWithPrevious, false, text),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(cut(Keep::kWithNext, false, text), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(cut(Keep::kContiguous, false, text),
              ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(cut(Keep::kRemoved, true, text), ElementsAre("-", "-", "-"));
}

}  // namespace
}  // namespace snug
