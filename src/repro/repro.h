// Reproductions: a method's published claims run again on a given model, measured here. A method's
// claims are a function (one file), or lines of data where ways to hold the cache are compared
// (cache_claims.h); the registry has a line for each. `snug repro` lists, runs and prints them.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/machine.h"
#include "base/status.h"

namespace snug {

class EvaluationStore;
struct CacheClaim;

enum class Verdict : uint8_t {
  kHolds,    // measured as claimed
  kDiffers,  // measured, and not as claimed
  kAbsent,   // what the claim rests on does not exist in this setting
};
std::string_view VerdictName(Verdict verdict);  // "holds", "differs", "premise absent"

// One claim: what the source says, what was run, what came out.
struct ReproRow {
  std::string claim, setting, measured;
  Verdict verdict = Verdict::kDiffers;
};

// What a way to hold the cache takes and costs, means over texts.
struct ReproPoint {
  std::string setting;
  uint64_t bytes = 0;                             // held after the text
  std::optional<double> kl, kl_worst_text, top1;  // against the dense cache; of itself none
  double perplexity = 0;
};

struct ReproReport {
  std::string slug, source, model;
  std::string method;  // how it was measured, in a sentence; may be empty
  std::vector<ReproRow> rows;
  std::vector<ReproPoint> points;
  std::vector<std::string> not_shown;  // what this machine or run cannot show, with the reason
};
Json ReproJson(const ReproReport& report);
std::string ReproMarkdown(const ReproReport& report);
// One page that needs no other file: all reports, and a plot of bytes against divergence.
std::string ReproHtml(std::span<const ReproReport> reports);

struct ReproOptions {
  std::string model_path;
  Budget budget;
  int threads = 0;  // 0: all usable CPUs
  bool quick = false;
  // Of claims about caches:
  std::vector<std::string> texts;  // files; quick: only the first is read
  uint32_t prefix = 4096, follow = 512;
  std::string channels, codebooks, permutation;        // files, for methods that need them
  std::string folder;                                  // for the time of a text, its logits
  std::string version;                                 // of the program, to know results by
  EvaluationStore* store = nullptr;                    // results that are known; may be null
  std::function<void(std::string_view step)> on_step;  // progress; may be null
  std::function<bool()> go_on;                         // false cancels; may be null
};

struct Repro {
  std::string_view slug, source;
  Result<ReproReport> (*run)(const ReproOptions& options);  // null: `claims` are measured
  std::span<const CacheClaim> claims;
  std::span<const std::string_view> not_shown;  // beside `claims`
};
std::span<const Repro> Repros();
const Repro* FindRepro(std::string_view slug);
// Runs them one after the other; settings that several share are measured once. Errors: kUsage
// where claims about caches have no text; those of running.
Result<std::vector<ReproReport>> RunRepros(std::span<const Repro> repros,
                                           const ReproOptions& options);

// MiniCache (Liu et al. 2024): likeness of adjacent layers, bytes, divergence. Needs a text, the
// first of `texts`.
Result<ReproReport> ReproMiniCache(const ReproOptions& options);
// Superpipeline (Abbasi and Lim 2024), inference part: identical outputs, memory, traffic, time.
Result<ReproReport> ReproSuperpipeline(const ReproOptions& options);

}  // namespace snug
