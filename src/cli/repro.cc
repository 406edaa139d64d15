// snug repro: published claims of the methods, run again on this machine.
#include "repro/repro.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "cli/results.h"

namespace snug::cli {
namespace {

struct ReproArgs {
  std::string slug, memory = "auto", out, results;
  ReproOptions options;
  bool all = false, json = false;
};

// The folder that -o names, or one that is gone when this is.
class Folder {
 public:
  static Result<Folder> Make(const std::string& out) {
    Folder f;
    f.path_ = out.empty() ? fmt::format("{}/snug-repro-{}",
                                        std::filesystem::temp_directory_path().string(), getpid())
                          : out;
    std::error_code failed;
    std::filesystem::create_directories(f.path_, failed);
    if (failed) {
      return MakeError(Code::kIo, fmt::format("{}: {}", f.path_, failed.message()),
                       "give -o a folder that can be made");
    }
    if (out.empty()) f.temporary_.reset(new std::string(f.path_));
    return f;
  }
  const std::string& path() const { return path_; }

 private:
  struct Remove {
    void operator()(std::string* path) const {
      std::error_code ignored;
      std::filesystem::remove_all(*path, ignored);
      delete path;
    }
  };
  std::string path_;
  std::unique_ptr<std::string, Remove> temporary_;
};

Status Write(const std::string& path, const std::string& text) {
  return WriteFileAtomically(path, text.data(), text.size());
}

Result<int> Run(ReproArgs& a) {
  if (a.all && a.options.model_path.empty()) std::swap(a.slug, a.options.model_path);
  if (a.options.model_path.empty() || a.slug.empty() != a.all) {
    return MakeError(Code::kUsage, "give a method and a model, or --all and a model",
                     "see `snug repro --help`");
  }
  std::span<const Repro> repros = Repros();
  if (!a.all) {
    const Repro* repro = FindRepro(a.slug);
    if (repro == nullptr) {
      std::string known;
      for (const Repro& r : repros) known += fmt::format("{}{}", known.empty() ? "" : ", ", r.slug);
      return MakeError(Code::kUsage, fmt::format("'{}' is no method with a reproduction", a.slug),
                       "one of " + known, {{"value", a.slug}});
    }
    repros = {repro, 1};
  }
  if (a.options.prefix < 1 || a.options.follow < 1 || a.options.prefix > kTrainedContext / 2 ||
      a.options.follow > kTrainedContext / 2) {
    return MakeError(Code::kUsage,
                     fmt::format("--prefix {} and --continue {} cannot be scored", a.options.prefix,
                                 a.options.follow),
                     "give one token or more of both");
  }
  SNUG_ASSIGN(a.options.budget, ParseBudget(a.memory, MemoryBounds()));
  if (a.all && a.out.empty()) a.out = "repro";
  SNUG_ASSIGN(const Folder folder, Folder::Make(a.out));
  a.options.folder = folder.path();
  if (a.results.empty()) a.results = a.out.empty() ? ":memory:" : a.out + "/results.db";
  SNUG_ASSIGN(Results results, Results::Open(a.results));
  a.options.store = &results;
  a.options.version = SNUG_VERSION;
  a.options.on_step = [](std::string_view step) { fmt::print(stderr, "{}\n", step); };
  a.options.go_on = [] { return !Interrupted(); };
  SNUG_ASSIGN(const std::vector<ReproReport> reports, RunRepros(repros, a.options));
  Json json = Json::array();
  std::string markdown;
  for (const ReproReport& r : reports) {
    json.push_back(ReproJson(r));
    markdown += (markdown.empty() ? "" : "\n") + ReproMarkdown(r);
  }
  const std::string object = DumpJson(a.all ? json : json[0], a.out.empty() ? -1 : 2);
  if (!a.out.empty()) {
    SNUG_TRY(Write(a.out + "/repro.md", markdown));
    SNUG_TRY(Write(a.out + "/repro.json", object + "\n"));
    SNUG_TRY(Write(a.out + "/repro.html", ReproHtml(reports)));
  }
  fmt::print("{}\n", a.json ? object : markdown);
  return 0;
}

}  // namespace

void AddRepro(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<ReproArgs>();
  Verb repro(app, "repro", "run a method's published claims again, here");
  std::string list;
  for (const Repro& r : Repros()) list += fmt::format("  {:<16}{}\n", r.slug, r.source);
  repro.Footer("methods:\n" + list +
               "examples: snug repro superpipeline model.gguf\n"
               "          snug repro h2o model.gguf --text book.txt --text other.txt\n"
               "          snug repro --all model.gguf --text book.txt -o report");
  repro.Add("METHOD", a->slug, "the method's name");
  repro.Add("MODEL,-m,--model", a->options.model_path, "the model");
  repro.Flag("--all", a->all, "all methods, instead of METHOD");
  repro
      .Add("--text,-f,--file", a->options.texts,
           "claims about caches are measured on this text (may be given several times)")
      .OneEach();
  repro.Add("--prefix", a->options.prefix, "tokens of each text that are read as a prompt")
      .Default();
  repro.Add("--continue", a->options.follow, "tokens that follow, over which caches are compared")
      .Default();
  repro.Add("--kv-channels", a->options.channels, "as `snug run` takes it: for double-sparsity")
      .Environment("SNUG_KV_CHANNELS");
  repro.Add("--kv-codebooks", a->options.codebooks, "as `snug run` takes it: for million")
      .Environment("SNUG_KV_CODEBOOKS");
  repro.Add("--kv-permutation", a->options.permutation, "as `snug run` takes it: for rotatekv")
      .Environment("SNUG_KV_PERMUTATION");
  repro.Add("-o,--out", a->out,
            "write repro.md, repro.json and repro.html into this folder (--all: \"repro\")");
  repro
      .Add("--results", a->results,
           "a file of evaluations: what is known there is not run again, so that a run that was "
           "stopped goes on (default: results.db in the folder of -o)")
      .Environment("SNUG_RESULTS");
  repro.Add("--memory", a->memory, "the budget of claims about caches").Default();
  repro.Add("-t,--threads", a->options.threads, "threads (0: all usable CPUs)").Default();
  repro.Flag("--quick", a->options.quick, "fewer settings, one text, a shorter prompt");
  repro.Flag("--json", a->json, "JSON on stdout");
  repro.Callback([a, exit_code] {
    const Result<int> r = Run(*a);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
