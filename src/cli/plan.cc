// snug plan: what a run would take, from metadata alone.
#include <fmt/format.h>

#include "cli/args.h"
#include "engine/probe.h"

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
  } else if (p.hidden_bytes > 0) {
    fmt::print(
        "of {} rows the cache keeps {} exact at most; a prompt between two layers takes {}\n",
        p.context, p.kv_exact_rows, FormatBytes(p.hidden_bytes));
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

Result<int> Plan(const EngineArgs& args, bool json) {
  SNUG_ASSIGN(EngineOptions options, args.Resolve());
  SNUG_ASSIGN(MemoryPlan plan, PlanFile(options));
  // Speeds are measured after the plan, so that the plan sees the process as a run would.
  // Where they cannot be, the bytes hold all the same.
  if (const auto times = MeasureSteps(options, plan); times.ok())
    PredictSpeed(*times, plan.resident ? 0 : DiskRate(options.model_path), plan);
  if (json) {
    fmt::print("{}\n", DumpJson(PlanJson(plan)));
  } else {
    PrintPlan(plan);
  }
  return plan.fits ? 0 : ExitCode(Code::kDoesNotFit);
}

}  // namespace

void AddPlan(CLI::App& app, int* exit_code) {
  struct PlanArgs {
    EngineArgs engine;
    bool json = false;
  };
  auto a = std::make_shared<PlanArgs>();
  Verb plan(app, "plan", "say what a run would take, before a weight is read");
  plan.Footer(
      "example: snug plan model.gguf --memory 600MiB -c 2048\nEnds with 0 when it fits, with 4 "
      "when not.");
  a->engine.Add(plan);
  a->engine.AddKeep(plan);
  plan.Flag("--json", a->json, "one JSON object on stdout");
  plan.Callback([a, exit_code] {
    const Result<int> r = Plan(a->engine, a->json);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
