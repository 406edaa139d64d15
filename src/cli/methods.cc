// snug methods: the published ways of saving memory that options name, by seam.
#include <fmt/format.h>

#include "cli/args.h"
#include "kv/keep/keep.h"

namespace snug::cli {
namespace {

Json MethodJson(const KeepEntry& e) {
  Json parameters = Json::array();
  for (const SpecParameter& p : e.parameters)
    parameters.push_back({{"name", p.name}, {"default", p.standard}, {"help", p.help}});
  return {{"seam", "kv.keep"},    {"name", e.name},         {"source", e.source},
          {"summary", e.summary}, {"observes", e.observes}, {"parameters", parameters}};
}

void Print() {
  fmt::print("kv.keep (--kv-keep NAME:PARAMETER=VALUE,...): which rows of the cache stay\n");
  for (const KeepEntry* e : KeepMethods()) {
    fmt::print("\n  {}: {}\n    {}; observes {}\n", e->name, e->summary, e->source, e->observes);
    for (const SpecParameter& p : e->parameters)
      fmt::print("    {:<16}{}\n", fmt::format("{}={}", p.name, p.standard), p.help);
  }
}

}  // namespace

void AddMethods(CLI::App& app, int* exit_code) {
  auto json = std::make_shared<bool>(false);
  Verb methods(app, "methods", "list the methods that options name, by seam");
  methods.Flag("--json", *json, "one JSON object on stdout");
  methods.Callback([json, exit_code] {
    Json list = Json::array();
    for (const KeepEntry* e : KeepMethods()) list.push_back(MethodJson(*e));
    if (*json) {
      fmt::print("{}\n", DumpJson({{"methods", list}}));
    } else {
      Print();
    }
    *exit_code = 0;
  });
}

}  // namespace snug::cli
