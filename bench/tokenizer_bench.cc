// Speed of a tokenizer on texts: tokenizer_bench [--ids FILE] MODEL TEXT...
// Prints a JSON object for each text: bytes, tokens, the best processor time of several runs, which
// other work on the machine hardly changes, and the time to load. MODEL is a GGUF file, a folder or
// a tokenizer.json. With --ids the tokens of all texts are written, one text a line.
#include <fmt/format.h>

#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "format/model_file.h"
#include "text/tokenizer.h"

namespace {

double Now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

int Fail(const snug::Error& error) {
  fmt::print(stderr, "{}\n", error.message);
  return 1;
}

snug::Result<std::unique_ptr<snug::Tokenizer>> Load(const std::string& path, snug::Ledger& ledger) {
  if (path.size() > 5 && path.substr(path.size() - 5) == ".json")
    return snug::Tokenizer::LoadJson(path, ledger);
  auto file = snug::ModelFile::Open(path);
  if (!file.ok()) return std::move(file).error();
  return snug::Tokenizer::Load(**file, ledger);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> args(argv + 1, argv + argc);
  std::ofstream ids;
  if (args.size() > 1 && args[0] == "--ids") {
    ids.open(args[1]);
    args.erase(args.begin(), args.begin() + 2);
  }
  if (args.size() < 2) {
    fmt::print(stderr, "tokenizer_bench [--ids FILE] MODEL TEXT...\n");
    return 2;
  }
  snug::Ledger ledger(snug::kMiB << 12);
  const double start = Now();
  const auto tokenizer = Load(args[0], ledger);
  if (!tokenizer.ok()) return Fail(tokenizer.error());
  const double load = Now() - start;
  for (size_t i = 1; i < args.size(); ++i) {
    const auto text = snug::ReadWholeFile(args[i], snug::kMiB << 8);
    if (!text.ok()) return Fail(text.error());
    std::vector<snug::Token> tokens;
    double best = 1e9, total = 0;
    for (int run = 0; run < 3 || (total < 1 && run < 20); ++run) {
      tokens.clear();
      const double begin = Now();
      (*tokenizer)->Encode(*text, {false, true}, &tokens);
      const double spent = Now() - begin;
      best = std::min(best, spent);
      total += spent;
    }
    fmt::print(R"({{"text":"{}","bytes":{},"tokens":{},"seconds":{:.6f},"load_seconds":{:.6f}}})"
               "\n",
               args[i], text->size(), tokens.size(), best, load);
    if (ids.is_open()) ids << fmt::format("{}\n", fmt::join(tokens, " "));
  }
  return 0;
}
