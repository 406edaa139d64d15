// snug tokenize: text to tokens and back.
#include <fmt/format.h>

#include "cli/args.h"

namespace snug::cli {
namespace {

struct Args {
  std::string model, file = "-";
  bool json = false, no_special = false, decode = false;
};

Status Tokenize(const Args& a) {
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
  SNUG_ASSIGN(const Json json, ParseJson(text, "standard input"));
  const Json& list = json.is_object() && json.contains("tokens") ? json["tokens"] : json;
  if (!list.is_array())
    return MakeError(Code::kBadInput, "--decode needs an array of token ids",
                     "echo '[1, 2, 3]' | ...");
  for (const Json& t : list) {
    if (!t.is_number_integer() || t.get<int64_t>() < 0 ||
        t.get<int64_t>() >= static_cast<int64_t>(tokenizer->vocab_size())) {
      return MakeError(Code::kBadInput, fmt::format("{} is no token of this vocabulary of {}",
                                                    DumpJson(t), tokenizer->vocab_size()));
    }
    tokens.push_back(t.get<Token>());
  }
  const std::string out = tokenizer->Decode(tokens, !a.no_special);
  fmt::print("{}\n", a.json ? DumpJson({{"text", out}}) : out);
  return {};
}

}  // namespace

void AddTokenize(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<Args>();
  CLI::App* tokenize =
      app.add_subcommand("tokenize", "turn text into tokens, or with --decode tokens into text");
  tokenize->add_option("MODEL,-m,--model", a->model, "a GGUF file")->required();
  tokenize->add_option("-f,--file", a->file, "read from a file instead of standard input");
  tokenize->add_flag("--no-special", a->no_special,
                     "add no BOS or EOS; read special tokens' text as text");
  tokenize->add_flag("--decode", a->decode, "read a JSON array of ids");
  tokenize->add_flag("--json", a->json, "one JSON object on stdout");
  tokenize->callback([a, exit_code] {
    const Status s = Tokenize(*a);
    *exit_code = s.ok() ? 0 : Report(s.error(), a->json);
  });
}

}  // namespace snug::cli
