#include "cli/args.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "engine/limits.h"

namespace snug::cli {
namespace {

struct Alias {
  std::string_view from, to;
};
constexpr Alias kAliases[] = {{"-ctk", "--cache-type-k"},  {"-ctv", "--cache-type-v"},
                              {"-ub", "--ubatch-size"},    {"-np", "--parallel"},
                              {"-n-predict", "--predict"}, {"-tb", "--threads"}};

constexpr uint64_t kMaxText = 256 * kMiB;

}  // namespace

std::vector<std::string> RewriteAliases(int argc, char** argv) {
  std::vector<std::string> args;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    for (const Alias& a : kAliases) {
      if (arg == a.from) arg = a.to;
    }
    args.push_back(std::move(arg));
  }
  std::reverse(args.begin(), args.end());  // the order CLI11 parses vectors in
  return args;
}

void EngineArgs::Add(CLI::App& app) {
  app.add_option("MODEL,-m,--model", model, "the model, a GGUF file")->required();
  app.add_option("--memory", memory,
                 "the budget: 600MiB, 1.5GiB, 70%, or auto (what the machine has free)")
      ->envname("SNUG_MEMORY")
      ->capture_default_str();
  app.add_option("-c,--ctx,--ctx-size", context, "tokens of context, prompt and answer")
      ->capture_default_str();
  app.add_option("--chunk,--ubatch-size", chunk, "prompt tokens per step (0: planned)")
      ->capture_default_str();
  app.add_option("-t,--threads", threads, "threads (0: all usable CPUs)")->capture_default_str();
  app.add_option("--kv", kv, "cache types: f16, bf16, q8_0, q4_0, or k=T,v=T")
      ->capture_default_str();
  app.add_option("--cache-type-k", key, "cache type of keys");
  app.add_option("--cache-type-v", value, "cache type of values");
  app.add_option("--weights", place, "where weights live: auto, resident, stream")
      ->check(CLI::IsMember({"auto", "resident", "stream"}))
      ->capture_default_str();
  app.add_option("--slots", slots, "slots of streamed weights (0: planned)")->capture_default_str();
  app.add_flag("--exact", exact, "activations, cache and sums in float32");
  app.add_flag("--no-plane-head", no_plane_head, "keep the head whole instead of in bit planes");
}

Result<EngineOptions> EngineArgs::Resolve() const {
  EngineOptions o;
  o.model_path = model;
  SNUG_ASSIGN(o.budget, ParseBudget(memory, MemoryBounds()));
  o.context = context;
  o.chunk = chunk;
  o.sequences = parallel;
  o.threads = threads;
  o.exact = exact;
  o.plane_head = !no_plane_head;
  o.stream.slots = slots;
  o.place = place == "stream"     ? PlaceChoice::kStream
            : place == "resident" ? PlaceChoice::kResident
                                  : PlaceChoice::kAuto;
  if (threads < 0 || threads > 1024) {
    return MakeError(Code::kUsage, fmt::format("-t {} is outside 0 .. 1024", threads));
  }
  std::string k = kv, v = kv;
  if (const size_t comma = kv.find(','); kv.rfind("k=", 0) == 0 && comma != std::string::npos) {
    k = kv.substr(2, comma - 2);
    v = kv.substr(comma + 1).rfind("v=", 0) == 0 ? kv.substr(comma + 3) : "";
  }
  if (!key.empty()) k = key;
  if (!value.empty()) v = value;
  for (const auto& [name, type] : {std::pair{k, &o.key_type}, std::pair{v, &o.value_type}}) {
    const auto parsed = ParseKvType(name);
    if (!parsed || *parsed == KvType::kF32) {
      return MakeError(Code::kUsage, fmt::format("'{}' is no cache type", name),
                       "one of f16, bf16, q8_0, q4_0", {{"value", name}});
    }
    *type = *parsed;
  }
  return o;
}

int Report(const Error& error, bool json) {
  if (json) {
    Json values = Json::object();
    for (const auto& [k, v] : error.values) values[k] = v;
    const Json out = {{"error",
                       {{"code", CodeName(error.code)},
                        {"message", error.message},
                        {"values", values},
                        {"next", error.next}}}};
    fmt::print("{}\n", DumpJson(out));
  } else {
    fmt::print(stderr, "snug: {}\n", error.message);
    if (!error.next.empty()) fmt::print(stderr, "      {}\n", error.next);
  }
  return ExitCode(error.code);
}

MachineRates MeasureRates(int threads, const std::string& model) {
  MachineRates rates;
  Ledger ledger(256 * kMiB);
  ThreadPool pool(threads > 0 ? threads : UsableCpus().cpus);
  if (const auto r = MeasureReads(pool, ledger, 128 * kMiB, 5); r.ok()) rates.read_bytes_per_s = *r;
  if (const auto d = MeasureDisk(model, ledger, 64 * kMiB); d.ok()) rates.disk_bytes_per_s = *d;
  return rates;
}

Json OwnersJson(const std::array<uint64_t, kOwners>& owners) {
  Json j = Json::object();
  for (size_t i = 0; i < kOwners; ++i) {
    if (owners[i] != 0) j[std::string(OwnerName(static_cast<Owner>(i)))] = owners[i];
  }
  return j;
}

Json PlanJson(const MemoryPlan& plan) {
  Json suggestions = Json::array();
  for (const auto& s : plan.suggestions)
    suggestions.push_back({{"change", s.change}, {"peak", s.peak}});
  return {{"fits", plan.fits},
          {"budget", plan.budget},
          {"owners",
           {{"load", OwnersJson(plan.at_load)},
            {"start", OwnersJson(plan.at_start)},
            {"context", OwnersJson(plan.at_context)},
            {"peak", OwnersJson(plan.peak)}}},
          {"peak", plan.peak_total},
          {"place", plan.resident ? "resident" : "stream"},
          {"slots", plan.stream.slots},
          {"pinned", plan.stream.pinned},
          {"chunk", plan.chunk},
          {"threads", plan.threads},
          {"suggestions", suggestions},
          {"predicted",
           {{"prefill_tps", plan.predicted_prefill_tps},
            {"decode_tps", plan.predicted_decode_tps},
            {"bytes_touched_per_token", plan.weight_bytes_per_token},
            {"disk_bytes_per_token", plan.disk_bytes_per_token}}}};
}

void PrintMemoryTable(Engine& engine) {
  const LedgerSnapshot ledger = engine.ledger().snapshot();
  const ProcessMemory os = ReadProcessMemory();
  fmt::print(stderr, "\nmemory          plan        ledger peak\n");
  for (size_t i = 0; i < kOwners; ++i) {
    if (engine.plan().peak[i] == 0 && ledger.peak[i] == 0) continue;
    fmt::print(stderr, "{:<14}{:>11}  {:>11}\n", OwnerName(static_cast<Owner>(i)),
               FormatBytes(engine.plan().peak[i]), FormatBytes(ledger.peak[i]));
  }
  fmt::print(stderr, "{:<14}{:>11}  {:>11}   system peak {} of a budget of {}\n", "total",
             FormatBytes(engine.plan().peak_total), FormatBytes(ledger.total_peak),
             FormatBytes(os.peak_rss), FormatBytes(engine.plan().budget));
}

Result<std::string> ReadText(const std::string& path) {
  if (path != "-") return ReadWholeFile(path, kMaxText);
  std::ostringstream text;
  text << std::cin.rdbuf();
  return text.str();
}

}  // namespace snug::cli
