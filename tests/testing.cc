#include "testing.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace snug::testing {
namespace {

std::string FromEnv(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != 0 ? value : fallback;
}

struct TempDirs {
  std::vector<std::string> paths;
  ~TempDirs() {
    for (const auto& p : paths) {
      std::error_code ec;
      std::filesystem::remove_all(p, ec);
    }
  }
};

}  // namespace

std::string SourcePath(const std::string& relative) {
  return std::string(SNUG_SOURCE_DIR) + "/" + relative;
}
std::string GoldenPath(const std::string& relative) {
  return FromEnv("SNUG_GOLDEN", std::string(SNUG_SOURCE_DIR) + "/../shared/golden") + "/" +
         relative;
}
std::string DataPath(const std::string& relative) {
  return FromEnv("SNUG_DATA", std::string(SNUG_SOURCE_DIR) + "/../shared/data") + "/" + relative;
}
std::string ModelPath(const std::string& name) {
  const std::string home = FromEnv("HOME", "/root");
  return FromEnv("SNUG_MODELS", home + "/.cache/snug/models") + "/" + name;
}
std::string ProgramPath() { return std::string(SNUG_BINARY_DIR) + "/snug"; }
bool Exists(const std::string& path) {
  std::error_code ec;
  return std::filesystem::exists(path, ec);
}
std::string TempDir() {
  static TempDirs dirs;
  std::string pattern = (std::filesystem::temp_directory_path() / "snug-test-XXXXXX").string();
  dirs.paths.emplace_back(mkdtemp(pattern.data()));
  return dirs.paths.back();
}
std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

}  // namespace snug::testing
