// tokenizer.json files made to take a machine's time or memory: refused, or harmless.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "base/json.h"
#include "format/hf_testing.h"
#include "testing.h"
#include "text/normalizer.h"
#include "text/tokenizer.h"

namespace snug {
namespace {

using ::testing::HasSubstr;

Json Times(int n, const Json& item) {
  Json list = Json::array();
  for (int i = 0; i < n; ++i) list.push_back(item);
  return list;
}
Json Replace(const std::string& from, const std::string& to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}
Json Split(const char* kind, const std::string& pattern) {
  return {{"type", "Split"}, {"pattern", {{kind, pattern}}}, {"behavior", "Isolated"}};
}

class HostileTokenizers : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Tokenizer>> Load(const Json& file) {
    testing::WriteText(path_, DumpJson(file));
    return Tokenizer::LoadJson(path_, ledger_);
  }
  // A BPE of a few letters with one part more.
  Json With(const char* part, Json value) {
    return {{part, std::move(value)},
            {"model",
             {{"type", "BPE"},
              {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"?", 3}}},
              {"merges", {"a b"}},
              {"unk_token", "?"}}}};
  }
  std::string Refusal(const Json& file) {
    const auto tokenizer = Load(file);
    if (tokenizer.ok()) return "";
    EXPECT_EQ(tokenizer.error().code, Code::kBadFile);
    return tokenizer.error().message;
  }
  size_t Tokens(const Json& file, const std::string& text) {
    const auto tokenizer = Load(file);
    if (!tokenizer.ok()) {
      ADD_FAILURE() << tokenizer.error().message;
      return 0;
    }
    std::vector<Token> tokens;
    (*tokenizer)->Encode(text, {true, true}, &tokens);
    return tokens.size();
  }
  const std::string path_ = testing::TempDir() + "/tokenizer.json";
  Ledger ledger_{64 * kMiB};
};

TEST_F(HostileTokenizers, StepsThatDoubleATextStop) {
  const auto steps = [&](int n, const Json& step) {
    return With("normalizer", {{"type", "Sequence"}, {"normalizers", Times(n, step)}});
  };
  EXPECT_EQ(Tokens(steps(5, Replace("a", "aa")), "a"), 32u);
  const std::string text(100000, 'a');
  EXPECT_LE(Tokens(steps(32, Replace("a", "aa")), text), NormalizedRoom(text.size()));
  EXPECT_LE(Tokens(steps(32, {{"type", "ByteLevel"}}), text + "\x01"),
            NormalizedRoom(text.size() + 1));
  EXPECT_LE(Tokens(steps(32, Replace("", "a")), text), NormalizedRoom(text.size()));
  // Not at every section of a text anew.
  Json file = steps(1, {{"type", "Prepend"}, {"prepend", std::string(4000, 'a')}});
  file["added_tokens"] = {{{"id", 4}, {"content", "<s>"}, {"special", true}}};
  std::string sections;
  for (int i = 0; i < 20000; ++i) sections += "b<s>";
  EXPECT_LE(Tokens(file, sections), NormalizedRoom(sections.size()) + sections.size());
  EXPECT_THAT(Refusal(steps(33, Replace("a", "aa"))), HasSubstr("33 steps; at most 32"));
}

TEST_F(HostileTokenizers, PreTokenizersThatLengthenAreFew) {
  const auto steps = [&](int n, const Json& step) {
    return With("pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Times(n, step)}});
  };
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  EXPECT_EQ(Refusal(steps(4, bytes)), "");
  EXPECT_THAT(Refusal(steps(5, bytes)), HasSubstr("5 steps that lengthen"));
  EXPECT_THAT(Refusal(steps(33, {{"type", "WhitespaceSplit"}})), HasSubstr("33 steps"));
  EXPECT_EQ(Refusal(steps(1, {{"type", "Metaspace"}, {"replacement", "é"}})), "");
  for (const char* replacement : {"", "ab", "\u2581\u2581"})
    EXPECT_THAT(Refusal(steps(1, {{"type", "Metaspace"}, {"replacement", replacement}})),
                HasSubstr("not one character"));
  EXPECT_THAT(Refusal(steps(1, Split("String", std::string(257, 'a')))), HasSubstr("257 bytes"));
  const std::string text(1 << 18, 'a');
  EXPECT_EQ(Tokens(steps(32, Split("String", std::string(255, 'a') + "b")), text), text.size());
}

// Expressions are those of published models, scanned by hand: no other is run.
TEST_F(HostileTokenizers, ExpressionsAreNotRun) {
  for (const char* regex :
       {"(a+)+$", "(a|a)*b", "((a*)*)*b", "(.*a){30}", "(?=(a+))\\1b", "(a{1,1000}){1,1000}",
        "^(([a-z])+.)+[A-Z]([a-z])+$", "(?<=a.*)b", "\\p{L}*\\p{L}*\\p{L}*\\d"}) {
    EXPECT_THAT(Refusal(With("pre_tokenizer", Split("Regex", regex))), HasSubstr(regex));
    Json replace = Replace("", "b");
    replace["pattern"] = {{"Regex", regex}};
    EXPECT_THAT(Refusal(With("normalizer", replace)), HasSubstr(regex));
  }
}

TEST_F(HostileTokenizers, DecodersAndTemplatesAreShort) {
  const auto decoder = [&](int n) {
    return With("decoder", {{"type", "Sequence"}, {"decoders", Times(n, Replace("a", "aa"))}});
  };
  EXPECT_THAT(Refusal(decoder(33)), HasSubstr("33 steps"));
  const auto tokenizer = Load(decoder(32));
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_LE((*tokenizer)->Decode({0, 2}, true).size(), 2 * NormalizedRoom(2));
  const Json special = {{"SpecialToken", {{"id", "?"}, {"type_id", 0}}}};
  Json list = Times(65, special);
  list.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  EXPECT_THAT(
      Refusal(With("post_processor", {{"type", "TemplateProcessing"},
                                      {"single", list},
                                      {"special_tokens", {{"?", {{"id", "?"}, {"ids", {3}}}}}}})),
      HasSubstr("65 tokens around a text"));
}

TEST_F(HostileTokenizers, LongTokensDoNotSlowEveryByte) {
  const std::string letters(60000, 'a'), text(1 << 17, 'a');
  Json unigram = {{"model", {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", Json::array()}}}};
  for (const std::string& token : {std::string("?"), std::string("a"), letters})
    unigram["model"]["vocab"].push_back(Json::array({token, -1}));
  EXPECT_EQ(Tokens(unigram, text), text.size());
  const Json pieces = {{"model",
                        {{"type", "WordPiece"},
                         {"unk_token", "?"},
                         {"max_input_chars_per_word", 10000},
                         {"vocab", {{"?", 0}, {"a", 1}, {"##a", 2}, {letters, 3}}}}}};
  EXPECT_EQ(Tokens(pieces, text), 1u);
  EXPECT_EQ(Tokens(pieces, text.substr(0, 9999)), 9999u);
}

TEST_F(HostileTokenizers, AddedTokensThatAlmostMatch) {
  Json file = With("added_tokens", Json::array());
  for (size_t n = 1; n < 255; ++n)
    file["added_tokens"].push_back(
        {{"id", 3 + n}, {"content", std::string(n, 'a') + "!"}, {"special", true}});
  const std::string text(1 << 18, 'a');
  EXPECT_EQ(Tokens(file, text), text.size());
  EXPECT_EQ(Tokens(file, "aaa!aa!b"), 3u);
}

TEST_F(HostileTokenizers, MergesAreOfTokens) {
  const auto merges = [&](const Json& list) {
    Json file = With("normalizer", nullptr);
    file["model"]["merges"] = list;
    return Refusal(file);
  };
  EXPECT_EQ(merges({"a b", "a b", "a b"}), "");
  for (const char* bad : {"a c", "c b", "b a", "a", " a b", "a b ", ""})
    EXPECT_THAT(merges({"a b", bad}), HasSubstr("merge 1")) << bad;
  EXPECT_THAT(merges(Json::array({Json::array({"a", "b", "ab"})})), HasSubstr("unexpected"));
  EXPECT_THAT(merges(Json::array({7})), HasSubstr("'[' expected"));
}

TEST_F(HostileTokenizers, TablesFitTheBudgetOrAreRefused) {
  Json file = With("normalizer", nullptr);
  Json& vocab = file["model"]["vocab"];
  for (int i = 4; i < 20000; ++i) vocab[fmt::format("token{}", i)] = i;
  testing::WriteText(path_, DumpJson(file));
  Ledger small(100 << 10);
  const auto refused = Tokenizer::LoadJson(path_, small);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kDoesNotFit);
  EXPECT_EQ(small.snapshot().total, 0u);
  // An id far beyond the vocabulary would make the tables large, not the file.
  vocab["far"] = 1 << 23;
  EXPECT_THAT(Refusal(file), HasSubstr("token id 8388608"));
}

}  // namespace
}  // namespace snug
