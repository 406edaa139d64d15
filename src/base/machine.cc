#include "base/machine.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/ledger.h"

namespace snug {
namespace {

constexpr uint64_t kReserve = 64 * kMiB;
// cgroup v1 writes a page-rounded LONG_MAX for "no limit".
constexpr uint64_t kNoLimit = uint64_t{1} << 60;

std::string Slurp(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

bool ReadNumber(const std::string& path, uint64_t* value) {
  const std::string text = Slurp(path);
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return ec == std::errc() && end != text.data();
}

// "Key:   123 kB" of a /proc file, in bytes; 0 if absent.
uint64_t ProcField(const std::string& text, std::string_view key) {
  size_t at = text.find(std::string(key) + ":");
  if (at == std::string::npos) return 0;
  at = text.find_first_of("0123456789", at + key.size());
  uint64_t value = 0;
  if (at != std::string::npos) std::from_chars(text.data() + at, text.data() + text.size(), value);
  return value * 1024;
}

struct CgroupPath {
  bool v2 = false;
  std::string controllers, path;
};

std::vector<CgroupPath> OwnCgroups(const std::string& root) {
  std::vector<CgroupPath> groups;
  std::istringstream in(Slurp(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(in, line);) {
    const size_t a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    groups.push_back({line.substr(0, a) == "0" && b == a + 1, line.substr(a + 1, b - a - 1),
                      line.substr(b + 1)});
  }
  return groups;
}

// The group's folder and its parents', nearest first. Inside a container the path may not exist
// below the mount; the mount's root is then the group.
std::vector<std::string> Ancestors(const std::string& mount, std::string path) {
  std::vector<std::string> folders;
  for (;;) {
    folders.push_back(mount + (path == "/" ? "" : path));
    if (path.empty() || path == "/") break;
    path = path.substr(0, path.rfind('/'));
  }
  return folders;
}

void AddCgroupBounds(const std::string& root, std::vector<MemoryBound>* bounds) {
  for (const CgroupPath& group : OwnCgroups(root)) {
    const bool v1 =
        !group.v2 && ("," + group.controllers + ",").find(",memory,") != std::string::npos;
    if (!group.v2 && !v1) continue;
    const std::string mount = root + (v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup");
    for (const std::string& folder : Ancestors(mount, group.path)) {
      MemoryBound bound;
      uint64_t limit = 0;
      bound.limit = kNoLimit;
      // Above its high mark a group of v2 is not refused, but slowed to a crawl.
      for (const char* file : {v1 ? "/memory.limit_in_bytes" : "/memory.max", "/memory.high"}) {
        if (ReadNumber(folder + file, &limit)) bound.limit = std::min(bound.limit, limit);
      }
      if (bound.limit >= kNoLimit) continue;
      ReadNumber(folder + (v1 ? "/memory.usage_in_bytes" : "/memory.current"), &bound.in_use);
      // Page cache that the kernel can take back is not in use.
      const std::string stat = Slurp(folder + "/memory.stat");
      const std::string key = v1 ? "total_inactive_file " : "inactive_file ";
      if (const size_t at = stat.find(key); at != std::string::npos) {
        uint64_t inactive = 0;
        std::from_chars(stat.data() + at + key.size(), stat.data() + stat.size(), inactive);
        bound.in_use -= std::min(bound.in_use, inactive);
      }
      bound.name = fmt::format("cgroup {} {}", v1 ? "v1" : "v2", folder.substr(root.size()));
      bounds->push_back(bound);
    }
  }
}

Error BadSize(const std::string& text) {
  return MakeError(Code::kUsage, fmt::format("'{}' is not an amount of memory", text),
                   "give bytes with a unit, as 600MiB or 1.5GiB; or a share, as 70%; or auto",
                   {{"value", text}});
}

std::string Lower(std::string s) {
  for (char& c : s) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return s;
}

// A positive decimal number at the start of `text`; *rest is what follows.
bool ParseNumber(const std::string& text, double* value, std::string* rest) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return false;
  const auto [end, ec] =
      std::from_chars(text.data(), text.data() + text.size(), *value, std::chars_format::fixed);
  if (ec != std::errc() || !std::isfinite(*value) || *value <= 0) return false;
  *rest = Lower(std::string(end, text.data() + text.size() - end));
  rest->erase(0, rest->find_first_not_of(' '));
  return true;
}

}  // namespace

std::vector<MemoryBound> MemoryBounds(const std::string& root) {
  std::vector<MemoryBound> bounds;
  AddCgroupBounds(root, &bounds);
  const std::string meminfo = Slurp(root + "/proc/meminfo");
  if (const uint64_t total = ProcField(meminfo, "MemTotal"); total != 0) {
    const uint64_t available = ProcField(meminfo, "MemAvailable");
    bounds.push_back({"available memory", total, total - std::min(total, available)});
  }
  const std::string status = Slurp(root + "/proc/self/status");
  const std::pair<int, const char*> limits[] = {{RLIMIT_AS, "VmSize"}, {RLIMIT_DATA, "VmData"}};
  for (const auto& [resource, field] : limits) {
    rlimit limit{};
    if (!root.empty() || getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
      continue;
    bounds.push_back({resource == RLIMIT_AS ? "RLIMIT_AS (ulimit -v)" : "RLIMIT_DATA (ulimit -d)",
                      limit.rlim_cur, ProcField(status, field)});
  }
  return bounds;
}

Result<uint64_t> ParseBytes(const std::string& text) {
  double value = 0;
  std::string unit;
  if (!ParseNumber(text, &value, &unit)) return BadSize(text);
  struct Unit {
    const char* name;
    double bytes;
  };
  // A bare K, M, G or T is binary, as users of memory options mean it; KB, MB, GB, TB are decimal.
  static constexpr Unit kUnits[] = {{"", 1},
                                    {"b", 1},
                                    {"k", 1024.0},
                                    {"kib", 1024.0},
                                    {"kb", 1e3},
                                    {"m", 1048576.0},
                                    {"mib", 1048576.0},
                                    {"mb", 1e6},
                                    {"g", 1073741824.0},
                                    {"gib", 1073741824.0},
                                    {"gb", 1e9},
                                    {"t", 1099511627776.0},
                                    {"tib", 1099511627776.0},
                                    {"tb", 1e12}};
  for (const Unit& u : kUnits) {
    if (unit != u.name) continue;
    const double bytes = value * u.bytes;
    if (bytes < 1 || bytes > static_cast<double>(kNoLimit)) return BadSize(text);
    return static_cast<uint64_t>(bytes);
  }
  return BadSize(text);
}

Result<Budget> ParseBudget(const std::string& text, const std::vector<MemoryBound>& bounds) {
  Budget budget;
  double share = 1;
  const std::string lower = Lower(text);
  if (lower != "auto") {
    double value = 0;
    std::string unit;
    if (!ParseNumber(text, &value, &unit)) return BadSize(text);
    if (unit != "%") {
      SNUG_ASSIGN(budget.bytes, ParseBytes(text));
      budget.origin = "given";
      return budget;
    }
    if (value > 100) return BadSize(text);
    share = value / 100;
  }
  const MemoryBound* least = nullptr;
  for (const MemoryBound& b : bounds) {
    if (least == nullptr || b.free() < least->free()) least = &b;
  }
  if (least == nullptr) {
    return MakeError(Code::kUsage, "this system does not say how much memory it has",
                     "give --memory in bytes, as 600MiB");
  }
  const uint64_t free = least->free();
  budget.reserve = kReserve;
  budget.bytes =
      free > kReserve ? static_cast<uint64_t>(share * static_cast<double>(free - kReserve)) : 0;
  budget.origin = least->name;
  return budget;
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, kUnits[unit]);
}

ProcessMemory ReadProcessMemory() {
  const std::string status = Slurp("/proc/self/status");
  // The kernel may keep VmRSS in per-CPU batches and so report it MiBs late; smaps_rollup counts.
  const uint64_t counted = ProcField(Slurp("/proc/self/smaps_rollup"), "Rss");
  return {counted != 0 ? counted : ProcField(status, "VmRSS"), ProcField(status, "VmHWM"),
          ProcField(status, "RssAnon"),
          ProcField(status, "RssFile") + ProcField(status, "RssShmem")};
}

CpuCount UsableCpus(const std::string& root) {
  CpuCount count;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count.cpus = std::max(1, CPU_COUNT(&set));
  count.origin = "affinity";
  for (const CgroupPath& group : OwnCgroups(root)) {
    const bool v1 = !group.v2 && ("," + group.controllers + ",").find(",cpu,") != std::string::npos;
    if (!group.v2 && !v1) continue;
    for (const std::string& folder :
         Ancestors(root + (v1 ? "/sys/fs/cgroup/cpu" : "/sys/fs/cgroup"), group.path)) {
      double quota = 0, period = 0;
      if (v1) {
        uint64_t q = 0, p = 0;
        if (!ReadNumber(folder + "/cpu.cfs_quota_us", &q) ||
            !ReadNumber(folder + "/cpu.cfs_period_us", &p))
          continue;
        quota = static_cast<double>(q);
        period = static_cast<double>(p);
      } else {
        std::istringstream in(Slurp(folder + "/cpu.max"));
        if (!(in >> quota >> period)) continue;
      }
      if (quota <= 0 || period <= 0) continue;
      const int cpus = std::max(1, static_cast<int>(std::ceil(quota / period)));
      if (cpus < count.cpus) {
        count.cpus = cpus;
        count.origin = fmt::format("CPU quota of cgroup {}", v1 ? "v1" : "v2");
      }
    }
  }
  return count;
}

std::string CpuModel() {
  std::istringstream in(Slurp("/proc/cpuinfo"));
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos && colon + 2 < line.size()) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace snug
