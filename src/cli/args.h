// What all verbs share: options of the engine, aliases, errors and exit codes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "engine/engine.h"

namespace snug::cli {

// Options that choose model, budget and cache, with llama.cpp's spellings as aliases.
struct EngineArgs {
  std::string model, memory = "auto", kv = "f16", key, value, place = "auto", draft;
  uint32_t context = 4096, chunk = 0, parallel = 1, slots = 0;
  int threads = 0;
  bool exact = false, no_plane_head = false;
  void Add(CLI::App& app);
  Result<EngineOptions> Resolve() const;
};

// Single-dash words of several letters, as llama.cpp's users type them, become long names (CLI11
// would read -ctk as -c tk).
std::vector<std::string> RewriteAliases(int argc, char** argv);

// Prints an error as text on stderr, or with --json as an object on stdout; returns its exit code.
int Report(const Error& error, bool json);

// Rates of this machine for predictions, measured for some tenths of a second.
MachineRates MeasureRates(int threads, const std::string& model);

Json OwnersJson(const std::array<uint64_t, kOwners>& owners);
Json PlanJson(const MemoryPlan& plan);
// Plan, ledger and operating system side by side, on stderr.
void PrintMemoryTable(Engine& engine);

// The verbs: each adds its sub-command, whose callback sets *exit_code.
void AddRun(CLI::App& app, int* exit_code);
void AddPlan(CLI::App& app, int* exit_code);
void AddInspect(CLI::App& app, int* exit_code);
void AddTokenize(CLI::App& app, int* exit_code);
void AddEval(CLI::App& app, int* exit_code);
void AddBench(CLI::App& app, int* exit_code);
void AddDoctor(CLI::App& app, int* exit_code);
void AddRepro(CLI::App& app, int* exit_code);

// A file, standard input for "-", or an error.
Result<std::string> ReadText(const std::string& path);

}  // namespace snug::cli
