// Bounds on memory and processors, from trees as real systems show them.
#include "base/machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/ledger.h"
#include "testing.h"

namespace snug {
namespace {

struct Tree {
  std::string root = testing::TempDir();
  Tree& Add(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
    std::ofstream(root + path) << text;
    return *this;
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const MemoryBound& b : MemoryBounds(root)) names.push_back(b.name);
    return names;
  }
};

constexpr char kMeminfo[] =
    "MemTotal:       32652196 kB\nMemFree:         1203440 kB\nMemAvailable:   25165824 kB\n"
    "Buffers:          840772 kB\nCached:         21630180 kB\n";

// A container of cgroup v1: its own path is that of the host, the mount shows only its own group.
Tree DockerV1() {
  Tree t;
  t.Add("/proc/meminfo", kMeminfo);
  t.Add("/proc/self/cgroup",
        "12:cpuset:/docker/4f1c\n11:memory:/docker/4f1c\n10:cpu,cpuacct:/docker/4f1c\n"
        "9:freezer:/docker/4f1c\n1:name=systemd:/docker/4f1c\n0::/docker/4f1c\n");
  t.Add("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
  t.Add("/sys/fs/cgroup/memory/memory.usage_in_bytes", "734003200\n");
  t.Add("/sys/fs/cgroup/memory/memory.stat",
        "cache 524288000\nrss 209715200\nactive_file 104857600\ninactive_file 1\n"
        "hierarchical_memory_limit 2147483648\ntotal_cache 524288000\ntotal_inactive_file "
        "419430400\n");
  t.Add("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
  t.Add("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  return t;
}

// A service of cgroup v2 under a slice with a limit of its own.
Tree SystemdV2() {
  Tree t;
  t.Add("/proc/meminfo", kMeminfo);
  t.Add("/proc/self/cgroup", "0::/user.slice/user-1000.slice/user@1000.service/app.scope\n");
  const std::string slice = "/sys/fs/cgroup/user.slice";
  t.Add(slice + "/memory.max", "max\n").Add(slice + "/memory.current", "9663676416\n");
  t.Add(slice + "/user-1000.slice/memory.max", "4294967296\n");
  t.Add(slice + "/user-1000.slice/memory.current", "3221225472\n");
  t.Add(slice + "/user-1000.slice/memory.stat", "anon 1\nfile 2\ninactive_file 536870912\n");
  t.Add(slice + "/user-1000.slice/user@1000.service/memory.max", "max\n");
  t.Add(slice + "/user-1000.slice/user@1000.service/app.scope/memory.max", "8589934592\n");
  t.Add(slice + "/user-1000.slice/user@1000.service/app.scope/memory.current", "1048576\n");
  t.Add(slice + "/cpu.max", "max 100000\n");
  return t;
}

// A container of cgroup v2 with its own name space.
Tree PodmanV2() {
  Tree t;
  t.Add("/proc/meminfo", kMeminfo).Add("/proc/self/cgroup", "0::/\n");
  t.Add("/sys/fs/cgroup/memory.max", "1073741824\n");
  t.Add("/sys/fs/cgroup/memory.high", "805306368\n");
  t.Add("/sys/fs/cgroup/memory.current", "104857600\n");
  t.Add("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  return t;
}

TEST(Machine, ContainerOfCgroupV1) {
  const Tree t = DockerV1();
  EXPECT_EQ(t.Names(),
            (std::vector<std::string>{"cgroup v1 /sys/fs/cgroup/memory", "available memory"}));
  const auto budget = ParseBudget("auto", MemoryBounds(t.root));
  EXPECT_EQ(budget->bytes, (2048 - 700 + 400 - 64) * kMiB);
  EXPECT_EQ(budget->origin, "cgroup v1 /sys/fs/cgroup/memory");
  EXPECT_EQ(budget->reserve, 64 * kMiB);
  const CpuCount one_and_a_half = UsableCpus(t.root);
  if (one_and_a_half.cpus < 2) GTEST_SKIP() << "one processor only";
  EXPECT_EQ(one_and_a_half.cpus, 2);
}

TEST(Machine, SliceOfCgroupV2BindsItsServices) {
  const Tree t = SystemdV2();
  EXPECT_EQ(t.Names().size(), 3u);
  const auto budget = ParseBudget("auto", MemoryBounds(t.root));
  EXPECT_EQ(budget->bytes, (4096 - 3072 + 512 - 64) * kMiB);
  EXPECT_EQ(budget->origin, "cgroup v2 /sys/fs/cgroup/user.slice/user-1000.slice");
  EXPECT_EQ(UsableCpus(t.root).origin, "affinity");
}

TEST(Machine, ContainerOfCgroupV2IsThrottledAboveItsHighMark) {
  const Tree t = PodmanV2();
  const auto budget = ParseBudget("70%", MemoryBounds(t.root));
  EXPECT_EQ(budget->bytes, static_cast<uint64_t>(0.7 * (768 - 100 - 64) * kMiB));
  EXPECT_EQ(budget->origin, "cgroup v2 /sys/fs/cgroup");
  EXPECT_EQ(UsableCpus(t.root).cpus, 1);
}

TEST(Machine, QuotaOfCgroupV2IsNamed) {
  const Tree t = PodmanV2();
  if (UsableCpus().cpus < 2) GTEST_SKIP() << "one processor only";
  EXPECT_EQ(UsableCpus(t.root).origin, "CPU quota of cgroup v2");
}

TEST(Machine, WithoutGroupsAvailableMemoryBinds) {
  Tree t;
  t.Add("/proc/meminfo", kMeminfo);
  const auto budget = ParseBudget("auto", MemoryBounds(t.root));
  EXPECT_EQ(budget->bytes, (24576 - 64) * kMiB);
  EXPECT_EQ(budget->origin, "available memory");
  EXPECT_EQ(ParseBudget("auto", MemoryBounds(testing::TempDir())).error().code, Code::kUsage);
}

TEST(Machine, NothingIsLeftWhereMoreIsInUseThanAllowed) {
  Tree t;
  t.Add("/proc/meminfo", kMeminfo).Add("/proc/self/cgroup", "0::/\n");
  t.Add("/sys/fs/cgroup/memory.max", "1048576\n").Add("/sys/fs/cgroup/memory.current", "2097152\n");
  const auto budget = ParseBudget("auto", MemoryBounds(t.root));
  ASSERT_TRUE(budget.ok());
  EXPECT_EQ(budget->bytes, 0u);
}

// Files that no kernel writes: no bound, no crash.
TEST(Machine, DamagedTreesAreIgnored) {
  for (const char* text : {"", "\n", "x", "-1\n", "99999999999999999999999999\n", "1 2 3"}) {
    Tree t;
    t.Add("/proc/meminfo", text)
        .Add("/proc/self/cgroup", std::string("0::/\n1:memory:\n::\n") + text);
    for (const char* file : {"memory.max", "memory.current", "memory.stat", "cpu.max"})
      t.Add(std::string("/sys/fs/cgroup/") + file, text);
    MemoryBounds(t.root);
    EXPECT_GE(UsableCpus(t.root).cpus, 1) << text;
  }
}

}  // namespace
}  // namespace snug
