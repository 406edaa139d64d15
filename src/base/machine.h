// What this machine and its limits leave us: memory free under cgroups and rlimits, CPUs we may
// use, and what the operating system says of our own process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace snug {

// One bound on memory and where it came from, e.g. {"cgroup v1 /docker/x", limit, used}.
struct MemoryBound {
  std::string name;
  uint64_t limit = 0;   // bytes
  uint64_t in_use = 0;  // bytes already taken under it
  uint64_t free() const { return limit > in_use ? limit - in_use : 0; }
};
// All bounds that apply: every cgroup (v1 and v2) from ours up to the root, MemAvailable,
// RLIMIT_AS, RLIMIT_DATA. `root` is "" in production; tests give a folder holding fake proc/ and
// sys/.
std::vector<MemoryBound> MemoryBounds(const std::string& root = "");

struct Budget {
  uint64_t bytes = 0;
  std::string origin;    // "given", or the name of the bound that was least
  uint64_t reserve = 0;  // left to the rest of the system in the automatic case (64 MiB)
};
// "1.5GiB", "600MiB", "2G" (=GiB), "70%" or "auto". kUsage with the text and what is accepted
// otherwise (also for -1, 0, NaN, overflow).
Result<Budget> ParseBudget(const std::string& text, const std::vector<MemoryBound>& bounds);
// "1.5GiB" -> bytes, without % and auto.
Result<uint64_t> ParseBytes(const std::string& text);
// 1610612736 -> "1.50 GiB".
std::string FormatBytes(uint64_t bytes);

struct ProcessMemory {
  uint64_t rss = 0, peak_rss = 0;  // VmRSS, VmHWM
  uint64_t anonymous = 0, file_backed = 0;
};
ProcessMemory ReadProcessMemory();

// CPUs this process may use: affinity mask and cgroup CPU quota, rounded up; `origin` says which
// bound.
struct CpuCount {
  int cpus = 1;
  std::string origin;
};
CpuCount UsableCpus(const std::string& root = "");
std::string CpuModel();

}  // namespace snug
