// A small GGUF is built in memory and broken in every way a reader must survive.
#include "format/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "format/gguf_builder.h"
#include "testing.h"

namespace snug {
namespace {

using Builder = testing::GgufBuilder;

std::string Write(const std::string& bytes, const std::string& name = "m.gguf") {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

Builder Good(uint32_t version = 3) {
  return Builder()
      .Header(version, 2, 3)
      .String("general.architecture", "llama")
      .U32("n", 7)
      .Strings("words", {"a", "", "long word"})
      .Tensor("w", {4, 3}, 0, 0)
      .Tensor("v", {32}, 8, 64)
      .Data(64 + 34);
}

TEST(Gguf, ReadsBothVersions) {
  for (uint32_t version : {2u, 3u}) {
    auto file = GgufFile::Open(Write(Good(version).bytes));
    ASSERT_TRUE(file.ok()) << file.error().message;
    EXPECT_EQ(file->version(), version);
    EXPECT_EQ(file->GetString("general.architecture"), "llama");
    EXPECT_EQ(file->GetUint("n"), 7u);
    EXPECT_EQ(file->GetUint("absent"), std::nullopt);
    std::vector<std::string> words;
    ASSERT_TRUE(
        file->ForEachString("words", [&](uint64_t, std::string_view s) { words.emplace_back(s); })
            .ok());
    EXPECT_EQ(words, (std::vector<std::string>{"a", "", "long word"}));
    ASSERT_NE(file->Find("w"), nullptr);
    EXPECT_EQ(file->Find("w")->rows(), 3u);
    EXPECT_EQ(file->Find("w")->bytes, 48u);
    EXPECT_EQ(file->Find("v")->bytes, 34u);
    EXPECT_EQ(file->Describe().size(), 3u);
  }
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string whole = Good().bytes;
  for (size_t n = 0; n < whole.size(); ++n) {
    auto file = GgufFile::Open(Write(whole.substr(0, n)));
    ASSERT_FALSE(file.ok()) << n;
    EXPECT_EQ(file.error().code, Code::kBadFile);
  }
}

// Any single byte may be wrong: the reader answers or refuses, and does not crash.
TEST(Gguf, EveryDamagedByteIsSurvived) {
  const std::string whole = Good().bytes;
  const std::string path = Write(whole);
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const uint8_t flip : {0x01, 0x80, 0xff}) {
      std::string bad = whole;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      std::ofstream(path, std::ios::binary) << bad;
      auto file = GgufFile::Open(path);
      EXPECT_TRUE(file.ok() || !file.error().message.empty());
    }
  }
}

struct Broken {
  const char* name;
  std::function<Builder()> make;
  const char* expected;  // a word of the message
};

TEST(Gguf, EachFaultIsNamed) {
  const Broken kCases[] = {
      {"magic",
       [] {
         Builder b;
         b.bytes = "GGML0000000000000000000000000000";
         return b;
       },
       "not a GGUF"},
      {"version 1", [] { return Builder().Header(1, 0, 0).Data(64); }, "version 1"},
      {"big endian", [] { return Builder().Header(0x03000000, 0, 0).Data(64); }, "big-endian"},
      {"tensor count", [] { return Builder().Header(3, uint64_t{1} << 60, 0).Data(64); },
       "tensor count"},
      {"key count", [] { return Builder().Header(3, 0, uint64_t{1} << 60).Data(64); }, "key count"},
      {"key length", [] { return Builder().Header(3, 0, 1).Put<uint64_t>(~uint64_t{0}).Data(64); },
       "truncated"},
      {"empty key", [] { return Builder().Header(3, 0, 1).U32("", 1).Data(64); }, "empty key"},
      {"value type", [] { return Builder().Header(3, 0, 1).Text("k").Put<uint32_t>(99).Data(64); },
       "unknown type"},
      {"twice", [] { return Builder().Header(3, 0, 2).U32("k", 1).U32("k", 2).Data(64); }, "twice"},
      {"bool",
       [] { return Builder().Header(3, 0, 1).Text("k").Put<uint32_t>(7).Put<uint8_t>(9).Data(64); },
       "bool"},
      {"nested array",
       [] {
         return Builder()
             .Header(3, 0, 1)
             .Text("k")
             .Put<uint32_t>(9)
             .Put<uint32_t>(9)
             .Put<uint64_t>(1)
             .Data(64);
       },
       "nested"},
      {"array length",
       [] {
         return Builder()
             .Header(3, 0, 1)
             .Text("k")
             .Put<uint32_t>(9)
             .Put<uint32_t>(4)
             .Put<uint64_t>(uint64_t{1} << 62)
             .Data(64);
       },
       "array of"},
      {"string in array",
       [] {
         return Builder()
             .Header(3, 0, 1)
             .Text("k")
             .Put<uint32_t>(9)
             .Put<uint32_t>(8)
             .Put<uint64_t>(1)
             .Put(~uint64_t{0})
             .Data(64);
       },
       "truncated"},
      {"alignment 0", [] { return Builder().Header(3, 0, 1).U32("general.alignment", 0).Data(64); },
       "alignment"},
      {"alignment 3", [] { return Builder().Header(3, 0, 1).U32("general.alignment", 3).Data(64); },
       "alignment"},
      {"no name", [] { return Builder().Header(3, 1, 0).Tensor("", {4}, 0, 0).Data(64); },
       "without a name"},
      {"0 dims", [] { return Builder().Header(3, 1, 0).Tensor("w", {}, 0, 0).Data(64); },
       "dimensions"},
      {"5 dims",
       [] {
         return Builder().Header(3, 1, 0).Tensor("w", {1, 1, 1, 1, 1}, 0, 0).Data(64);
       },
       "dimensions"},
      {"zero dim",
       [] {
         return Builder().Header(3, 1, 0).Tensor("w", {4, 0}, 0, 0).Data(64);
       },
       "dimension 0"},
      {"overflow",
       [] {
         return Builder()
             .Header(3, 1, 0)
             .Tensor("w", {uint64_t{1} << 39, uint64_t{1} << 39}, 0, 0)
             .Data(64);
       },
       "dimension"},
      {"type", [] { return Builder().Header(3, 1, 0).Tensor("w", {4}, 77, 0).Data(64); },
       "type 77"},
      {"block", [] { return Builder().Header(3, 1, 0).Tensor("w", {33}, 8, 0).Data(64); }, "block"},
      {"offset", [] { return Builder().Header(3, 1, 0).Tensor("w", {4}, 0, 5).Data(64); },
       "aligned"},
      {"past the end", [] { return Builder().Header(3, 1, 0).Tensor("w", {4}, 0, 1024).Data(64); },
       "truncated"},
      {"offset overflow",
       [] { return Builder().Header(3, 1, 0).Tensor("w", {4}, 0, ~uint64_t{31}).Data(64); },
       "truncated"},
      {"same tensor",
       [] {
         return Builder().Header(3, 2, 0).Tensor("w", {4}, 0, 0).Tensor("w", {4}, 0, 32).Data(64);
       },
       "twice"},
      {"overlap",
       [] {
         return Builder().Header(3, 2, 0).Tensor("w", {16}, 0, 0).Tensor("v", {16}, 0, 32).Data(96);
       },
       "overlap"},
      {"split alone", [] { return Builder().Header(3, 0, 1).U32("split.count", 3).Data(64); },
       "part 1 of a split"},
  };
  for (const Broken& c : kCases) {
    auto file = GgufFile::Open(Write(c.make().bytes));
    ASSERT_FALSE(file.ok()) << c.name;
    EXPECT_EQ(file.error().code, Code::kBadFile) << c.name;
    EXPECT_NE(file.error().message.find(c.expected), std::string::npos)
        << c.name << ": " << file.error().message;
  }
  EXPECT_FALSE(GgufFile::Open("/nonexistent.gguf").ok());
}

// Keys and strings that are kept in memory have a limit together, not only each.
TEST(Gguf, KeptTextIsLimited) {
  Builder b;
  b.Header(3, 0, 5);
  for (int i = 0; i < 5; ++i) b.String("k" + std::to_string(i), std::string(15 << 20, 'x'));
  auto file = GgufFile::Open(Write(b.Data(64).bytes));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, Code::kBadFile);
  EXPECT_NE(file.error().message.find("keys and values hold"), std::string::npos);
}

TEST(Gguf, SplitFilesAreOneModel) {
  const std::string dir = testing::TempDir();
  auto part = [&](uint32_t no, const std::string& tensor) {
    const auto b = Builder()
                       .Header(3, 1, 3)
                       .U32("split.no", no)
                       .U32("split.count", 2)
                       .U32("split.tensors.count", 2)
                       .Tensor(tensor, {8}, 0, 0)
                       .Data(32);
    std::ofstream(dir + "/m-0000" + std::to_string(no + 1) + "-of-00002.gguf", std::ios::binary)
        << b.bytes;
  };
  part(0, "a");
  auto missing = GgufFile::Open(dir + "/m-00001-of-00002.gguf");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("part 2"), std::string::npos);
  part(1, "b");
  auto file = GgufFile::Open(dir + "/m-00001-of-00002.gguf");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->Find("b")->file, 1u);
  EXPECT_FALSE(GgufFile::Open(dir + "/m-00002-of-00002.gguf").ok());
}

}  // namespace
}  // namespace snug
