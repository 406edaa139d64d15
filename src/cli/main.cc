// The snug program: one file per verb beside this one.
#include <fmt/format.h>

#include <algorithm>

#include "cli/args.h"
#include "kernel/matmul.h"

namespace {

// Edits that turn a into b.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// The known verb or flag nearest to a mistyped word, or empty.
std::string Nearest(CLI::App& app, const std::string& word) {
  std::vector<std::string> known;
  const auto add_flags = [&](CLI::App* a) {
    for (const CLI::Option* o : a->get_options()) {
      for (const std::string& name : o->get_lnames()) known.push_back("--" + name);
    }
  };
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; }))
    known.push_back(sub->get_name());
  for (CLI::App* sub : app.get_subcommands()) add_flags(sub);
  add_flags(&app);
  std::string best;
  for (const std::string& k : known) {
    if (Distance(word, k) <= std::max<size_t>(2, k.size() / 3) &&
        (best.empty() || Distance(word, k) < Distance(word, best))) {
      best = k;
    }
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Snug runs language models inside the memory you allow.", "snug");
  app.require_subcommand(0, 1);
  app.footer(
      "Exit codes: 0 done, 2 usage, 3 bad file or input, 4 does not fit, 5 cancelled.\n"
      "`snug VERB --help` explains a verb.");
  bool version = false;
  app.add_flag("--version", version, "print the version");
  int exit_code = 0;
  using namespace snug::cli;
  AddRun(app, &exit_code);
  AddPlan(app, &exit_code);
  AddInspect(app, &exit_code);
  AddTokenize(app, &exit_code);
  AddEval(app, &exit_code);
  AddBench(app, &exit_code);
  AddDoctor(app, &exit_code);
  AddRepro(app, &exit_code);
  std::vector<std::string> args = RewriteAliases(argc, argv);
  const std::vector<std::string> given = args;
  const bool json = std::find(args.begin(), args.end(), "--json") != args.end();
  try {
    app.parse(args);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    std::string next;
    for (const std::string& word : given) {
      const bool known =
          !app.get_subcommands([&](CLI::App* v) { return v->get_name() == word; }).empty();
      if (known || std::string(e.what()).find(word) == std::string::npos) continue;
      if (const std::string near = Nearest(app, word); !near.empty() && near != word)
        next = "did you mean " + near + "?";
    }
    if (next.empty()) next = "see `snug --help`";
    return Report(snug::MakeError(snug::Code::kUsage, e.what(), next), json);
  }
  if (version) {
    fmt::print("snug {} ({}; peak memory {})\n", SNUG_VERSION, snug::KernelTarget(),
               snug::FormatBytes(snug::ReadProcessMemory().peak_rss));
    return 0;
  }
  if (app.get_subcommands().empty()) {
    fmt::print("{}", app.help());
    return 2;
  }
  return exit_code;
}
