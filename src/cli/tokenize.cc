// snug tokenize: text to tokens and back.
#include <fmt/format.h>

#include "cli/args.h"

namespace snug::cli {
namespace {

struct TokenizeArgs {
  std::string model, file = "-";
  bool json = false, no_special = false, decode = false;
};

Status Tokenize(const TokenizeArgs& a) {
  SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, ModelFile::Open(a.model));
  SNUG_ASSIGN(const uint64_t bytes, Tokenizer::PlannedBytes(*file));
  Ledger ledger(bytes);
  SNUG_ASSIGN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(*file, ledger));
  SNUG_ASSIGN(const std::string text, ReadText(a.file));
  std::vector<Token> tokens;
  if (!a.decode) {
    tokenizer->Encode(text, {!a.no_special, !a.no_special}, &tokens);
    if (a.json) {
      fmt::print("{}\n", DumpJson({{"tokens", tokens}}));
    } else {
      for (Token t : tokens) fmt::print("{:>7}  {}\n", t, DumpJson(tokenizer->TokenText(t)));
    }
    return {};
  }
  SNUG_ASSIGN(tokens, ParseTokens(text, a.file == "-" ? "standard input" : a.file));
  for (const Token t : tokens) {
    if (static_cast<size_t>(t) >= tokenizer->vocab_size()) {
      return MakeError(Code::kBadInput, fmt::format("{} is no token of this vocabulary of {}", t,
                                                    tokenizer->vocab_size()));
    }
  }
  const std::string out = tokenizer->Decode(tokens, !a.no_special);
  fmt::print("{}\n", a.json ? DumpJson({{"text", out}}) : out);
  return {};
}

}  // namespace

void AddTokenize(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<TokenizeArgs>();
  Verb tokenize(app, "tokenize", "turn text into tokens, or with --decode tokens into text");
  tokenize.Add("MODEL,-m,--model", a->model, "a GGUF file").Required();
  tokenize.Add("-f,--file", a->file, "read from a file instead of standard input");
  tokenize.Flag("--no-special", a->no_special,
                "add no BOS or EOS; read special tokens' text as text");
  tokenize.Flag("--decode", a->decode, "read a JSON array of ids");
  tokenize.Flag("--json", a->json, "one JSON object on stdout");
  tokenize.Callback([a, exit_code] {
    const Status s = Tokenize(*a);
    *exit_code = s.ok() ? 0 : Report(s.error(), a->json);
  });
}

}  // namespace snug::cli
