// snug repro: published claims of the methods, run again on this machine.
#include "repro/repro.h"

#include <fmt/format.h>

#include "cli/args.h"

namespace snug::cli {
namespace {

struct ReproArgs {
  std::string slug;
  ReproOptions options;
  bool json = false;
};

Result<int> Run(ReproArgs& a) {
  const Repro* repro = FindRepro(a.slug);
  if (repro == nullptr) {
    std::string known;
    for (const Repro& r : Repros()) known += fmt::format("{}{}", known.empty() ? "" : ", ", r.slug);
    return MakeError(Code::kUsage, fmt::format("'{}' is no method with a reproduction", a.slug),
                     "one of " + known, {{"value", a.slug}});
  }
  a.options.on_step = [](std::string_view step) { fmt::print(stderr, "{}\n", step); };
  SNUG_ASSIGN(const ReproReport report, repro->run(a.options));
  fmt::print("{}\n", a.json ? DumpJson(ReproJson(report)) : ReproMarkdown(report));
  return 0;
}

}  // namespace

void AddRepro(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<ReproArgs>();
  Verb repro(app, "repro", "run a method's published claims again, here");
  std::string list;
  for (const Repro& r : Repros()) list += fmt::format("  {:<16}{}\n", r.slug, r.source);
  repro.Footer("methods:\n" + list + "example: snug repro superpipeline model.gguf");
  repro.Add("METHOD", a->slug, "the method's name").Required();
  repro.Add("MODEL,-m,--model", a->options.model_path, "the model").Required();
  repro.Add("-t,--threads", a->options.threads, "threads (0: all usable CPUs)").Default();
  repro.Flag("--quick", a->options.quick, "fewer settings and tokens");
  repro.Flag("--json", a->json, "one JSON object on stdout");
  repro.Callback([a, exit_code] {
    const Result<int> r = Run(*a);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
