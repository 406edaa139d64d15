// The snug program: one file per verb beside this one.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>

#include "cli/args.h"
#include "cli/usage.h"
#include "kernel/matmul.h"

namespace {

using namespace snug;
using namespace snug::cli;

int Run(int argc, char** argv, bool json) {
  CLI::App app("Snug runs language models inside the memory you allow.", "snug");
  app.require_subcommand(0, 1);
  app.footer(
      "Exit codes: 0 done, 2 usage, 3 bad file or input, 4 does not fit, 5 cancelled.\n"
      "`snug VERB --help` explains a verb.");
  bool version = false;
  app.add_flag("--version", version, "print the version");
  int exit_code = 0;
  AddRun(app, &exit_code);
  AddChat(app, &exit_code);
  AddEmbed(app, &exit_code);
  AddPlan(app, &exit_code);
  AddInspect(app, &exit_code);
  AddTemplate(app, &exit_code);
  AddTokenize(app, &exit_code);
  AddAsk(app, &exit_code);
  AddEval(app, &exit_code);
  AddBench(app, &exit_code);
  AddConvert(app, &exit_code);
  AddQuantize(app, &exit_code);
  AddCalibrate(app, &exit_code);
  AddDoctor(app, &exit_code);
  AddMethods(app, &exit_code);
  AddRepro(app, &exit_code);
  Result<std::vector<std::string>> words = Words(argc, argv);
  if (!words.ok()) return Report(words.error(), json);
  try {
    app.parse(*words);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    return Report(UsageError(app, e), json);
  }
  if (version) {
    fmt::print("snug {} ({}; peak memory {})\n", SNUG_VERSION, KernelTarget(),
               FormatBytes(ReadProcessMemory().peak_rss));
    return 0;
  }
  if (app.get_subcommands().empty()) {
    fmt::print("{}", app.help());
    return 2;
  }
  return exit_code;
}

// What the standard library and fmt throw when the system refuses memory, a thread or a write.
int Guarded(int argc, char** argv) {
  const bool json =
      std::any_of(argv, argv + argc, [](const char* a) { return std::strcmp(a, "--json") == 0; });
  try {
    const int exit_code = Run(argc, argv, json);
    if (std::fflush(stdout) == 0) return exit_code;
    return Report(
        MakeError(Code::kIo, fmt::format("cannot write standard output: {}", std::strerror(errno))),
        false);
  } catch (const std::bad_alloc&) {
    return Report(MakeError(Code::kIo, "the system refused memory",
                            "raise the limit that `snug doctor` shows, or lower --memory"),
                  json);
  } catch (const std::system_error& e) {
    return Report(MakeError(Code::kIo, fmt::format("the system refused: {}", e.what())), json);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Guarded(argc, argv);
  } catch (...) {
    return ExitCode(Code::kIo);  // not even the error could be written
  }
}
