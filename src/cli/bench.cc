// snug bench: prefill and decode apart, beside the memory bandwidth measured in alternation.
#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <chrono>

#include "cli/args.h"
#include "cli/interrupt.h"
#include "engine/limits.h"

namespace snug::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kMaxParallel = 1024;
constexpr uint64_t kLimitBytes = 64 * kMiB;  // read to measure the machine's limit

struct BenchArgs {
  EngineArgs engine;
  std::vector<uint32_t> prompts{512}, depths{0}, parallel{1};
  uint32_t generate = 64;
  int repeat = 3;
  std::string text;
  bool made_up = false, json = false;
};

struct Row {
  std::string test;
  std::vector<double> tps, limit_gbps, limit_products;
  double bytes_per_token = 0;     // of decode
  double products_per_token = 0;  // of prefill
  uint64_t hash = 0;
};

bool NotInterrupted(uint32_t, uint32_t) { return !Interrupted(); }

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// `n` tokens of a text, over and over where it is shorter. Without one, repeatable tokens that are
// neither control tokens nor all alike.
std::vector<Token> Tokens(const Engine& engine, const std::string& text, size_t n) {
  std::vector<Token> tokens;
  if (!text.empty()) {
    tokens.reserve(std::max(n, text.size() + 2));  // a token stands for a byte or more
    engine.tokenizer().Encode(text, {}, &tokens);
    const size_t own = tokens.size();
    tokens.resize(n);
    for (size_t i = own; i < n; ++i) tokens[i] = tokens[i - own];
    return tokens;
  }
  tokens.resize(n);
  uint64_t state = 42;
  for (Token& t : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    t = static_cast<Token>(1000 + (state >> 33) % (engine.config().vocab - 1000 > 0
                                                       ? engine.config().vocab - 1000
                                                       : 1));
    t %= static_cast<Token>(engine.config().vocab);
  }
  return tokens;
}

uint64_t Hash(std::span<const float> logits) {
  return XXH3_64bits(logits.data(), logits.size_bytes());
}

// Multiply-adds of a prompt's token with weights of less than 16 bits: what the integer units do.
double ProductsPerToken(const Engine& engine) {
  if (engine.options().exact) return 0;
  double products = 0;
  for (const TensorInfo& t : engine.file().tensors()) {
    // The embedding is looked up, the head runs for the last token alone.
    if (t.name == "token_embd.weight" || t.name == "output.weight") continue;
    if (Info(t.type).block == 1) continue;
    const RouterConfig& router = engine.config().router;
    const double share = t.dims[2] > 1 ? static_cast<double>(router.used) / router.experts : 1;
    products += share * static_cast<double>(t.rows() * t.cols());
  }
  return products;
}

Status Prefill(Engine& engine, std::span<const Token> tokens, Row& row) {
  if (row.products_per_token > 0) {
    row.limit_products.push_back(MeasureByteProducts(engine.pool(), 10));
  }
  engine.Clear(0);
  const auto start = Clock::now();
  SNUG_TRY(engine.Prefill(0, tokens, NotInterrupted));
  row.tps.push_back(static_cast<double>(tokens.size()) / Seconds(start));
  row.hash = Hash(engine.logits(0));
  return {};
}

Status Decode(Engine& engine, uint32_t sequences, std::span<const Token> next, Row& row) {
  const auto n = static_cast<uint32_t>(next.size());
  std::vector<StepItem> items(sequences);
  const TrafficStats before = engine.traffic();
  const auto start = Clock::now();
  for (uint32_t i = 0; i < n; ++i) {
    if (Interrupted()) return Cancelled();
    for (uint32_t s = 0; s < sequences; ++s)
      items[s] = {s, {&next[(i + s) % n], 1}, StepItem::Logits::kLast};
    SNUG_TRY(engine.Step(items));
  }
  const double seconds = Seconds(start);
  const TrafficStats& after = engine.traffic();
  row.tps.push_back(n * sequences / seconds);
  row.bytes_per_token = static_cast<double>(after.weight_bytes - before.weight_bytes +
                                            after.kv_bytes - before.kv_bytes) /
                        (n * sequences);
  row.hash = Hash(engine.logits(0));
  return {};
}

Status MeasureLimit(Engine& engine, Row& row) {
  Ledger ledger(kLimitBytes);
  SNUG_ASSIGN(const double rate, MeasureReads(engine.pool(), ledger, kLimitBytes, 3));
  row.limit_gbps.push_back(rate / 1e9);
  return {};
}

Json RowJson(const Row& r) {
  const double tps = Median(r.tps), limit = r.limit_gbps.empty() ? 0 : Median(r.limit_gbps);
  const auto [low, high] = std::minmax_element(r.tps.begin(), r.tps.end());
  const double gbps = r.bytes_per_token * tps / 1e9;
  const double tops = 2 * r.products_per_token * tps / 1e12;
  const double tops_limit = r.limit_products.empty() ? 0 : 2 * Median(r.limit_products) / 1e12;
  return {{"test", r.test},
          {"tps", tps},
          {"spread", (*high - *low) / tps},
          {"gbps", gbps},
          {"share_of_limit", limit > 0        ? gbps / limit
                             : tops_limit > 0 ? tops / tops_limit
                                              : 0},
          {"limit_gbps", limit},
          {"tops", tops},
          {"limit_tops", tops_limit},
          {"rss_peak", ReadProcessMemory().peak_rss},
          {"logits_hash", fmt::format("{:016x}", r.hash)}};
}

Status Bench(const BenchArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  for (const uint32_t p : a.parallel) {
    if (p >= 1 && p <= kMaxParallel) continue;
    return MakeError(Code::kUsage, fmt::format("--parallel {} is outside 1 .. {}", p, kMaxParallel),
                     {}, {{"option", "--parallel"}, {"value", std::to_string(p)}});
  }
  const auto max = [](const std::vector<uint32_t>& v) {
    return *std::max_element(v.begin(), v.end());
  };
  const uint32_t deepest = max(a.depths), sequences = max(a.parallel);
  const uint32_t repeats = static_cast<uint32_t>(std::clamp(a.repeat, 1, 100));
  const uint64_t context =
      std::max<uint64_t>(max(a.prompts), deepest + uint64_t{a.generate} * repeats);
  options.context = static_cast<uint32_t>(std::min<uint64_t>(context, kTrainedContext - 1));
  std::string text;
  if (!a.text.empty()) {
    SNUG_ASSIGN(text, ReadTextWithin(options.budget.bytes, a.text));
    if (text.empty()) {
      return MakeError(Code::kBadInput, fmt::format("{} is empty", a.text), "give a text");
    }
  }
  options.caller_bytes = kLimitBytes + (options.context + text.size() + 2) * sizeof(Token);
  options.sequences = sequences;
  options.logit_rows = sequences;
  options.any_types = true;  // speed is all that is asked for
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  engine->SetTop(1);  // greedy
  Json rows = Json::array();
  auto done = [&](const Row& r) {
    rows.push_back(RowJson(r));
    const Json& j = rows.back();
    const bool products = r.products_per_token > 0;
    fmt::print(stderr,
               "{:<24} {:>9.2f} tokens/s  +-{:>4.1f} %  {:>6.2f} {}, {:>3.0f} % of {:.2f}\n",
               r.test, j["tps"].get<double>(), 50 * j["spread"].get<double>(),
               j[products ? "tops" : "gbps"].get<double>(), products ? "TOPS" : "GB/s",
               100 * j["share_of_limit"].get<double>(),
               j[products ? "limit_tops" : "limit_gbps"].get<double>());
  };
  for (const uint32_t n : a.prompts) {
    if (n == 0) continue;
    const std::vector<Token> tokens = Tokens(*engine, text, n);
    Row row;
    row.test = fmt::format("prefill {}", n);
    row.products_per_token = ProductsPerToken(*engine);
    for (uint32_t r = 0; r < repeats; ++r) SNUG_TRY(Prefill(*engine, tokens, row));
    done(row);
  }
  for (const uint32_t depth : a.depths) {
    for (const uint32_t p : a.parallel) {
      if (a.generate == 0) continue;
      Row row;
      row.test = fmt::format("decode {} at {}", a.generate, depth) +
                 (p > 1 ? fmt::format(" x {}", p) : "");
      const std::vector<Token> tokens = Tokens(*engine, text, depth + a.generate);
      for (uint32_t s = 0; s < sequences; ++s) engine->Clear(s);
      // What decoding needs held is a measurement too: long prompts are not run twice.
      Row held;
      held.test = fmt::format("prefill {}", depth);
      held.products_per_token = ProductsPerToken(*engine);
      held.limit_products.push_back(MeasureByteProducts(engine->pool(), 10));
      for (uint32_t s = 0; s < p && depth > 0; ++s) {
        if (a.made_up) {
          SNUG_TRY(engine->FillCache(s, depth));
          continue;
        }
        const auto start = Clock::now();
        SNUG_TRY(engine->Prefill(s, std::span(tokens).first(depth), NotInterrupted));
        held.tps.push_back(depth / Seconds(start));
        held.hash = Hash(engine->logits(0));
      }
      if (!held.tps.empty()) done(held);
      for (uint32_t r = 0; r < repeats; ++r) {
        SNUG_TRY(MeasureLimit(*engine, row));
        SNUG_TRY(Decode(*engine, p, std::span(tokens).subspan(depth), row));
        // Rows that were dropped or coded do not come back: there the next round goes on.
        if (options.gives_up_rows()) continue;
        for (uint32_t s = 0; s < p; ++s) SNUG_TRY(engine->Rollback(s, depth));
      }
      done(row);
      if (const std::string placed = PlacedText(*engine); !placed.empty())
        fmt::print(stderr, "{:<24} {}\n", "", placed);
    }
  }
  if (a.json)
    fmt::print("{}\n", DumpJson({{"model", engine->config().name},
                                 {"threads", engine->plan().threads},
                                 {"rows", rows},
                                 {"kv_place", PlacedJson(*engine)}}));
  return {};
}

}  // namespace

void AddBench(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<BenchArgs>();
  Verb bench(app, "bench", "measure prefill and decode beside the machine's bandwidth");
  bench.Footer("example: snug bench model.gguf -p 512,2048 -n 64 -d 0,8192 --kv q8_0 -r 5");
  a->engine.Add(bench, false);
  a->engine.AddKeep(bench);
  bench.Add("-p,--n-prompt", a->prompts, "prompt lengths").Commas().Default();
  bench.Add("-n,--n-gen", a->generate, "tokens to decode").Default();
  bench.Add("-d,--n-depth", a->depths, "tokens held before decoding").Commas().Default();
  bench.Add("--parallel", a->parallel, "sequences decoded at once").Commas().Default();
  bench.Add("-r,--repetitions", a->repeat, "measurements of each row").Default();
  bench.Add("-f,--file", a->text,
            "a text whose tokens prompts and depths take (not given: made-up ones)");
  bench.Flag("--made-up-cache", a->made_up,
             "fill depths with made-up rows instead of reading prompts: the same speed at once");
  bench.Flag("--json", a->json, "one JSON object on stdout");
  bench.Callback([a, exit_code] {
    const Status s = Bench(*a);
    *exit_code = s.ok() ? 0 : Report(s.error(), a->json);
  });
}

}  // namespace snug::cli
