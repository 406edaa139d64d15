// snug run: a prompt in, text out, inside the budget.
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>

#include "cli/args.h"
#include "engine/generate.h"

namespace snug::cli {
namespace {

std::atomic<bool> cancelled{false};

// The first interrupt ends the answer, the second the program.
void OnInterrupt(int) {
  if (cancelled.exchange(true)) _exit(130);
}

struct RunArgs {
  EngineArgs engine;
  std::string prompt, file;
  GenerateOptions generate;
  std::string speculate = "off";
  bool json = false, quiet = false;
};

constexpr uint32_t kDraft = 15;  // tokens verified beside the current one

Result<std::string> Prompt(const RunArgs& a) {
  if (!a.prompt.empty()) return a.prompt;
  return ReadText(a.file.empty() ? "-" : a.file);
}

Result<int> Run(RunArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  SNUG_TRY(a.generate.sampling.Validate());
  SNUG_ASSIGN(const std::string text, Prompt(a));
  a.generate.lookup = a.speculate == "lookup";
  options.lookup = a.generate.lookup;
  if (options.lookup) options.logit_rows = 1 + kDraft;
  const auto start = std::chrono::steady_clock::now();
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  std::vector<Token> prompt;
  engine->tokenizer().Encode(text, {}, &prompt);
  const bool tty = isatty(STDERR_FILENO) != 0;
  if (!a.quiet) {
    fmt::print(stderr, "{}: {}, weights {}, budget {} ({}), context {}, {} threads, seed {}\n",
               engine->config().name, engine->config().arch,
               engine->plan().resident ? "resident" : "streamed", FormatBytes(options.budget.bytes),
               options.budget.origin, options.context, engine->plan().threads,
               a.generate.sampling.seed);
  }
  if (tty && !a.quiet) {
    a.generate.on_prefill = [](uint32_t done, uint32_t total) {
      fmt::print(stderr, "\rprompt {} of {} tokens{}", done, total, done == total ? "\n" : "");
    };
  }
  if (!a.json) {
    a.generate.on_text = [](std::string_view piece) {
      fmt::print("{}", piece);
      std::fflush(stdout);
    };
  }
  a.generate.cancel = &cancelled;
  std::signal(SIGINT, OnInterrupt);
  const double open_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  SNUG_ASSIGN(const Generation g, Generate(*engine, 0, prompt, a.generate));
  const LedgerSnapshot ledger = engine->ledger().snapshot();
  const ProcessMemory os = ReadProcessMemory();
  if (a.json) {
    const Json out = {{"text", g.text},
                      {"tokens", g.tokens},
                      {"prompt_tokens", g.prompt_tokens},
                      {"cached_tokens", g.cached_tokens},
                      {"finish_reason", g.finish_reason},
                      {"timings",
                       {{"prefill_tps", g.prefill_tps()},
                        {"decode_tps", g.decode_tps()},
                        {"ttft_ms", 1e3 * (open_s + g.ttft_s)},
                        {"load_ms", 1e3 * open_s}}},
                      {"memory",
                       {{"budget", options.budget.bytes},
                        {"planned", engine->plan().peak_total},
                        {"ledger_peak", ledger.total_peak},
                        {"rss_peak", os.peak_rss},
                        {"owners", OwnersJson(ledger.peak)}}},
                      {"bytes_touched_per_token", g.bytes_touched_per_token},
                      {"disk_bytes_per_token", g.disk_bytes_per_token},
                      {"speculation", {{"drafted", g.drafted}, {"accepted", g.accepted}}}};
    fmt::print("{}\n", DumpJson(out));
  } else {
    fmt::print("\n");
    if (!a.quiet) {
      fmt::print(stderr,
                 "\n{} prompt tokens at {:.1f}/s, {} new at {:.1f}/s ({}), first after {:.2f} s; "
                 "{} touched a token",
                 g.prompt_tokens, g.prefill_tps(), g.tokens.size(), g.decode_tps(), g.finish_reason,
                 open_s + g.ttft_s, FormatBytes(static_cast<uint64_t>(g.bytes_touched_per_token)));
      if (g.disk_bytes_per_token > 0) {
        fmt::print(stderr, ", {} read from disk",
                   FormatBytes(static_cast<uint64_t>(g.disk_bytes_per_token)));
      }
      if (g.drafted > 0)
        fmt::print(stderr, "; {} of {} drafted tokens held", g.accepted, g.drafted);
      fmt::print(stderr, "\n");
      PrintMemoryTable(*engine);
    }
  }
  return g.finish_reason == "cancelled" ? ExitCode(Code::kCancelled) : 0;
}

}  // namespace

void AddRun(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<RunArgs>();
  CLI::App* run = app.add_subcommand("run", "generate text from a prompt inside the budget");
  run->footer(
      "example: snug run model.gguf --memory 600MiB -p 'Once upon a time' -n 100\n"
      "The answer goes to stdout, all else to stderr. Ctrl-C keeps what there is and ends with 5.");
  a->engine.Add(*run);
  run->add_option("-p,--prompt", a->prompt, "the prompt, as it is");
  run->add_option("-f,--file", a->file,
                  "read the prompt from a file (- or nothing: standard input)");
  run->add_option("-n,--predict", a->generate.max_tokens, "tokens to generate at most")
      ->capture_default_str();
  SamplingOptions& s = a->generate.sampling;
  run->add_option("--temp", s.temperature, "temperature; 0 takes the likeliest token")
      ->capture_default_str();
  run->add_option("--top-k", s.top_k, "sample among the k likeliest (0: off)")
      ->capture_default_str();
  run->add_option("--top-p", s.top_p, "sample among the likeliest that make up p (1: off)")
      ->capture_default_str();
  run->add_option("--min-p", s.min_p, "drop what is less likely than p times the likeliest")
      ->capture_default_str();
  run->add_option("--repeat-penalty", s.repeat_penalty, "penalty of recent tokens (1: off)")
      ->capture_default_str();
  run->add_option("--repeat-last-n", s.repeat_last, "how many tokens are recent")
      ->capture_default_str();
  run->add_option("-s,--seed", s.seed, "seed of the sampler")->capture_default_str();
  run->add_option("--stop", a->generate.stop, "end before this text (may be given again)");
  run->add_flag("--ignore-eos", a->generate.ignore_eos, "go on past end-of-generation tokens");
  run->add_option("--speculate", a->speculate,
                  "off, or lookup: verify continuations found in the text so far")
      ->check(CLI::IsMember({"off", "lookup"}))
      ->capture_default_str();
  run->add_flag("--json", a->json, "one JSON object on stdout");
  run->add_flag("-q,--quiet", a->quiet, "nothing on stderr but errors");
  run->callback([a, exit_code] {
    const Result<int> r = Run(*a);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
