#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "format/gguf.h"
#include "testing.h"
#include "text/unicode.h"

namespace snug {
namespace {

struct GoldenCase {
  const char* name;
  bool real;  // a model file, else a vocabulary-only one
};

class GoldenTokens : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(GoldenTokens, ExactAndBack) {
  const GoldenCase c = GetParam();
  const std::string golden = testing::GoldenPath(std::string("tokens/") + c.name + ".json");
  const std::string model =
      c.real ? testing::ModelPath(testing::kGemma)
             : testing::DataPath(std::string("vocab/ggml-vocab-") + c.name + ".gguf");
  SNUG_NEED(golden);
  SNUG_NEED(model);
  auto file = GgufFile::Open(model);
  ASSERT_TRUE(file.ok()) << file.error().message;
  Ledger ledger(64 * kMiB);
  auto planned = Tokenizer::PlannedBytes(*file);
  auto tokenizer = Tokenizer::Load(*file, ledger);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ(ledger.snapshot().total_peak, *planned);
  const auto text = ReadWholeFile(golden, 64 * kMiB);
  const auto cases = ParseJson(*text, golden);
  ASSERT_TRUE(cases.ok());
  ASSERT_GT(cases->size(), 10u);
  for (const Json& item : *cases) {
    std::vector<Token> tokens;
    (*tokenizer)->Encode(item["text"].get<std::string>(), {false, true}, &tokens);
    EXPECT_EQ(tokens, item["tokens"].get<std::vector<Token>>()) << item["text"];
  }
}

INSTANTIATE_TEST_SUITE_P(
    Vocabularies, GoldenTokens,
    ::testing::Values(GoldenCase{"gemma-3-270m", true}, GoldenCase{"llama-spm", false},
                      GoldenCase{"qwen2", false}, GoldenCase{"gpt-2", false},
                      GoldenCase{"llama-bpe", false}, GoldenCase{"falcon", false},
                      GoldenCase{"starcoder", false}, GoldenCase{"deepseek-llm", false},
                      GoldenCase{"phi-3", false}, GoldenCase{"bert-bge", false}),
    [](const auto& p) {
      std::string name = p.param.name;
      for (char& ch : name) ch = ch == '-' ? '_' : ch;
      return name;
    });

TEST(Tokenizer, TextComesBackFromItsTokens) {
  const std::string model = testing::ModelPath(testing::kGemma);
  SNUG_NEED(model);
  auto file = GgufFile::Open(model);
  Ledger ledger(64 * kMiB);
  auto tokenizer = Tokenizer::Load(*file, ledger);
  for (const std::string text :
       {"Hello, world!  two spaces\n\nand\ttabs", "\xf0\x9f\x98\x80 \xe4\xbd\xa0\xe5\xa5\xbd",
        "\xff\xfe broken \xe4\xbd"}) {
    std::vector<Token> tokens;
    (*tokenizer)->Encode(text, {false, false}, &tokens);
    EXPECT_EQ((*tokenizer)->Decode(tokens, true), text);
  }
  std::vector<Token> tokens;
  (*tokenizer)->Encode("a", {true, true}, &tokens);
  EXPECT_EQ(tokens.front(), (*tokenizer)->bos());
  EXPECT_TRUE((*tokenizer)->IsEndOfGeneration((*tokenizer)->eos()));
}

TEST(Tokenizer, AMillionOfOneLetterIsNoTrap) {
  const std::string model = testing::DataPath("vocab/ggml-vocab-qwen2.gguf");
  SNUG_NEED(model);
  auto file = GgufFile::Open(model);
  Ledger ledger(64 * kMiB);
  auto tokenizer = Tokenizer::Load(*file, ledger);
  std::vector<Token> tokens;
  const std::string text(1 << 20, 'a');
  (*tokenizer)->Encode(text, {false, true}, &tokens);
  EXPECT_EQ((*tokenizer)->Decode(tokens, true), text);
}

TEST(Utf8Stream, AnySplitGivesTheSameText) {
  const std::string text = "a\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80z";
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      Utf8Stream stream;
      std::string out;
      stream.Push(text.substr(0, i), &out);
      const std::string so_far = out;
      EXPECT_EQ(text.substr(0, so_far.size()), so_far);
      stream.Push(text.substr(i, j - i), &out);
      stream.Push(text.substr(j), &out);
      stream.Finish(&out);
      EXPECT_EQ(out, text);
    }
  }
}

TEST(Utf8Stream, BytesThatCannotBecomeValidAreReplaced) {
  for (const std::string bad :
       {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf5", "\xe4\xbd", "\xf0\x9f"}) {
    Utf8Stream stream;
    std::string out;
    for (const char c : bad) stream.Push({&c, 1}, &out);
    stream.Push("x", &out);
    stream.Finish(&out);
    EXPECT_EQ(out.substr(0, 3), "\xef\xbf\xbd");
    EXPECT_EQ(out.back(), 'x');
    for (size_t i = 0; i < out.size();) {
      const CodePoint c = DecodeUtf8(out, i);
      EXPECT_TRUE(c.value != 0xfffd || c.bytes == 3);
      i += c.bytes;
    }
  }
}

}  // namespace
}  // namespace snug
