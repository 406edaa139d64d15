// snug methods: the published ways of saving memory that options name, by seam.
#include <fmt/format.h>

#include "cli/args.h"
#include "kv/codec/codec.h"
#include "kv/keep/keep.h"
#include "kv/place/place.h"
#include "kv/read/read.h"
#include "kv/share/share.h"
#include "tokens/reduce/reduce.h"

namespace snug::cli {
namespace {

// A method of any seam.
struct Method {
  std::string_view name, source, summary;
  std::string_view trait, says;  // what else its seam has to say of it
  std::span<const SpecParameter> parameters;
};
struct Seam {
  std::string_view name, option, decides;
  std::vector<Method> methods;
};

std::vector<Seam> Seams() {
  Seam codec{"kv.codec", "--kv", "how the cache's old rows are coded", {}};
  for (const CodecEntry* e : Codecs())
    codec.methods.push_back({e->name, e->source, e->summary, "needs", e->needs, e->parameters});
  Seam keep{"kv.keep", "--kv-keep", "which rows of the cache stay", {}};
  for (const KeepEntry* e : KeepMethods())
    keep.methods.push_back(
        {e->name, e->source, e->summary, "observes", e->observes, e->parameters});
  Seam read{"kv.read", "--kv-read", "which rows of the cache queries read", {}};
  for (const ReadEntry* e : ReadMethods())
    read.methods.push_back({e->name, e->source, e->summary, "index", e->index, e->parameters});
  Seam share{"kv.share", "--kv-share", "which layers of the cache hold rows together", {}};
  for (const ShareEntry* e : ShareMethods())
    share.methods.push_back({e->name, e->source, e->summary, "stores", e->stores, e->parameters});
  Seam place{"kv.place", "--kv-place", "where the rows live that decoded tokens choose from", {}};
  for (const PlaceEntry* e : Places())
    place.methods.push_back({e->name, e->source, e->summary, "holds", e->holds, e->parameters});
  Seam reduce{"tokens.reduce", "--reduce", "which tokens of a prompt are read", {}};
  for (const ReduceEntry* e : ReduceMethods())
    reduce.methods.push_back(
        {e->name, e->source, e->summary, "observes", e->observes, e->parameters});
  return {codec, keep, read, share, place, reduce};
}

Json MethodJson(const Seam& seam, const Method& m) {
  Json parameters = Json::array();
  for (const SpecParameter& p : m.parameters)
    parameters.push_back({{"name", p.name}, {"default", p.standard}, {"help", p.help}});
  return {{"seam", seam.name},    {"name", m.name},  {"source", m.source},
          {"summary", m.summary}, {m.trait, m.says}, {"parameters", parameters}};
}

void Print(const std::vector<Seam>& seams) {
  for (const Seam& seam : seams) {
    fmt::print("{}{} ({} NAME:PARAMETER=VALUE,...): {}\n", &seam == seams.data() ? "" : "\n",
               seam.name, seam.option, seam.decides);
    for (const Method& m : seam.methods) {
      fmt::print("\n  {}: {}\n    {}; {}: {}\n", m.name, m.summary, m.source, m.trait, m.says);
      for (const SpecParameter& p : m.parameters)
        fmt::print("    {:<16}{}\n", fmt::format("{}={}", p.name, p.standard), p.help);
    }
  }
}

}  // namespace

void AddMethods(CLI::App& app, int* exit_code) {
  auto json = std::make_shared<bool>(false);
  Verb methods(app, "methods", "list the methods that options name, by seam");
  methods.Flag("--json", *json, "one JSON object on stdout");
  methods.Callback([json, exit_code] {
    const std::vector<Seam> seams = Seams();
    Json list = Json::array();
    for (const Seam& seam : seams) {
      for (const Method& m : seam.methods) list.push_back(MethodJson(seam, m));
    }
    if (*json) {
      fmt::print("{}\n", DumpJson({{"methods", list}}));
    } else {
      Print(seams);
    }
    *exit_code = 0;
  });
}

}  // namespace snug::cli
