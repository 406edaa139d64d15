// snug methods: the published ways of saving memory that options name, by seam.
#include <fmt/format.h>

#include "cli/args.h"
#include "kv/codec/codec.h"
#include "kv/keep/keep.h"

namespace snug::cli {
namespace {

Json ParametersJson(std::span<const SpecParameter> parameters) {
  Json list = Json::array();
  for (const SpecParameter& p : parameters)
    list.push_back({{"name", p.name}, {"default", p.standard}, {"help", p.help}});
  return list;
}

Json MethodsJson() {
  Json list = Json::array();
  for (const CodecEntry* e : Codecs()) {
    list.push_back({{"seam", "kv.codec"},
                    {"name", e->name},
                    {"source", e->source},
                    {"summary", e->summary},
                    {"observes", "nothing"},
                    {"parameters", ParametersJson(e->parameters)}});
  }
  for (const KeepEntry* e : KeepMethods()) {
    list.push_back({{"seam", "kv.keep"},
                    {"name", e->name},
                    {"source", e->source},
                    {"summary", e->summary},
                    {"observes", e->observes},
                    {"parameters", ParametersJson(e->parameters)}});
  }
  return list;
}

void Print(const Json& methods) {
  constexpr std::pair<std::string_view, std::string_view> kSeams[] = {
      {"kv.codec", "(--kv NAME:PARAMETER=VALUE,...): how the cache's old rows are coded"},
      {"kv.keep", "(--kv-keep NAME:PARAMETER=VALUE,...): which rows of the cache stay"}};
  for (const auto& [seam, what] : kSeams) {
    fmt::print("{}{} {}\n", seam == kSeams[0].first ? "" : "\n", seam, what);
    for (const Json& m : methods) {
      if (m["seam"] != seam) continue;
      const auto text = [](const Json& j, const char* key) { return j[key].get<std::string>(); };
      fmt::print("\n  {}: {}\n    {}; observes {}\n", text(m, "name"), text(m, "summary"),
                 text(m, "source"), text(m, "observes"));
      for (const Json& p : m["parameters"]) {
        fmt::print("    {:<16}{}\n", fmt::format("{}={}", text(p, "name"), text(p, "default")),
                   text(p, "help"));
      }
    }
  }
}

}  // namespace

void AddMethods(CLI::App& app, int* exit_code) {
  auto json = std::make_shared<bool>(false);
  Verb methods(app, "methods", "list the methods that options name, by seam");
  methods.Flag("--json", *json, "one JSON object on stdout");
  methods.Callback([json, exit_code] {
    if (*json) {
      fmt::print("{}\n", DumpJson({{"methods", MethodsJson()}}));
    } else {
      Print(MethodsJson());
    }
    *exit_code = 0;
  });
}

}  // namespace snug::cli
