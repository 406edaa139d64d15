// Long writes: what a kill leaves is a part of the file and a note of how much of it is good, from
// which the next run goes on.
#include "format/output_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "testing.h"

namespace snug {
namespace {

constexpr uint64_t kCheckpoint = 1000;

std::string Content(size_t n) {
  std::string text(n, ' ');
  for (size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + i * i % 23);
  return text;
}

// Appends `content` from where the file is, up to `end`, in pieces of 300 bytes.
Status AppendTo(OutputFile& file, const std::string& content, uint64_t end) {
  while (file.position() < end) {
    const uint64_t n = std::min<uint64_t>(300, end - file.position());
    SNUG_TRY(file.Append(content.data() + file.position(), n));
  }
  return {};
}

TEST(OutputFile, GoesOnAfterAKill) {
  const std::string path = testing::TempDir() + "/out", content = Content(10000);
  const pid_t child = fork();
  if (child == 0) {
    auto file = OutputFile::Create(path, "id", kCheckpoint);
    if (!file.ok() || !AppendTo(*file, content, 5550).ok()) _exit(1);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(testing::Exists(path));
  auto file = OutputFile::Create(path, "id", kCheckpoint);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->resumed(), 4800u);  // the last of every 1200
  ASSERT_TRUE(AppendTo(*file, content, content.size()).ok());
  ASSERT_TRUE(file->Finish().ok());
  EXPECT_EQ(testing::ReadBytes(path), content);
  EXPECT_FALSE(testing::Exists(path + ".part"));
  EXPECT_FALSE(testing::Exists(path + ".part.state"));
}

TEST(OutputFile, WhatIsGivenUpIsNoted) {
  const std::string path = testing::TempDir() + "/out", content = Content(900);
  {
    auto file = OutputFile::Create(path, "id");
    ASSERT_TRUE(AppendTo(*file, content, 700).ok());
  }
  EXPECT_EQ(OutputFile::Create(path, "id")->resumed(), 700u);
  // Another identity begins anew, and so does a note of more than there is.
  EXPECT_EQ(OutputFile::Create(path, "other")->resumed(), 0u);
  std::ofstream(path + ".part.state") << R"({"identity": "id", "bytes": 800})";
  EXPECT_EQ(OutputFile::Create(path, "id")->resumed(), 0u);
}

TEST(OutputFile, ErrorsNameThePath) {
  const auto file = OutputFile::Create("/nonexistent/out", "id");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, Code::kIo);
}

}  // namespace
}  // namespace snug
