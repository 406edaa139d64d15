#include "format/safetensors.h"

#include <gtest/gtest.h>

#include <fstream>

#include "testing.h"

namespace snug {
namespace {

std::string Write(const std::string& header, size_t data) {
  const std::string path = testing::TempDir() + "/t.safetensors";
  const uint64_t n = header.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&n), 8);
  out << header << std::string(data, '\0');
  return path;
}

TEST(Safetensors, WritesAndReads) {
  const std::string path = testing::TempDir() + "/out.safetensors";
  {
    auto w = SafetensorsWriter::Create(path, {{"a", {2, 3}}, {"b", {1}}});
    ASSERT_TRUE(w.ok());
    EXPECT_FALSE(testing::Exists(path));  // appears when finished
    const float data[] = {1, 2, 3, 4, 5, 6, 7};
    ASSERT_TRUE(w->Append(data, 4).ok());
    ASSERT_TRUE(w->Append(data + 4, 3).ok());
    ASSERT_TRUE(w->Finish().ok());
  }
  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(*file->ReadF32("a"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(*file->ReadF32("b"), (std::vector<float>{7}));
  EXPECT_FALSE(file->ReadI32("a").ok());
  EXPECT_FALSE(file->ReadF32("c").ok());
}

TEST(Safetensors, FaultsAreRefused) {
  const std::pair<const char*, size_t> kBroken[] = {
      {"{", 4},
      {"[]", 0},
      {R"({"a":1})", 0},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4},
      {R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
       6},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8},
      {"[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]", 0}};
  for (const auto& [header, data] : kBroken) {
    auto file = SafetensorsFile::Open(Write(header, data));
    ASSERT_FALSE(file.ok()) << header;
    EXPECT_EQ(file.error().code, Code::kBadFile) << header;
  }
}

}  // namespace
}  // namespace snug
