// snug run: a prompt in, text out, inside the budget.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>

#include "base/file.h"
#include "base/progress.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "engine/generate.h"
#include "text/chat_template.h"

namespace snug::cli {
namespace {

struct RunArgs {
  EngineArgs engine;
  std::string prompt, file, system;
  bool chat = false;
  std::optional<int64_t> predict;
  GenerateOptions generate;
  std::string speculate = "off", kept;
  bool json = false, quiet = false;
  std::optional<Option> prompt_option;
};

constexpr uint32_t kDraft = 15;  // tokens verified beside the current one
constexpr uint32_t kDefaultPredict = 128;
// The share of the budget that a prompt's text may take.
constexpr uint64_t kPromptShare = 4;
// Heap that an answer's token takes at most, its text and what is printed of it included.
constexpr uint64_t kAnswerBytes = 64;
constexpr size_t kShortToken = 8;  // bytes; below this many a token no prompt looks too long

// The prompt's text. It is read before the plan is made, which counts it as memory in use.
Result<std::string> Prompt(const RunArgs& a, uint64_t budget) {
  if (a.prompt_option->given()) return a.prompt;
  return ReadText(a.file.empty() ? "-" : a.file, std::min(kMaxText, budget / kPromptShare));
}

// Tokens to generate at most: as asked for, or what the context leaves.
Status ChoosePredict(RunArgs& a, size_t read, const EngineOptions& options) {
  const uint32_t context = options.context;
  const uint64_t room = context > read ? context - read : 0;
  uint64_t n = options.rolling ? kDefaultPredict : std::max<uint64_t>(room, 1);
  if (!a.predict) n = std::min<uint64_t>(n, kDefaultPredict);
  if (a.predict && *a.predict != kFillContext) n = static_cast<uint64_t>(*a.predict);
  a.generate.max_tokens =
      static_cast<uint32_t>(std::min<uint64_t>(n, std::numeric_limits<uint32_t>::max()));
  return CheckContext(read, a.generate.max_tokens, options);
}

// Refuses a text that is too long whatever its tokens, before they take memory.
Status CheckLength(const Tokenizer& tokenizer, size_t bytes, const EngineOptions& options) {
  const uint32_t longest_prompt = options.longest_prompt();
  if (bytes / kShortToken <= longest_prompt) return {};
  size_t longest = 1;
  for (size_t i = 0; i < tokenizer.vocab_size(); ++i)
    longest = std::max(longest, tokenizer.TokenText(static_cast<Token>(i)).size());
  const uint64_t least = bytes / longest;
  if (least <= longest_prompt) return {};
  return MakeError(
      Code::kDoesNotFit,
      fmt::format("the prompt's {} bytes are {} tokens or more, the {} has {}", bytes, least,
                  options.reduce ? "longest prompt" : "context", longest_prompt),
      fmt::format("give a shorter prompt or a larger {}",
                  options.reduce ? "--prompt-size" : "--ctx-size"),
      {{"prompt_bytes", std::to_string(bytes)},
       {"prompt_tokens", std::to_string(least)},
       {"context", std::to_string(longest_prompt)}});
}

void PrintSettings(const RunArgs& a, const Engine& engine) {
  const EngineOptions& o = engine.options();
  fmt::print(
      stderr,
      "{}: {}, weights {}, {}; budget {} ({}), context {} ({}), up to {} new tokens ({}), {} "
      "threads ({}), seed {}\n",
      Printable(engine.config().name), engine.config().arch,
      engine.plan().resident ? "resident" : "streamed", engine.plan().cache,
      FormatBytes(o.budget.bytes), o.budget.origin, o.context, a.engine.ContextOrigin(),
      a.generate.max_tokens,
      !a.predict                   ? "default"
      : *a.predict == kFillContext ? "what the context leaves"
                                   : "given",
      engine.plan().threads, a.engine.ThreadsOrigin(), a.generate.sampling.seed);
  if (engine.plan().disk_bytes_per_token == 0) return;
  const double rate = DiskRate(o.model_path);
  const auto bytes = static_cast<double>(engine.plan().disk_bytes_per_token);
  if (rate <= 0 || bytes <= 0) return;
  fmt::print(stderr, "streaming {} a token from a disk of {}/s: {:.2g} tokens/s predicted\n",
             FormatBytes(engine.plan().disk_bytes_per_token),
             FormatBytes(static_cast<uint64_t>(rate)), rate / bytes);
}

// The prompt as a user's message, in the words of the model's own template.
Result<std::string> ChatPrompt(const RunArgs& a, std::string prompt, uint64_t budget) {
  SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, ModelFile::Open(a.engine.model));
  SNUG_ASSIGN(const ModelTemplate model, ReadModelTemplate(*file, false));
  TemplateLimits limits;
  limits.memory_bytes = std::min(limits.memory_bytes, budget / kPromptShare);
  SNUG_ASSIGN(const ChatTemplate chat_template, ChatTemplate::Parse(model.source, limits));
  Json messages = Json::array();
  if (!a.system.empty()) messages.push_back({{"role", "system"}, {"content", a.system}});
  messages.push_back({{"role", "user"}, {"content", std::move(prompt)}});
  Json input = {{"messages", std::move(messages)}};
  AddTokenTexts(model, &input);
  return chat_template.Render(input);
}

// Writes {"tokens": ids, "layers": [layer][KV head][row]}: the tokens whose rows the cache holds,
// by number, ascending; null for layers that drop none.
Status WriteKept(const std::string& path, Engine& engine) {
  constexpr uint64_t kNumber = 12;  // bytes of a number as text at most, and of one to be sorted
  const KvCache& cache = engine.cache();
  const uint32_t layers = engine.config().layers, heads = engine.config().kv_heads;
  uint64_t numbers = engine.tokens(0).size();
  for (uint32_t l = 0; l < layers; ++l) {
    numbers += cache.layout().Drops(l) ? uint64_t{heads} * cache.rows(0, l) : 1;
  }
  SNUG_ASSIGN(const Reservation room,
              engine.ledger().Reserve(Owner::kScratch, 2 * kNumber * numbers, "kept tokens"));
  std::string text =
      fmt::format("{{\"tokens\":[{}],\"layers\":[", fmt::join(engine.tokens(0), ","));
  text.reserve(kNumber * numbers);
  for (uint32_t l = 0; l < layers; ++l) {
    text += l == 0 ? "" : ",";
    if (!cache.layout().Drops(l)) {
      text += "null";
      continue;
    }
    for (uint32_t h = 0; h < heads; ++h) {
      const auto rows = cache.positions(0, l, h);
      std::vector<uint32_t> sorted(rows.begin(), rows.end());
      std::sort(sorted.begin(), sorted.end());
      text += fmt::format("{}[{}]", h == 0 ? "[" : ",", fmt::join(sorted, ","));
    }
    text += "]";
  }
  text += "]}\n";
  return WriteFileAtomically(path, text.data(), text.size());
}

// What was read of the prompt, and what it took to choose that and to read it.
Json ReduceJson(const Engine& engine, const Generation& g) {
  if (engine.options().reduce == nullptr) return nullptr;
  return {{"method", engine.options().reduce->spec()},
          {"layer", engine.plan().reduce_layer},
          {"read_tokens", g.read.size()},
          {"read", g.read},
          {"choose_ms", 1e3 * g.reduce_s},
          {"read_ms", 1e3 * (g.prefill_s - g.reduce_s)}};
}

Result<int> Run(RunArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  if (!a.kept.empty() && options.keep == nullptr) {
    return MakeError(Code::kUsage, "--kept: all rows stay", "give it with --kv-keep",
                     {{"option", "--kept"}, {"value", a.kept}});
  }
  SNUG_TRY(a.generate.sampling.Validate());
  if (a.predict && *a.predict < 1 && *a.predict != kFillContext) {
    return MakeError(Code::kUsage, fmt::format("-n {} is no number of tokens", *a.predict),
                     "give 1 or more, or -1 for what the context leaves",
                     {{"option", "--predict"}, {"value", std::to_string(*a.predict)}});
  }
  if (options.rolling && a.predict) {
    if (*a.predict == kFillContext) {
      return MakeError(Code::kUsage, "-n -1: where positions roll, the context leaves no end",
                       "give -n N, as many as you like",
                       {{"option", "--predict"}, {"value", std::to_string(*a.predict)}});
    }
    options.caller_bytes =
        kAnswerBytes * std::min<uint64_t>(static_cast<uint64_t>(*a.predict), UINT32_MAX);
  }
  a.generate.cancel = &Interrupted();
  SNUG_ASSIGN(std::string text, Prompt(a, options.budget.bytes));
  a.generate.lookup = a.speculate == "lookup";
  options.lookup = a.generate.lookup;
  if (options.lookup) options.logit_rows = 1 + kDraft;
  const auto start = std::chrono::steady_clock::now();
  if (a.chat) {
    SNUG_ASSIGN(text, ChatPrompt(a, std::move(text), options.budget.bytes));
  }
  std::vector<Token> prompt;
  options.before_weights = [&](const Engine& engine) -> Status {
    SNUG_TRY(CheckLength(engine.tokenizer(), text.size(), engine.options()));
    if (a.chat) {
      EncodeRendered(engine.tokenizer(), text, &prompt);
    } else {
      engine.tokenizer().Encode(text, {}, &prompt);
    }
    SNUG_TRY(ChoosePredict(a, engine.options().Read(prompt.size()), engine.options()));
    if (!a.quiet) PrintSettings(a, engine);
    return {};
  };
  Progress loading("reading weights", ProgressUnit::kBytes, a.quiet);
  options.on_load = [&](uint64_t done, uint64_t total) {
    loading.Update(done, total);
    return !Interrupted();
  };
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  loading.Finish();
  Progress reading("reading the prompt", ProgressUnit::kTokens, a.quiet);
  a.generate.on_prefill = [&](uint32_t done, uint32_t total) {
    reading.Update(done, total);
    if (done == total) reading.Finish();
  };
  if (!a.json) {
    a.generate.on_text = [](std::string_view piece) {
      fmt::print("{}", piece);
      std::fflush(stdout);
    };
  }
  const double open_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  SNUG_ASSIGN(const Generation g, Generate(*engine, 0, prompt, a.generate));
  if (!a.kept.empty()) SNUG_TRY(WriteKept(a.kept, *engine));
  const LedgerSnapshot ledger = engine->ledger().snapshot();
  const ProcessMemory os = ReadProcessMemory();
  // What kept the rows: a method may have gone by the prompt.
  const std::string keeper = options.keep == nullptr ? "" : engine->cache().keeper(0).spec();
  // Steps after the prompt's.
  const size_t decoded = g.tokens.empty() ? 0 : g.tokens.size() - 1;
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
                        {"kv_held", engine->kv_bytes_held()},
                        {"owners", OwnersJson(ledger.peak)}}},
                      {"kv_keep", keeper},
                      {"reduce", ReduceJson(*engine, g)},
                      {"bytes_touched_per_token", g.bytes_touched_per_token},
                      {"disk_bytes_per_token", g.disk_bytes_per_token},
                      {"experts", ExpertsJson(*engine, g.experts, decoded)},
                      {"kv_place", PlacedJson(*engine)},
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
      if (options.reduce != nullptr) {
        fmt::print(stderr, "; {} tokens read, chosen in {:.2f} s by layer {}", g.read.size(),
                   g.reduce_s, engine->plan().reduce_layer);
      }
      if (g.disk_bytes_per_token > 0) {
        fmt::print(stderr, ", {} read from disk",
                   FormatBytes(static_cast<uint64_t>(g.disk_bytes_per_token)));
      }
      if (g.drafted > 0)
        fmt::print(stderr, "; {} of {} drafted tokens held", g.accepted, g.drafted);
      if (!keeper.empty() && keeper != options.keep->spec()) {
        fmt::print(stderr, "; kept by {}", keeper);
      }
      fmt::print(stderr, "\n");
      if (const std::string experts = ExpertsText(*engine, g.experts, decoded); !experts.empty()) {
        fmt::print(stderr, "{}\n", experts);
      }
      if (const std::string placed = PlacedText(*engine); !placed.empty()) {
        fmt::print(stderr, "{}\n", placed);
      }
      PrintMemoryTable(*engine);
    }
  }
  return g.finish_reason == "cancelled" ? ExitCode(Code::kCancelled) : 0;
}

}  // namespace

void AddRun(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<RunArgs>();
  Verb run(app, "run", "generate text from a prompt inside the budget");
  run.Footer(
      "example: snug run model.gguf --memory 600MiB -p 'Once upon a time' -n 100\n"
      "The answer goes to stdout, all else to stderr. Ctrl-C keeps what there is and ends with 5.");
  a->engine.Add(run);
  a->engine.AddKeep(run);
  a->engine.AddReduce(run);
  a->prompt_option = run.Add("-p,--prompt", a->prompt, "the prompt, as it is");
  run.Add("-f,--file", a->file, "read the prompt from a file (- or nothing: standard input)")
      .Excludes(*a->prompt_option);
  const Option chat = run.Flag(
      "--chat", a->chat, "the prompt is a user's message, which the model's chat template wraps");
  run.Add("--system", a->system, "with --chat: a message of the system before it").Needs(chat);
  run.Add("-n,--predict,--n-predict", a->predict,
          "tokens to generate at most (-1: what the context leaves; not given: those, but "
          "at most 128)");
  AddSampling(run, a->generate.sampling);
  run.Add("--stop,--reverse-prompt", a->generate.stop, "end before this text (may be given again)")
      .OneEach();
  run.Flag("--ignore-eos", a->generate.ignore_eos, "go on past end-of-generation tokens");
  run.Add("--speculate", a->speculate,
          "off, or lookup: verify continuations found in the text so far")
      .OneOf({"off", "lookup"})
      .Default();
  run.Add("--kept", a->kept,
          "with --kv-keep: write here which tokens' rows the cache holds in the end, by layer and "
          "KV head (with -n 1: after the prompt)");
  run.Flag("--json", a->json, "one JSON object on stdout");
  run.Flag("-q,--quiet", a->quiet, "nothing on stderr but errors");
  run.Callback([a, exit_code] {
    const Result<int> r = Run(*a);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
