// tokenizer.model files against Google's sentencepiece, and broken ones.
#include <gmock/gmock.h>

#include <bit>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "format/hf_testing.h"
#include "format/model_file.h"
#include "testing.h"
#include "text/tokenizer.h"

namespace snug {
namespace {

using ::testing::HasSubstr;
using testing::WriteText;

std::string ModelPath(const std::string& name) {
  return testing::SourcePath("tests/data/sentencepiece/" + name + ".model");
}

std::string Bytes(const std::string& path) {
  const auto bytes = ReadWholeFile(path, kMiB);
  EXPECT_TRUE(bytes.ok()) << path;
  return bytes.ok() ? *bytes : "";
}

std::vector<Token> Encode(const Tokenizer& tokenizer, const std::string& text, bool parse) {
  std::vector<Token> ids;
  tokenizer.Encode(text, {false, parse}, &ids);
  return ids;
}

class SentencePieceModels : public ::testing::TestWithParam<const char*> {};

TEST_P(SentencePieceModels, AsThePackageDoes) {
  const std::string path = ModelPath(GetParam());
  const auto planned = Tokenizer::PlannedBytesSentencePiece(path);
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  Ledger ledger(64 * kMiB);
  const auto tokenizer = Tokenizer::LoadSentencePiece(path, ledger);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ(ledger.snapshot().total, *planned);
  EXPECT_EQ(ledger.snapshot().total_peak, *planned);
  const std::string cases_path = path.substr(0, path.size() - 5) + "cases.json";
  const auto cases = ParseJson(Bytes(cases_path), cases_path);
  ASSERT_TRUE(cases.ok());
  ASSERT_GT(cases->size(), 50u);
  for (const Json& item : *cases) {
    const std::vector<Token> ids = Encode(**tokenizer, item["text"].get<std::string>(), false);
    EXPECT_EQ(Json(ids), item["ids"]) << item["text"];
    if (!item.contains("decoded")) continue;
    EXPECT_EQ(Json((*tokenizer)->Decode(ids, false)), item["decoded"]) << item["text"];
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SentencePieceModels,
                         ::testing::Values("llama", "gemma", "bpe", "t5", "fallback", "suffix",
                                           "no_prefix"),
                         [](const auto& p) { return std::string(p.param); });

TEST(SentencePiece, ControlTokensAroundAndWithinText) {
  Ledger ledger(64 * kMiB);
  const auto tokenizer = Tokenizer::LoadSentencePiece(ModelPath("llama"), ledger);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->bos(), 1);
  EXPECT_EQ((*tokenizer)->eos(), 2);
  EXPECT_TRUE((*tokenizer)->add_bos());
  EXPECT_TRUE((*tokenizer)->IsEndOfGeneration(2));
  std::vector<Token> ids;
  (*tokenizer)->Encode("</s>", {true, true}, &ids);
  EXPECT_EQ(ids, (std::vector<Token>{1, 2}));
  EXPECT_GT(Encode(**tokenizer, "</s>", false).size(), 1u);
}

// ---- files made by hand

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value > 127; value >>= 7) bytes.push_back(static_cast<char>(value | 128));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string Number(uint32_t field, uint64_t value) { return Varint(field << 3) + Varint(value); }
std::string Message(uint32_t field, const std::string& bytes) {
  return Varint(field << 3 | 2) + Varint(bytes.size()) + bytes;
}
std::string Piece(const std::string& text, uint64_t type = 1, float score = 0) {
  const auto bits = std::bit_cast<uint32_t>(score);
  const std::string raw(reinterpret_cast<const char*>(&bits), 4);
  return Message(1, Message(1, text) + Varint(2 << 3 | 5) + raw + Number(3, type));
}
const std::string kUnknown = Piece("<unk>", 2);

class SentencePieceFiles : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Tokenizer>> Load(const std::string& bytes) {
    WriteText(path_, bytes);
    return Tokenizer::LoadSentencePiece(path_, ledger_);
  }
  // The message of the error.
  std::string Refusal(const std::string& bytes) {
    WriteText(path_, bytes);
    Ledger own(64 * kMiB);
    const auto tokenizer = Tokenizer::LoadSentencePiece(path_, own);
    if (tokenizer.ok()) return "";
    EXPECT_EQ(tokenizer.error().code, Code::kBadFile);
    EXPECT_EQ(own.snapshot().total, 0u);
    return tokenizer.error().message;
  }
  const std::string folder_ = testing::TempDir();
  const std::string path_ = folder_ + "/tokenizer.model";
  Ledger ledger_{64 * kMiB};
};

TEST_F(SentencePieceFiles, BrokenOnesAreRefusedWithTheReason) {
  EXPECT_EQ(Refusal(kUnknown + Piece("a")), "");
  EXPECT_THAT(Refusal(""), HasSubstr("0 tokens"));
  EXPECT_THAT(Refusal("{\"model\": 1}"), HasSubstr("no SentencePiece model"));
  EXPECT_THAT(Refusal(kUnknown + "\x0a\x7f"), HasSubstr("cut short"));
  EXPECT_THAT(Refusal(kUnknown + Message(1, Message(1, std::string(70000, 'a')))),
              HasSubstr("no SentencePiece model"));
  EXPECT_THAT(Refusal(kUnknown + Piece("a") + Piece("a")), HasSubstr("piece 2"));
  EXPECT_THAT(Refusal(kUnknown + Piece("")), HasSubstr("piece 1"));
  EXPECT_THAT(Refusal(Piece("a") + Piece("b")), HasSubstr("no unknown token"));
  EXPECT_THAT(Refusal(kUnknown + Message(2, Number(3, 3))), HasSubstr("model_type 3"));
  EXPECT_THAT(Refusal(kUnknown + Message(3, Message(2, "abcdefgh"))), HasSubstr("table of rules"));
  EXPECT_THAT(Refusal(kUnknown + std::string(11, '\xff')), HasSubstr("no SentencePiece model"));
  EXPECT_THAT(Refusal(kUnknown + "\x0b"), HasSubstr("no SentencePiece model"));  // a group
}

TEST_F(SentencePieceFiles, NoCutOfAFilePassesForAnother) {
  const std::string whole = Bytes(ModelPath("t5"));
  const auto all = Load(whole);
  ASSERT_TRUE(all.ok());
  const size_t tokens = (*all)->vocab_size();
  for (size_t n = 0; n < whole.size(); n += 13) {
    const auto cut = Load(whole.substr(0, n));
    EXPECT_TRUE(!cut.ok() || (*cut)->vocab_size() <= tokens) << n;
  }
}

TEST_F(SentencePieceFiles, UnknownFieldsAreSkippedAndUnusedPiecesNotMade) {
  const std::string unigram = kUnknown + Number(77, 5) + Message(99, "anything") +
                              Piece("a", 1, -1) + Piece("b", 1, -1) + Piece("ab", 5, 0) +
                              Piece("ba", 1, -1) + Message(3, Number(3, 0));
  const auto tokenizer = Load(unigram);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ(Encode(**tokenizer, "ab", false), (std::vector<Token>{1, 2}));
  EXPECT_EQ(Encode(**tokenizer, "ba", false), (std::vector<Token>{4}));
  EXPECT_EQ(Encode(**tokenizer, "xx", false), (std::vector<Token>{0}));
}

TEST_F(SentencePieceFiles, AddedTokensStandBeside) {
  const std::string model = Bytes(ModelPath("llama"));
  const auto plain = Load(model);
  ASSERT_TRUE(plain.ok());
  const auto n = static_cast<Token>((*plain)->vocab_size());
  WriteText(folder_ + "/added_tokens.json", DumpJson({{"<|im_start|>", n}, {"<|im_end|>", n + 2}}));
  const auto planned = Tokenizer::PlannedBytesSentencePiece(path_);
  Ledger own(64 * kMiB);
  const auto more = Tokenizer::LoadSentencePiece(path_, own);
  ASSERT_TRUE(more.ok()) << more.error().message;
  EXPECT_EQ(own.snapshot().total, *planned);
  EXPECT_EQ((*more)->vocab_size(), static_cast<size_t>(n) + 3);
  const auto ids = Encode(**more, "<|im_start|>a<|im_end|>", true);
  EXPECT_EQ(ids.front(), n);
  EXPECT_EQ(ids.back(), n + 2);
  EXPECT_TRUE((*more)->IsEndOfGeneration(n + 2));
  EXPECT_EQ((*more)->Decode(ids, true), "<|im_start|> a<|im_end|>");

  // The newer file goes first, and says how the token stands in a text.
  const auto config = [&](const Json& decoder) {
    WriteText(folder_ + "/tokenizer_config.json", DumpJson({{"added_tokens_decoder", decoder}}));
    return Refusal(model);
  };
  const Json tool = {{"content", "<tool>"}, {"special", false}, {"lstrip", true}};
  EXPECT_EQ(config({{std::to_string(n), tool}, {"1", {{"content", "<s>"}, {"special", true}}}}),
            "");
  const auto newer = Load(model);
  EXPECT_EQ((*newer)->vocab_size(), static_cast<size_t>(n) + 1);
  EXPECT_EQ(Encode(**newer, "   <tool>", false), (std::vector<Token>{n}));
  EXPECT_FALSE((*newer)->IsControl(n));
  EXPECT_TRUE((*newer)->IsControl(1));
  EXPECT_THAT(config({{"x", tool}}), HasSubstr("added_tokens_decoder[\"x\"]"));
  EXPECT_THAT(config({{"7", {{"id", 7}}}}), HasSubstr("added_tokens_decoder[\"7\"]"));
  EXPECT_THAT(config({{"7", tool}}), HasSubstr("id of another"));
  EXPECT_THAT(config({{"99999999", tool}}), HasSubstr("the added token 99999999"));
  EXPECT_THAT(config({{"-1", tool}}), HasSubstr("the added token -1"));
  EXPECT_THAT(config({{std::to_string(n), {{"content", "<s>"}}}}), HasSubstr("text of another"));
  EXPECT_THAT(config({{std::to_string(n), {{"content", std::string(300, 'a')}}}}),
              HasSubstr("300 bytes"));
}

// A folder that has both files is read by tokenizer.json; one with the model alone, by that.
TEST_F(SentencePieceFiles, TokenizerJsonGoesFirst) {
  WriteText(folder_ + "/config.json",
            R"({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 4, "rms_norm_eps": 1e-5,
                "tie_word_embeddings": true, "eos_token_id": 2})");
  testing::WriteSafetensors(folder_ + "/model.safetensors",
                            {testing::Counting("model.embed_tokens.weight", "F32", {3, 8}),
                             testing::Counting("model.norm.weight", "F32", {8})});
  WriteText(path_, Bytes(ModelPath("llama")));
  const auto load = [&](Ledger& own) -> std::unique_ptr<Tokenizer> {
    const auto file = ModelFile::Open(folder_);
    if (!file.ok()) return nullptr;
    const auto planned = Tokenizer::PlannedBytes(**file);
    auto tokenizer = Tokenizer::Load(**file, own);
    EXPECT_TRUE(tokenizer.ok());
    EXPECT_EQ(own.snapshot().total_peak, planned.ok() ? *planned : 0);
    return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
  };
  Ledger of_model(64 * kMiB), of_json(64 * kMiB);
  const auto model = load(of_model);
  ASSERT_NE(model, nullptr);
  EXPECT_GT(model->vocab_size(), 300u);
  EXPECT_TRUE(model->IsEndOfGeneration(2));
  WriteText(folder_ + "/tokenizer.json",
            R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
  const auto json = load(of_json);
  ASSERT_NE(json, nullptr);
  EXPECT_EQ(json->vocab_size(), 3u);
}

}  // namespace
}  // namespace snug
