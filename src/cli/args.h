// What all verbs share: options of the engine, aliases, errors and exit codes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "cli/verb.h"
#include "engine/engine.h"
#include "engine/sampler.h"

namespace snug::cli {

// Options that choose model, budget and cache, with llama.cpp's spellings as aliases.
struct EngineArgs {
  std::string model, memory = "auto", kv = "f16", key, value, weights = "auto", place;
  std::string positions = "original";
  std::string keep, read, share, kv_place, kv_folder{kPlaceFolder}, channels, codebooks,
      permutation, kv_budget, reduce;
  uint32_t prompt_size = 0;
  uint32_t context = 0, chunk = 0, parallel = 1, slots = 0, expert_slots = 0;
  int threads = 0, snapshots = -1;
  bool exact = false, no_plane_head = false, show_config = false, force = false;
  bool prompts = false;  // AddKeep was called
  // Without `with_context` the verb finds the context itself.
  void Add(Verb verb, bool with_context = true);
  // Adds --kv-keep, --kv-read and what goes with them, for verbs whose sequences are prompts and
  // answers; --kv may then name a codec.
  void AddKeep(Verb verb);
  // Adds --reduce and --prompt-size, for verbs that read prompts by Engine::Reduce.
  void AddReduce(Verb verb);
  // Prints the options and where they came from, with --show-config, on stderr.
  void ShowConfig() const;
  Result<EngineOptions> Resolve() const;
  // Where the number of tokens of context and of threads came from, in a word or two.
  std::string ContextOrigin() const;
  std::string ThreadsOrigin() const;

 private:
  std::optional<Verb> verb_;
  std::optional<Option> context_option_, kv_option_;
};

// The options of a sampler.
void AddSampling(Verb verb, SamplingOptions& sampling);

// {"error": {"code", "message", "values", "next"}}
Json ErrorJson(const Error& error);
// Prints an error as text on stderr, or with --json as an object on stdout; returns its exit code.
int Report(const Error& error, bool json);

// Bytes per second of direct reads of a file, 0 where they cannot be measured.
double DiskRate(const std::string& path);

// Text of a file as a terminal may show it: control characters, which could command the terminal,
// become what C writes for them.
std::string Printable(std::string_view text);

Json OwnersJson(const std::array<uint64_t, kOwners>& owners);
// What came of an expert cache over `tokens` tokens, or null where all experts are in memory.
Json ExpertsJson(const Engine& engine, const ExpertStats& stats, size_t tokens);
// The same in words, or nothing.
std::string ExpertsText(const Engine& engine, const ExpertStats& stats, size_t tokens);
// What became of a cache whose rows live elsewhere, or null; in words, or nothing.
Json PlacedJson(const Engine& engine);
std::string PlacedText(const Engine& engine);
Json PlanJson(const MemoryPlan& plan);
// Plan, ledger and operating system side by side, on stderr.
void PrintMemoryTable(Engine& engine);

// The verbs: each adds its sub-command, whose callback sets *exit_code.
void AddRun(CLI::App& app, int* exit_code);
void AddChat(CLI::App& app, int* exit_code);
void AddEmbed(CLI::App& app, int* exit_code);
void AddPlan(CLI::App& app, int* exit_code);
void AddInspect(CLI::App& app, int* exit_code);
void AddTemplate(CLI::App& app, int* exit_code);
void AddTokenize(CLI::App& app, int* exit_code);
void AddAsk(CLI::App& app, int* exit_code);
void AddEval(CLI::App& app, int* exit_code);
void AddBench(CLI::App& app, int* exit_code);
void AddCalibrate(CLI::App& app, int* exit_code);
void AddConvert(CLI::App& app, int* exit_code);
void AddQuantize(CLI::App& app, int* exit_code);
void AddDoctor(CLI::App& app, int* exit_code);
void AddMethods(CLI::App& app, int* exit_code);
void AddRepro(CLI::App& app, int* exit_code);

inline constexpr int64_t kFillContext = -1;  // -n: as many tokens as the context leaves
inline constexpr uint64_t kMaxTemplate = 8 * kMiB;

// A file, or standard input for "-". kBadInput for more than `max_bytes`.
inline constexpr uint64_t kMaxText = 256 * kMiB;
Result<std::string> ReadText(const std::string& path, uint64_t max_bytes = kMaxText);
// At most kMaxText and what a budget of `budget` bytes can hold beside its tokens, which take up to
// four times as much.
Result<std::string> ReadTextWithin(uint64_t budget, const std::string& path);

// Token ids from JSON: an array, or an object with one under "tokens". kBadInput for an empty list
// and for what is no token; `what` names the source.
Result<std::vector<Token>> ParseTokens(const std::string& json, const std::string& what);

}  // namespace snug::cli
