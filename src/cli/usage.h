// The words of the command line: llama.cpp's spellings, and errors that name the nearest word.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace snug::cli {

// The arguments in the order in which CLI11 parses vectors. Single-dash words of several letters,
// as llama.cpp's users type them, become long names (CLI11 would read -ctk as -c tk); those that
// Snug has no use for are kUsage with the reason, never accepted and ignored.
Result<std::vector<std::string>> Words(int argc, char** argv);

// What CLI11 refused, with the nearest verb, option or value.
Error UsageError(CLI::App& app, const CLI::ParseError& e);

// An option of a verb as it will be used, and where that came from: "flag", "environment" or
// "default".
struct Setting {
  std::string name, value, origin;
};
std::vector<Setting> Settings(const CLI::App& verb);

}  // namespace snug::cli
