// snug plan: what a run would take, from metadata alone.
#include <fmt/format.h>

#include "cli/args.h"
#include "cli/results.h"
#include "engine/probe.h"
#include "format/fingerprint.h"

namespace snug::cli {
namespace {

void PrintPlan(const MemoryPlan& p) {
  fmt::print("{:<14}{:>11} {:>11} {:>11}\n", "owner", "load", "start", "context");
  uint64_t load = 0, start = 0, context = 0;
  for (size_t i = 0; i < kOwners; ++i) {
    load += p.at_load[i];
    start += p.at_start[i];
    context += p.at_context[i];
    if (p.at_load[i] + p.at_context[i] == 0) continue;
    fmt::print("{:<14}{:>11} {:>11} {:>11}\n", OwnerName(static_cast<Owner>(i)),
               FormatBytes(p.at_load[i]), FormatBytes(p.at_start[i]), FormatBytes(p.at_context[i]));
  }
  fmt::print("{:<14}{:>11} {:>11} {:>11}\n\n", "total", FormatBytes(load), FormatBytes(start),
             FormatBytes(context));
  fmt::print("{} in a budget of {}: {}\n", FormatBytes(p.peak_total), FormatBytes(p.budget),
             p.fits ? "fits" : "does not fit");
  fmt::print("weights {}", p.resident ? "resident"
                                      : fmt::format("streamed, {} parts pinned, {} slots",
                                                    p.stream.pinned, p.stream.slots));
  if (p.expert_slots != 0) {
    fmt::print(", {} of {} experts in a cache", p.expert_slots, p.experts);
  }
  fmt::print(", {} prompt tokens a step, {} threads\ncache: {}\n", p.chunk, p.threads, p.cache);
  if (p.kv_rows < p.context) {
    fmt::print("the cache keeps {} of {} rows; a prompt between two layers takes {}\n", p.kv_rows,
               p.context, FormatBytes(p.hidden_bytes));
  } else if (p.kv_pairs > 0) {
    fmt::print("{} pairs of layers share rows; a prompt between two layers takes {}\n", p.kv_pairs,
               FormatBytes(p.hidden_bytes));
  } else if (p.kv_exact_rows < p.kv_rows) {
    fmt::print(
        "of {} rows the cache keeps {} exact at most; a prompt between two layers takes {}\n",
        p.context, p.kv_exact_rows, FormatBytes(p.hidden_bytes));
  }
  if (p.kv_disk_bytes > 0) {
    fmt::print("the cache takes {} of disk; a prompt between two layers takes {}\n",
               FormatBytes(p.kv_disk_bytes), FormatBytes(p.hidden_bytes));
  }
  if (p.prompt > 0) {
    fmt::print(
        "of a prompt of {} tokens {} are read, by the keys of layer {}; before, the prompt "
        "between two layers takes {}\n",
        p.prompt, p.prompt_read, p.reduce_layer, FormatBytes(p.hidden_bytes));
  }
  if (p.kv_state_bytes > 0) {
    fmt::print("a sequence's state takes {}; {} snapshots to go back to\n",
               FormatBytes(p.kv_state_bytes), p.snapshots);
  }
  const MemoryPlan::Prediction& s = p.predicted;
  if (s.decode_tps > 0) {
    fmt::print(
        "predicted: prompt of {} at {:.0f} tokens/s, answer at {:.1f} ({:.1f} at the start, "
        "{:.1f} where the context is full)\n",
        s.prompt_tokens, s.prefill_tps, s.decode_tps, s.decode_tps_at_start,
        s.decode_tps_at_context);
  }
  fmt::print("a token touches {} of weights and {} to {} of cache",
             FormatBytes(p.weight_bytes_per_token), FormatBytes(p.kv_state_bytes),
             FormatBytes(p.kv_state_bytes + p.kv_bytes_per_token_at_context));
  if (p.disk_bytes_per_token > 0)
    fmt::print(", and reads {} from disk", FormatBytes(p.disk_bytes_per_token));
  fmt::print("\n");
  for (const auto& change : p.suggestions)
    fmt::print("would fit: {} (peak {})\n", change.change, FormatBytes(change.peak));
}

struct PlanArgs {
  EngineArgs engine;
  std::string results;
  bool json = false;
};

// What evaluations say of the planned cache.
Result<std::vector<KnownCost>> Known(const PlanArgs& a, const EngineOptions& options,
                                     const MemoryPlan& plan) {
  if (a.results.empty()) return std::vector<KnownCost>();
  SNUG_ASSIGN(const auto file, ModelFile::Open(options.model_path));
  SNUG_ASSIGN(const std::string weights, WeightsFingerprint(*file));
  SNUG_ASSIGN(const Results results, Results::Open(a.results));
  SNUG_ASSIGN(const std::string cache, CacheName(options, plan));
  return results.OfCache(weights, cache);
}

void PrintKnown(const std::vector<KnownCost>& known) {
  for (const KnownCost& k : known) {
    fmt::print("known: KL divergence {:.4f}, top-1 {:.3f}, {} held: {} tokens after {} of {}\n",
               k.kl_mean, k.top1, FormatBytes(k.kv_held), k.tokens, k.prefix,
               Printable(k.text_name));
  }
}

Json KnownJson(const std::vector<KnownCost>& known) {
  Json all = Json::array();
  for (const KnownCost& k : known) {
    all.push_back({{"text", k.text_name},
                   {"prefix", k.prefix},
                   {"tokens", k.tokens},
                   {"kl_mean", k.kl_mean},
                   {"top1", k.top1},
                   {"kv_held", k.kv_held}});
  }
  return all;
}

Result<int> Plan(const PlanArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  SNUG_ASSIGN(MemoryPlan plan, PlanFile(options));
  // Speeds are measured after the plan, so that the plan sees the process as a run would.
  // Where they cannot be, the bytes hold all the same.
  if (const auto times = MeasureSteps(options, plan); times.ok())
    PredictSpeed(*times, plan.resident ? 0 : DiskRate(options.model_path), plan);
  SNUG_ASSIGN(const std::vector<KnownCost> known, Known(a, options, plan));
  if (a.json) {
    Json out = PlanJson(plan);
    if (!a.results.empty()) out["known"] = KnownJson(known);
    fmt::print("{}\n", DumpJson(out));
  } else {
    PrintPlan(plan);
    PrintKnown(known);
  }
  return plan.fits ? 0 : ExitCode(Code::kDoesNotFit);
}

}  // namespace

void AddPlan(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<PlanArgs>();
  Verb plan(app, "plan", "say what a run would take, before a weight is read");
  plan.Footer(
      "example: snug plan model.gguf --memory 600MiB -c 2048\nEnds with 0 when it fits, with 4 "
      "when not.");
  a->engine.Add(plan);
  a->engine.AddKeep(plan);
  a->engine.AddReduce(plan);
  plan.Add("--results", a->results, "tell what these evaluations say of the cache (snug eval)")
      .Environment("SNUG_RESULTS");
  plan.Flag("--json", a->json, "one JSON object on stdout");
  plan.Callback([a, exit_code] {
    const Result<int> r = Plan(*a);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
