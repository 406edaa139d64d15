// Vocabularies of GGUF files written as a folder's files, and those written back as GGUF's keys:
// the golden tokens either way.
#include "text/tokenizer_files.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "base/file.h"
#include "base/json.h"
#include "format/gguf.h"
#include "format/gguf_write.h"
#include "format/hf_testing.h"
#include "testing.h"
#include "text/gguf_vocabulary_write.h"
#include "text/tokenizer.h"

namespace snug {
namespace {

struct FileCase {
  const char* name;
  bool real = false;
};

class TokenizerFiles : public ::testing::TestWithParam<FileCase> {};

// A folder of these files, with the smallest model around them.
std::unique_ptr<ModelFile> MakeFolder(const std::string& path, const std::vector<TextFile>& files) {
  for (const TextFile& f : files) std::ofstream(path + "/" + f.name, std::ios::binary) << f.content;
  testing::WriteText(path + "/config.json",
                     R"({"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1,
                         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
                         "intermediate_size": 4, "tie_word_embeddings": true})");
  testing::WriteSafetensors(path + "/model.safetensors",
                            {testing::Counting("model.embed_tokens.weight", "F32", {3, 4})});
  auto folder = ModelFile::Open(path);
  EXPECT_TRUE(folder.ok()) << folder.error().message;
  return folder.ok() ? std::move(folder).value() : nullptr;
}

void ExpectGolden(const ModelFile& file, const Json& cases, const Tokenizer& original,
                  const char* what) {
  Ledger ledger(256 * kMiB);
  auto tokenizer = Tokenizer::Load(file, ledger);
  ASSERT_TRUE(tokenizer.ok()) << what << ": " << tokenizer.error().message;
  for (const Json& item : cases) {
    std::vector<Token> tokens;
    (*tokenizer)->Encode(item["text"].get<std::string>(), {false, true}, &tokens);
    EXPECT_EQ(tokens, item["tokens"].get<std::vector<Token>>()) << what << item["text"];
    EXPECT_EQ((*tokenizer)->Decode(tokens, true), original.Decode(tokens, true)) << what;
  }
  EXPECT_EQ((*tokenizer)->bos(), original.bos()) << what;
  EXPECT_EQ((*tokenizer)->eos(), original.eos()) << what;
  EXPECT_EQ((*tokenizer)->add_bos(), original.add_bos()) << what;
  for (Token id = 0; id < static_cast<Token>(original.vocab_size()); id += 7)
    EXPECT_EQ((*tokenizer)->IsEndOfGeneration(id), original.IsEndOfGeneration(id)) << what << id;
}

TEST_P(TokenizerFiles, GiveTheGoldenTokensAndSoDoTheKeysMadeOfThem) {
  const FileCase c = GetParam();
  const std::string golden = testing::GoldenPath(std::string("tokens/") + c.name + ".json");
  const std::string model =
      c.real ? testing::ModelPath(testing::kGemma)
             : testing::DataPath(std::string("vocab/ggml-vocab-") + c.name + ".gguf");
  SNUG_NEED(golden);
  SNUG_NEED(model);
  auto file = GgufFile::Open(model);
  ASSERT_TRUE(file.ok()) << file.error().message;
  Ledger ledger(256 * kMiB);
  auto original = Tokenizer::Load(*file, ledger);
  ASSERT_TRUE(original.ok());
  const auto cases = ParseJson(*ReadWholeFile(golden, 64 * kMiB), golden);
  ASSERT_TRUE(cases.ok());

  auto files = MakeTokenizerFiles(*file, ledger);
  ASSERT_TRUE(files.ok()) << files.error().message;
  const std::string path = testing::TempDir();
  // Ids of special tokens stand in generation_config.json.
  testing::WriteText(
      path + "/generation_config.json",
      DumpJson({{"bos_token_id", (*original)->bos()}, {"eos_token_id", (*original)->eos()}}));
  const auto folder = MakeFolder(path, *files);
  ASSERT_NE(folder, nullptr);
  ExpectGolden(*folder, *cases, **original, "folder ");

  GgufHeader header;
  for (const std::string& key : folder->keys()) ASSERT_TRUE(header.Copy(*folder, key).ok());
  const Status added = AddTokenizerKeys(*folder, 0, ledger, &header);
  ASSERT_TRUE(added.ok()) << added.error().message;
  header.AddTensor({"token_embd.weight", DType::kF32, {4, 1, 1, 1}, 2});
  std::string bytes = header.Finish();
  bytes.resize(bytes.size() + header.data_bytes());
  const std::string back = path + "/back.gguf";
  testing::WriteText(back, bytes);
  auto again = GgufFile::Open(back);
  ASSERT_TRUE(again.ok()) << again.error().message;
  ExpectGolden(*again, *cases, **original, "back ");
  // What llama.cpp goes by is what it was.
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.pre"}) {
    if (c.real) continue;
    EXPECT_EQ(again->GetString(key), file->GetString(key)) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerFiles,
                         ::testing::Values(FileCase{"gemma-3-270m", true}, FileCase{"llama-spm"},
                                           FileCase{"qwen2"}, FileCase{"gpt-2"},
                                           FileCase{"llama-bpe"}, FileCase{"starcoder"},
                                           FileCase{"deepseek-llm"}),
                         [](const auto& p) {
                           std::string name = p.param.name;
                           for (char& ch : name) ch = ch == '-' ? '_' : ch;
                           return name;
                         });

TEST(TokenizerFiles, WhatCannotBeWrittenIsNamed) {
  const std::string model = testing::DataPath("vocab/ggml-vocab-bert-bge.gguf");
  SNUG_NEED(model);
  auto file = GgufFile::Open(model);
  Ledger ledger(64 * kMiB);
  const auto files = MakeTokenizerFiles(*file, ledger);
  ASSERT_FALSE(files.ok());
  EXPECT_EQ(files.error().code, Code::kUsage);
  EXPECT_NE(files.error().message.find("bert"), std::string::npos);
}

}  // namespace
}  // namespace snug
