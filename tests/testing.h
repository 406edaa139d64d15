// Where tests find their data. A test that needs what is absent skips itself with the reason.
#pragma once

#include <gtest/gtest.h>

#include <string>

namespace snug::testing {

std::string SourcePath(const std::string& relative);  // a file of the project itself
std::string GoldenPath(const std::string& relative);  // SNUG_GOLDEN, default ../shared/golden
std::string DataPath(const std::string& relative);    // SNUG_DATA, default ../shared/data
std::string ModelPath(const std::string& name);       // SNUG_MODELS, default ~/.cache/snug/models
std::string ProgramPath();                            // the built `snug`
bool Exists(const std::string& path);
// A fresh empty folder, removed at exit.
std::string TempDir();
std::string ReadBytes(const std::string& path);  // of a file; empty where there is none

inline constexpr char kGemma[] = "gemma-3-270m-q4_k_m.gguf";
inline constexpr char kQwen[] = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf";

}  // namespace snug::testing

// Skips the test, saying so, where `path` is absent.
#define SNUG_NEED(path)                                                     \
  do {                                                                      \
    if (!snug::testing::Exists(path)) GTEST_SKIP() << "absent: " << (path); \
  } while (0)
