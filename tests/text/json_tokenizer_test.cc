// tokenizer.json files of every family against Hugging Face's tokenizers, and broken ones.
#include <gmock/gmock.h>

#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "format/model_file.h"
#include "testing.h"
#include "text/tokenizer.h"

namespace snug {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Tokenizer> LoadPlanned(const std::string& path) {
  const auto planned = Tokenizer::PlannedBytesJson(path);
  if (!planned.ok()) {
    ADD_FAILURE() << planned.error().message;
    return nullptr;
  }
  static Ledger ledger(1024 * kMiB);
  const uint64_t before = ledger.snapshot().total;
  auto tokenizer = Tokenizer::LoadJson(path, ledger);
  if (!tokenizer.ok()) {
    ADD_FAILURE() << tokenizer.error().message;
    return nullptr;
  }
  EXPECT_EQ(ledger.snapshot().total - before, *planned);
  return std::move(*tokenizer);
}

void CheckCases(const Tokenizer& tokenizer, const std::string& cases_path) {
  const auto text = ReadWholeFile(cases_path, kMiB);
  ASSERT_TRUE(text.ok());
  const auto cases = ParseJson(*text, cases_path);
  ASSERT_TRUE(cases.ok());
  ASSERT_GT(cases->size(), 30u);
  for (const Json& item : *cases) {
    std::vector<Token> ids, plain;
    tokenizer.Encode(item["text"].get<std::string>(), {true, true}, &ids);
    tokenizer.Encode(item["text"].get<std::string>(), {false, true}, &plain);
    EXPECT_EQ(Json(ids), item["ids"]) << item["text"];
    EXPECT_EQ(Json(plain), item["plain"]) << item["text"];
    EXPECT_EQ(Json(tokenizer.Decode(ids, false)), item["decoded"]) << item["text"];
    EXPECT_EQ(Json(tokenizer.Decode(ids, true)), item["shown"]) << item["text"];
  }
}

class JsonFamilies : public ::testing::TestWithParam<std::string> {};

TEST_P(JsonFamilies, AsTheLibraryDoes) {
  const std::string path = testing::SourcePath("tests/data/tokenizers/" + GetParam());
  const auto tokenizer = LoadPlanned(path + ".json");
  ASSERT_NE(tokenizer, nullptr);
  CheckCases(*tokenizer, path + ".cases.json");
}

INSTANTIATE_TEST_SUITE_P(Families, JsonFamilies,
                         ::testing::Values("gpt2", "llama3", "qwen2", "falcon", "starcoder",
                                           "llama2", "gemma", "mistral", "t5", "xlmr", "bert",
                                           "bert_cased", "lower"),
                         [](const auto& p) { return p.param; });

class Broken : public ::testing::Test {
 protected:
  // The message of the error that a tokenizer.json gives.
  std::string Load(const std::string& text) {
    const std::string path = testing::TempDir() + "/tokenizer.json";
    std::ofstream(path) << text;
    const auto planned = Tokenizer::PlannedBytesJson(path);
    Ledger ledger(64 * kMiB);
    const auto tokenizer = Tokenizer::LoadJson(path, ledger);
    if (tokenizer.ok()) return "";
    EXPECT_EQ(tokenizer.error().code, Code::kBadFile);
    EXPECT_EQ(ledger.snapshot().total, 0u);
    return tokenizer.error().message;
  }
  std::string Model(const std::string& rest, const std::string& parts = "") {
    return R"({"model":{"type":"BPE",)" + rest + "}" + parts + "}";
  }
};

TEST_F(Broken, TheSmallestLoads) {
  EXPECT_EQ(Load(Model(R"("vocab":{"a":0,"b":1,"ab":2},"merges":["a b"])")), "");
  EXPECT_EQ(Load(Model(R"("merges":[["a","b"]],"vocab":{"a":0,"b":1,"ab":2})")), "");
}

TEST_F(Broken, FilesAreRefusedWithTheReason) {
  EXPECT_THAT(Load(""), HasSubstr("'{' expected"));
  EXPECT_THAT(Load("{}"), HasSubstr("no model.vocab"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":0)")), HasSubstr("',' expected"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":0} x)")), HasSubstr("',' expected"));
  EXPECT_THAT(Load(R"({"model":{"vocab":{"a":0}}} x)"), HasSubstr("more after the end"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":0,"a":1},"merges":[])")), HasSubstr("another has"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":0,"b":0},"merges":[])")), HasSubstr("another has"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":-1},"merges":[])")), HasSubstr("token id -1"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":9999999},"merges":[])")), HasSubstr("id 9999999"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":1e99},"merges":[])")), HasSubstr("no whole number"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":0},"merges":["ab"])")), HasSubstr("merge 0"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":0},"merges":["a b"])")), HasSubstr("merge 0"));
  EXPECT_THAT(Load(Model(R"("vocab":{"a":0},"merges":[["a"]])")), HasSubstr("merge 0"));
  EXPECT_THAT(Load(Model(R"("vocab":[["a",0]])")), HasSubstr("a list, not an object"));
  EXPECT_THAT(Load(Model(R"("vocab":{"\ud800":0})")), HasSubstr("surrogate"));
  EXPECT_THAT(Load(Model("\"vocab\":{\"\n\":0}")), HasSubstr("control character"));
  EXPECT_THAT(Load(R"({"model":{"type":"Unigram","vocab":[["a"],["b",0,0]]}})"),
              HasSubstr("more than a text and a score"));
  EXPECT_THAT(Load(R"({"model":{"type":"WordPiece","vocab":{"a":0},"unk_token":"u"}})"),
              HasSubstr("no token"));
  EXPECT_THAT(Load(R"({"added_tokens":[{"content":"a"}],"model":{"vocab":{"a":0}}})"),
              HasSubstr("without an id"));
}

TEST_F(Broken, WhatIsNotSupportedIsNamed) {
  const std::string vocab = R"("vocab":{"a":0},"merges":[])";
  EXPECT_THAT(Load(R"({"model":{"type":"WordLevel","vocab":{"a":0}}})"), HasSubstr("WordLevel"));
  EXPECT_THAT(Load(Model(vocab + R"(,"end_of_word_suffix":"</w>")")), HasSubstr("</w>"));
  EXPECT_THAT(Load(Model(vocab + R"(,"dropout":0.1)")), HasSubstr("dropout"));
  const auto split = [&](const std::string& regex) {
    return Load(Model(vocab, R"(,"pre_tokenizer":{"type":"Split","pattern":{"Regex":")" + regex +
                                 R"("},"behavior":"Isolated","invert":false})"));
  };
  EXPECT_EQ(split(R"(\\p{N}{1,3})"), "");
  EXPECT_THAT(split("(a+)+$"), HasSubstr("(a+)+$"));
  EXPECT_THAT(Load(Model(vocab, R"(,"pre_tokenizer":{"type":"UnicodeScripts"})")),
              HasSubstr("UnicodeScripts"));
  EXPECT_THAT(Load(Model(vocab, R"(,"normalizer":{"type":"Reverse"})")), HasSubstr("Reverse"));
  EXPECT_THAT(Load(Model(vocab, R"(,"post_processor":{"type":"Pair"})")), HasSubstr("Pair"));
  EXPECT_THAT(Load(Model(vocab, R"(,"decoder":{"type":"CTC"})")), HasSubstr("CTC"));
}

TEST_F(Broken, NestingAndSizesAreBounded) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "[";
  EXPECT_THAT(Load(R"({"x":)" + deep), HasSubstr("nested deeper"));
  EXPECT_THAT(Load(R"({"normalizer":)" + deep), HasSubstr("nested deeper"));
  const std::string long_text(100000, 'a');
  EXPECT_THAT(Load(Model(R"("vocab":{")" + long_text + R"(":0})")), HasSubstr("longer than"));
  std::string many = R"({"type":"Sequence","normalizers":[)";
  for (int i = 0; i < 100000; ++i) many += R"({"type":"NFC"},)";
  EXPECT_THAT(Load(R"({"normalizer":)" + many), HasSubstr("longer than"));
}

TEST_F(Broken, AnyCutOfAFileIsAnError) {
  const std::string path = testing::SourcePath("tests/data/tokenizers/t5.json");
  const auto text = ReadWholeFile(path, kMiB);
  ASSERT_TRUE(text.ok());
  for (size_t n = 0; n + 2 < text->size(); n += 97) EXPECT_NE(Load(text->substr(0, n)), "") << n;
}

class GoldenFolders : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenFolders, FolderAndGgufAgreeWithTheLibrary) {
  const std::string folder = testing::GoldenPath("tiny/" + GetParam());
  SNUG_NEED(folder + "/tokenizer.json");
  const std::string cases = testing::SourcePath("tests/data/tokenizers/golden.cases.json");
  const auto tokenizer = LoadPlanned(folder + "/tokenizer.json");
  ASSERT_NE(tokenizer, nullptr);
  CheckCases(*tokenizer, cases);
  if (!testing::Exists(folder + "/model.gguf")) return;  // qwen3next and two others have none
  const auto file = ModelFile::Open(folder + "/model.gguf");
  ASSERT_TRUE(file.ok());
  Ledger ledger(64 * kMiB);
  const auto gguf = Tokenizer::Load(**file, ledger);
  ASSERT_TRUE(gguf.ok()) << gguf.error().message;
  CheckCases(**gguf, cases);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenFolders,
                         ::testing::Values("gemma2", "gemma3", "gpt-oss", "llama", "llama-yarn",
                                           "llama3-rope", "mamba", "mamba2", "mistral-swa",
                                           "mixtral", "olmoe", "phi3", "qwen2", "qwen3", "qwen3moe",
                                           "qwen3next", "smollm3"),
                         [](const auto& p) {
                           std::string name = p.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace snug
