#include "cli/usage.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "base/nearest.h"

namespace snug::cli {
namespace {

struct Alias {
  std::string_view from, to;
};
constexpr Alias kAliases[] = {{"-ctk", "--cache-type-k"},
                              {"-ctv", "--cache-type-v"},
                              {"-np", "--parallel"},
                              {"-sys", "--system"},
                              {"-ub", "--ubatch-size"}};

// Options of llama.cpp that Snug has not, and what to do instead.
struct Foreign {
  std::string_view name, other, next;
};
constexpr Foreign kForeign[] = {
    {"-b", "--batch-size", "prompt tokens per step are --chunk (-ub)"},
    {"-fa", "--flash-attn", "attention is always fused"},
    {"-hf", "--hf-repo", "give a file: Snug downloads nothing"},
    {"-ngl", "--n-gpu-layers", "Snug computes on the processor"},
    {"-tb", "--threads-batch", "one number of threads, -t, serves prompts and answers"},
    {"--mlock", "", "weights are read into memory of the budget, never mapped"},
    {"--no-mmap", "", "weights are read into memory of the budget, never mapped"},
};

bool IsLetter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

Error Unknown(const std::string& word, const std::string& next) {
  return MakeError(Code::kUsage, fmt::format("'{}' is no option", word), next, {{"word", word}});
}

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* o : app.get_options()) {
    for (const std::string& n : o->get_lnames()) names.push_back("--" + n);
  }
  return names;
}

std::string Help(const CLI::App& app) {
  const auto verbs = app.get_subcommands();
  return fmt::format("see `snug {}--help`", verbs.empty() ? "" : verbs[0]->get_name() + " ");
}

std::string DidYouMean(const std::string& word, const std::vector<std::string>& candidates,
                       const CLI::App& app) {
  const std::string near = NearestWord(word, candidates);
  return near.empty() ? Help(app) : fmt::format("did you mean {}?", near);
}

Error Extras(CLI::App& app) {
  std::vector<std::string> words = app.remaining(true);
  const auto chosen = app.get_subcommands();
  if (chosen.empty()) {
    std::vector<std::string> verbs;
    for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
      verbs.push_back(verb->get_name());
    for (const std::string& word : words) {
      if (word[0] == '-') continue;
      return MakeError(Code::kUsage, fmt::format("'{}' is no verb", word),
                       DidYouMean(word, verbs, app), {{"word", word}});
    }
  }
  const CLI::App& verb = chosen.empty() ? app : *chosen[0];
  for (const std::string& word : words) {
    if (word.size() < 2 || word[0] != '-') continue;
    const std::string name = word.substr(0, word.find('='));
    return Unknown(name, DidYouMean(name, OptionNames(verb), app));
  }
  const std::string word = words.empty() ? "" : words[0];
  return MakeError(Code::kUsage, fmt::format("'{}' was not expected", word), Help(app),
                   {{"word", word}});
}

// "--weights: streem not in {auto,resident,stream}"
Error NotInSet(const std::string& what, const CLI::App& app) {
  constexpr std::string_view kMiddle = " not in {";
  const size_t colon = what.find(": "), middle = what.find(kMiddle), end = what.rfind('}');
  const std::string option = what.substr(0, colon);
  const std::string value = what.substr(colon + 2, middle - colon - 2);
  std::vector<std::string> set;
  for (size_t at = middle + kMiddle.size(); at < end;) {
    const size_t comma = std::min(what.find(',', at), end);
    set.push_back(what.substr(at, comma - at));
    at = comma + 1;
  }
  return MakeError(Code::kUsage,
                   fmt::format("{} '{}' is none of {}", option, value, fmt::join(set, ", ")),
                   DidYouMean(value, set, app), {{"option", option}, {"value", value}});
}

}  // namespace

Result<std::vector<std::string>> Words(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    for (const Foreign& f : kForeign) {
      if (!word.empty() && (word == f.name || word == f.other))
        return Unknown(word, std::string(f.next));
    }
    if (word.size() > 2 && word[0] == '-' && IsLetter(word[1]) && IsLetter(word[2])) {
      const auto* alias = std::find_if(std::begin(kAliases), std::end(kAliases),
                                       [&](const Alias& a) { return a.from == word; });
      if (alias == std::end(kAliases)) {
        std::vector<std::string> known;
        for (const Alias& a : kAliases) known.emplace_back(a.from);
        const std::string near = NearestWord(word, known);
        return Unknown(word, near.empty() ? "long options begin with two dashes; a text that "
                                            "begins with one goes after =, as --prompt=-x"
                                          : fmt::format("did you mean {}?", near));
      }
      word = alias->to;
    }
    words.push_back(std::move(word));
  }
  std::reverse(words.begin(), words.end());
  return words;
}

Error UsageError(CLI::App& app, const CLI::ParseError& e) {
  const std::string what = e.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&e) != nullptr) return Extras(app);
  if (what.find(" not in {") != std::string::npos) return NotInSet(what, app);
  return MakeError(Code::kUsage, what, Help(app));
}

std::vector<Setting> Settings(const CLI::App& verb) {
  std::vector<Setting> settings;
  for (const CLI::Option* o : verb.get_options()) {
    if (o->get_lnames().empty() || o->get_lnames()[0] == "help") continue;
    const std::string env = o->get_envname();
    std::string origin = "default", value = o->get_default_str();
    if (o->count() > 0) {
      value = fmt::format("{}", fmt::join(o->results(), ","));
      // CLI11 does not say which; a flag wins over the environment's text where they are equal.
      const char* text = env.empty() ? nullptr : std::getenv(env.c_str());
      origin = text != nullptr && value == text ? "environment" : "flag";
    }
    settings.push_back({o->get_lnames()[0], value, origin});
  }
  return settings;
}

}  // namespace snug::cli
