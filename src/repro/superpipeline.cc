// The inference claims of "Superpipeline" (Abbasi and Lim 2024), with this program's budget as the
// fast memory and the model file as the slow one.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/limits.h"
#include "repro/repro.h"

namespace snug {
namespace {

constexpr uint32_t kPrompt = 48, kContext = 128;

struct Outcome {
  std::vector<float> logits;     // of the last step
  double seconds_per_token = 0;  // decode
  double disk_per_token = 0;     // bytes
  uint64_t weight_bytes = 0;     // ledger: weights and the readers' buffers
  uint32_t slots = 0, pinned = 0, peak_slots = 0;
  uint64_t pass_bytes = 0;  // planned reads of a token
};

std::vector<Token> SomeTokens(size_t n, uint32_t vocab) {
  std::vector<Token> tokens(n);
  uint64_t state = 3;
  for (Token& t : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    t = static_cast<Token>((state >> 33) % vocab);
  }
  return tokens;
}

// Prefill and `n` decode steps.
Result<Outcome> Run(const EngineOptions& options, uint32_t n) {
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  const std::vector<Token> tokens = SomeTokens(kPrompt + n, engine->config().vocab);
  const std::span<const Token> all(tokens);
  SNUG_TRY(engine->Prefill(0, all.first(kPrompt), nullptr));
  Outcome o;
  // The first decode step still meets what prefill left loaded.
  const StepItem first{0, all.subspan(kPrompt, 1), StepItem::Logits::kLast};
  SNUG_TRY(engine->Step({&first, 1}));
  const uint64_t disk = engine->place().stats().bytes_read;
  const auto start = Clock::now();
  for (uint32_t i = 1; i < n; ++i) {
    const StepItem item{0, all.subspan(kPrompt + i, 1), StepItem::Logits::kLast};
    SNUG_TRY(engine->Step({&item, 1}));
  }
  const double seconds = SecondsSince(start);
  const PlaceStats stats = engine->place().stats();
  o.seconds_per_token = seconds / (n - 1);
  o.disk_per_token = static_cast<double>(stats.bytes_read - disk) / (n - 1);
  const auto logits = engine->logits(0);
  o.logits.assign(logits.begin(), logits.end());
  const LedgerSnapshot held = engine->ledger().snapshot();
  o.weight_bytes =
      held.now[static_cast<size_t>(Owner::kWeights)] + held.now[static_cast<size_t>(Owner::kIo)];
  o.slots = engine->plan().stream.slots;
  o.pinned = engine->plan().stream.pinned;
  o.peak_slots = stats.peak_slots;
  o.pass_bytes = engine->plan().disk_bytes_per_token;
  return o;
}

bool Same(const Outcome& a, const Outcome& b) {
  return a.logits.size() == b.logits.size() &&
         std::memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)) == 0;
}

Verdict Of(bool holds) { return holds ? Verdict::kHolds : Verdict::kDiffers; }

}  // namespace

Result<ReproReport> ReproSuperpipeline(const ReproOptions& options) {
  const auto step = [&](std::string_view what) {
    if (options.on_step) options.on_step(what);
  };
  EngineOptions o;
  o.model_path = options.model_path;
  o.threads = options.threads;
  o.plane_head = false;  // streamed heads are whole; the comparison is of places alone
  o.place = PlaceChoice::kResident;
  o.budget = {uint64_t{1} << 46, "unbounded"};
  o.context = kContext;
  o.chunk = kPrompt;
  const uint32_t n = options.quick ? 4 : 9;
  step("resident run");
  SNUG_ASSIGN(const Outcome resident, Run(o, n));

  // The least budget that streams, and steps from it towards all of the weights.
  o.place = PlaceChoice::kStream;
  ReproReport report;
  report.slug = "superpipeline";
  report.source = "Abbasi and Lim, arXiv 2410.08791";
  report.model = options.model_path;
  struct Setting {
    uint32_t slots, batch;
    double share;  // of the resident weights that may be pinned beside the slots
  };
  std::vector<Setting> settings{{1, 1, 0}, {2, 1, 0}, {3, 1, 0.4}, {3, 3, 0.4}};
  if (!options.quick) settings.insert(settings.end(), {{2, 2, 0}, {4, 1, 0.4}, {3, 1, 0.7}});
  std::vector<Outcome> runs;
  std::vector<double> rates, expected;
  bool same = true, slots_kept = true;
  for (const Setting& s : settings) {
    step(fmt::format("streamed run {} of {}: k = {}, k' = {}", runs.size() + 1, settings.size(),
                     s.slots, s.batch));
    o.stream = {};
    o.stream.slots = s.slots;
    o.stream.return_batch = s.batch;
    o.budget.bytes = kMiB;
    SNUG_ASSIGN(const MemoryPlan least, PlanFile(o));
    o.budget.bytes = least.peak_total +
                     static_cast<uint64_t>(s.share * static_cast<double>(resident.weight_bytes));
    Ledger ledger(64 * kMiB);
    SNUG_ASSIGN(const double before, MeasureDisk(options.model_path, ledger, 64 * kMiB));
    SNUG_ASSIGN(Outcome run, Run(o, n));
    SNUG_ASSIGN(const double after, MeasureDisk(options.model_path, ledger, 64 * kMiB));
    rates.push_back((before + after) / 2);
    expected.push_back(std::max(resident.seconds_per_token, run.disk_per_token / rates.back()));
    same = same && Same(resident, run);
    slots_kept = slots_kept && run.peak_slots <= s.slots;
    runs.push_back(std::move(run));
  }
  const auto share = [&](const Outcome& r) {
    return static_cast<double>(r.weight_bytes) / static_cast<double>(resident.weight_bytes);
  };
  report.rows.push_back(
      {"outputs are identical",
       fmt::format("last logits of {} prompt and {} new tokens, {} settings of k, "
                   "k' and pinned parts, against resident weights",
                   kPrompt, n, runs.size()),
       same ? "bit-identical in all" : "not identical", Of(same)});
  const Outcome& small = runs[1];
  report.rows.push_back(
      {"up to 60 % less fast memory", "k = 2, nothing pinned; weights and read buffers, ledger",
       fmt::format("{} instead of {}: {:.0f} % less", FormatBytes(small.weight_bytes),
                   FormatBytes(resident.weight_bytes), 100 * (1 - share(small))),
       Of(share(small) <= 0.4)});
  report.rows.push_back({"at most k partitions in memory", "peak of slots in use, all settings",
                         slots_kept ? "never more than k" : "more than k", Of(slots_kept)});
  bool exact = true;
  for (const Outcome& r : runs) {
    exact = exact && std::abs(r.disk_per_token - static_cast<double>(r.pass_bytes)) <=
                         0.02 * static_cast<double>(r.pass_bytes) + 65536;
  }
  report.rows.push_back({"traffic per token is what is not pinned",
                         "bytes read in decode against the plan, all settings",
                         fmt::format("{} a token at k = 2, {} planned",
                                     FormatBytes(static_cast<uint64_t>(small.disk_per_token)),
                                     FormatBytes(small.pass_bytes)),
                         Of(exact)});
  double worst = 0;
  std::string times;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (settings[i].slots < 2 || settings[i].batch != 1) continue;
    worst = std::max(worst, runs[i].seconds_per_token / expected[i]);
    times += fmt::format("{}k={} pinned={}: {:.0f} ms of {:.0f}", times.empty() ? "" : "; ",
                         settings[i].slots, runs[i].pinned, 1e3 * runs[i].seconds_per_token,
                         1e3 * expected[i]);
  }
  report.rows.push_back(
      {"time is max(compute, transfer) for k >= 2, k' = 1",
       fmt::format("a token, against the greater of resident time ({:.0f} ms) and "
                   "bytes over the rate of direct reads beside it ({:.0f} MB/s)",
                   1e3 * resident.seconds_per_token, rates[1] / 1e6),
       times + fmt::format("; worst {:.2f} x", worst), Of(worst <= 1.2)});
  report.not_shown = {
      "speed on a GPU and over its bus: there is none",
      "training: this program runs inference only",
      "the paper's tables per model: their numbers are not in its abstract or reviews",
  };
  return report;
}

}  // namespace snug
