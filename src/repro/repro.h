// Reproductions: a method's published claim run again on a given model, measured here. One file per
// method and one line of the registry; `snug repro` lists, runs and prints them.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace snug {

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

struct ReproReport {
  std::string slug, source, model;
  std::vector<ReproRow> rows;
  std::vector<std::string> not_shown;  // quantities that this machine cannot show, with the reason
};
Json ReproJson(const ReproReport& report);
std::string ReproMarkdown(const ReproReport& report);

struct ReproOptions {
  std::string model_path;
  int threads = 0;  // 0: all usable CPUs
  bool quick = false;
  std::function<void(std::string_view step)> on_step;  // progress; may be null
};

struct Repro {
  std::string_view slug, source;
  Result<ReproReport> (*run)(const ReproOptions& options);
};
std::span<const Repro> Repros();
const Repro* FindRepro(std::string_view slug);

// Superpipeline (Abbasi and Lim 2024), inference part: identical outputs, memory, traffic, time.
Result<ReproReport> ReproSuperpipeline(const ReproOptions& options);

}  // namespace snug
