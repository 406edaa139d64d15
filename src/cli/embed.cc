// snug embed: texts to vectors, by an encoder inside the budget.
#include "engine/embed.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>

#include "base/progress.h"
#include "cli/args.h"
#include "cli/interrupt.h"

namespace snug::cli {
namespace {

struct EmbedArgs {
  EngineArgs engine;
  std::vector<std::string> texts;
  std::string file, pooling = "auto";
  bool normalize = false, no_normalize = false, truncate = false, json = false, quiet = false;
};

constexpr size_t kMaxTextLine = 1 << 20;

// Texts from the command line, or the lines of a file.
class Texts {
 public:
  static Result<Texts> Open(const EmbedArgs& a) {
    Texts t;
    t.given_ = a.texts;
    t.from_lines_ = t.given_.empty();
    if (t.from_lines_ && !a.file.empty() && a.file != "-") {
      t.name_ = a.file;
      t.file_.open(a.file);
      if (!t.file_) {
        return MakeError(Code::kBadFile, fmt::format("{}: cannot open", a.file), {},
                         {{"path", a.file}});
      }
    }
    return t;
  }
  Result<bool> Next(std::string* text) {
    if (Interrupted()) return Cancelled();
    if (!from_lines_) {
      if (next_ == given_.size()) return false;
      *text = given_[next_++];
      return true;
    }
    std::istream& in = file_.is_open() ? file_ : std::cin;
    text->clear();
    for (int c = in.get(); c != EOF; c = in.get()) {
      if (c == '\n') return true;
      text->push_back(static_cast<char>(c));
      if (text->size() > kMaxTextLine) {
        return MakeError(Code::kBadInput,
                         fmt::format("{}: a line is longer than {} bytes", name_, kMaxTextLine),
                         "each line is one text");
      }
    }
    return !text->empty();
  }

 private:
  std::vector<std::string> given_;
  size_t next_ = 0;
  bool from_lines_ = true;
  std::string name_ = "standard input";
  std::ifstream file_;
};

// Prints embeddings as they come: a line of numbers each, or the elements of one object's array.
class Printer {
 public:
  explicit Printer(bool json) : json_(json) {}
  void Begin(const Engine& engine, std::string_view pooling, bool normalized) {
    if (!json_) return;
    const Json head = {{"model", engine.config().name},
                       {"dim", engine.config().dim},
                       {"pooling", pooling},
                       {"normalized", normalized}};
    std::string text = DumpJson(head);
    text.back() = ',';  // the object goes on
    fmt::print("{}\"embeddings\":[", text);
  }
  void Add(std::span<const float> embedding) {
    line_.clear();
    for (size_t i = 0; i < embedding.size(); ++i) {
      fmt::format_to(std::back_inserter(line_), "{}{}",
                     i == 0  ? ""
                     : json_ ? ","
                             : " ",
                     embedding[i]);
    }
    if (json_) {
      fmt::print("{}[{}]", first_ ? "" : ",\n", line_);
    } else {
      fmt::print("{}\n", line_);
    }
    first_ = false;
  }
  // Closes the object with `rest` as its last members.
  void End(const Json& rest) {
    if (json_) fmt::print("],{}\n", DumpJson(rest).substr(1));
  }

 private:
  const bool json_;
  bool first_ = true;
  std::string line_;
};

Result<int> Run(const EmbedArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  options.embed = true;
  EmbedOptions embed;
  if (a.pooling != "auto") embed.pooling = a.pooling == "cls" ? Pooling::kCls : Pooling::kMean;
  if (a.normalize || a.no_normalize) embed.normalize = a.normalize;
  embed.truncate = a.truncate;
  SNUG_ASSIGN(Texts texts, Texts::Open(a));
  Progress loading("reading weights", ProgressUnit::kBytes, a.quiet);
  options.on_load = [&](uint64_t done, uint64_t total) {
    loading.Update(done, total);
    return !Interrupted();
  };
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  loading.Finish();
  const Pooling pooling = embed.pooling.value_or(engine->config().pooling);
  Printer printer(a.json);
  printer.Begin(*engine, pooling == Pooling::kCls ? "cls" : "mean",
                embed.normalize.value_or(engine->config().normalize));
  const Result<EmbedStats> done = Embed(
      *engine, embed, [&](std::string* text) { return texts.Next(text); },
      [&](std::span<const float> embedding, uint32_t) { printer.Add(embedding); });
  if (!done.ok()) {
    printer.End(ErrorJson(done.error()));
    return a.json ? ExitCode(done.error().code) : Report(done.error(), false);
  }
  const double rate = done->seconds > 0 ? static_cast<double>(done->tokens) / done->seconds : 0;
  const LedgerSnapshot ledger = engine->ledger().snapshot();
  printer.End({{"texts", done->texts},
               {"tokens", done->tokens},
               {"truncated", done->truncated},
               {"timings", {{"seconds", done->seconds}, {"tokens_per_second", rate}}},
               {"memory",
                {{"budget", options.budget.bytes},
                 {"planned", engine->plan().peak_total},
                 {"ledger_peak", ledger.total_peak},
                 {"rss_peak", ReadProcessMemory().peak_rss},
                 {"owners", OwnersJson(ledger.peak)}}}});
  if (!a.json && !a.quiet) {
    fmt::print(stderr, "{} texts, {} tokens at {:.1f}/s", done->texts, done->tokens, rate);
    if (done->truncated != 0) fmt::print(stderr, "; {} texts truncated", done->truncated);
    fmt::print(stderr, "\n");
    PrintMemoryTable(*engine);
  }
  return 0;
}

}  // namespace

void AddEmbed(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<EmbedArgs>();
  Verb embed(app, "embed", "turn texts into vectors with an encoder");
  embed.Footer(
      "example: snug embed minilm/ -f sentences.txt --json\n"
      "Each line of the file, or of standard input, is a text; its vector goes to stdout.");
  a->engine.Add(embed);
  embed.Add("-p,--prompt", a->texts, "a text (may be given again)");
  embed.Add("-f,--file", a->file, "texts, one a line (- or nothing: standard input)");
  embed.Add("--pooling", a->pooling, "auto (the model's own), mean of all tokens, or cls")
      .OneOf({"auto", "mean", "cls"})
      .Default();
  const Option on = embed.Flag("--normalize", a->normalize, "scale vectors to length 1");
  embed.Flag("--no-normalize", a->no_normalize, "leave vectors as they are").Excludes(on);
  embed.Flag("--truncate", a->truncate, "cut texts that exceed the context");
  embed.Flag("--json", a->json, "one JSON object on stdout");
  embed.Flag("-q,--quiet", a->quiet, "nothing on stderr but errors");
  embed.Callback([a, exit_code] {
    const Result<int> r = Run(*a);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
