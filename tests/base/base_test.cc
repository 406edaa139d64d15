#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "base/file.h"
#include "base/json.h"
#include "base/ledger.h"
#include "base/machine.h"
#include "base/threads.h"
#include "testing.h"

namespace snug {
namespace {

TEST(Ledger, HoldsLimitsOwnersAndPeaks) {
  Ledger ledger(100);
  {
    auto a = ledger.Reserve(Owner::kKv, 60, "a");
    ASSERT_TRUE(a.ok());
    auto b = ledger.Reserve(Owner::kWeights, 41, "b");
    ASSERT_FALSE(b.ok());
    EXPECT_EQ(b.error().code, Code::kDoesNotFit);
    auto c = ledger.Reserve(Owner::kWeights, 40, "c");
    ASSERT_TRUE(c.ok());
    Reservation moved = std::move(*a);
    EXPECT_EQ(ledger.snapshot().total, 100u);
  }
  const LedgerSnapshot s = ledger.snapshot();
  EXPECT_EQ(s.total, 0u);
  EXPECT_EQ(s.total_peak, 100u);
  EXPECT_EQ(s.peak[static_cast<size_t>(Owner::kKv)], 60u);
  ledger.FailAfter(1);
  EXPECT_TRUE(ledger.Reserve(Owner::kIo, 1, "first").ok());
  EXPECT_FALSE(ledger.Reserve(Owner::kIo, 1, "second").ok());
  EXPECT_TRUE(ledger.Reserve(Owner::kIo, 1, "third").ok());
}

TEST(Ledger, ManyThreadsNeverPassTheLimit) {
  Ledger ledger(1000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) auto r = ledger.Reserve(Owner::kScratch, 300, "x");
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_LE(ledger.snapshot().total_peak, 1000u);
  EXPECT_EQ(ledger.snapshot().total, 0u);
}

TEST(Buffer, ResidentMemoryIsWhatTheLedgerHolds) {
  for (Pages pages : {Pages::kNormal, Pages::kHuge}) {
    Ledger ledger(64 * kMiB);
    const uint64_t before = ReadProcessMemory().anonymous;
    auto b = Buffer::Allocate(ledger, Owner::kWeights, 33 * kMiB + 5, pages, "test");
    ASSERT_TRUE(b.ok());
    EXPECT_EQ(ledger.snapshot().total, Buffer::Reserved(33 * kMiB + 5, pages));
    for (uint64_t i = 0; i < b->size(); i += 4096) b->data()[i] = 1;
    const uint64_t grown = ReadProcessMemory().anonymous - before;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT_NEAR(static_cast<double>(grown), static_cast<double>(b->size()), kMiB);
#endif
    b->Free();
    EXPECT_EQ(ledger.snapshot().total, 0u);
  }
}

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const Wait wait : {Wait::kSpin, Wait::kSleep}) {
      pool.set_wait(wait);
      for (int round = 0; round < 300; ++round) {
        const size_t n = static_cast<size_t>(round) % 17;
        std::vector<std::atomic<int>> done(n);
        pool.For(n, [&](size_t task, int thread) {
          ASSERT_LT(thread, threads);
          done[task] += 1;
        });
        for (const auto& d : done) ASSERT_EQ(d, 1);
      }
    }
  }
}

TEST(Bytes, AcceptsWhatUsersWriteAndRefusesTheRest) {
  EXPECT_EQ(*ParseBytes("600MiB"), 600 * kMiB);
  EXPECT_EQ(*ParseBytes("1.5GiB"), 1536 * kMiB);
  EXPECT_EQ(*ParseBytes("2G"), 2048 * kMiB);
  EXPECT_EQ(*ParseBytes("512MB"), 512000000u);
  EXPECT_EQ(*ParseBytes("4096"), 4096u);
  for (const char* bad : {"", "-1", "0", "nan", "inf", "1e30", "12XB", "GiB", "1.5.2GiB",
                          "99999999999999999999", "70%", "0.1"}) {
    auto r = ParseBytes(bad);
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_EQ(r.error().code, Code::kUsage);
  }
  EXPECT_EQ(FormatBytes(1536 * kMiB), "1.50 GiB");
}

TEST(Budget, TakesTheLeastBoundOfAFakeSystem) {
  namespace fs = std::filesystem;
  const std::string root = testing::TempDir();
  auto write = [&](const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root + path).parent_path());
    std::ofstream(root + path) << text;
  };
  write("/proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n");
  write("/proc/self/cgroup", "4:memory:/a/b\n0::/u\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n");
  write("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "536870912\n");
  write("/sys/fs/cgroup/memory/a/memory.stat", "total_inactive_file 268435456\n");
  write("/sys/fs/cgroup/u/memory.max", "max\n");
  auto bounds = MemoryBounds(root);
  ASSERT_EQ(bounds.size(), 2u);
  auto budget = ParseBudget("auto", bounds);
  ASSERT_TRUE(budget.ok());
  EXPECT_EQ(budget->bytes, (1024 - 512 + 256 - 64) * kMiB);
  EXPECT_NE(budget->origin.find("cgroup v1"), std::string::npos);
  EXPECT_EQ(ParseBudget("50%", bounds)->bytes, (1024 - 512 + 256 - 64) / 2 * kMiB);
  write("/sys/fs/cgroup/u/memory.max", "209715200\n");
  write("/sys/fs/cgroup/u/memory.current", "0\n");
  bounds = MemoryBounds(root);
  EXPECT_EQ(ParseBudget("auto", bounds)->bytes, (200 - 64) * kMiB);
  EXPECT_FALSE(ParseBudget("0%", bounds).ok());
  EXPECT_FALSE(ParseBudget("101%", bounds).ok());
  EXPECT_EQ(ParseBudget("1GiB", bounds)->origin, "given");
}

TEST(File, ReadsPlainAndDirectAndNoticesChanges) {
  const std::string path = testing::TempDir() + "/f";
  std::string data(100000, '\0');
  std::iota(data.begin(), data.end(), 0);
  ASSERT_TRUE(WriteFileAtomically(path, data.data(), data.size()).ok());
  EXPECT_EQ(*ReadWholeFile(path, 1 << 20), data);
  EXPECT_FALSE(ReadWholeFile(path, 10).ok());
  for (const bool direct : {false, true}) {
    auto file = File::Open(path, direct);
    ASSERT_TRUE(file.ok());
    alignas(4096) static uint8_t buffer[106496];
    uint64_t got = 0;
    ASSERT_TRUE(file->ReadAt(4096, buffer, sizeof(buffer) - 4096, &got).ok());
    ASSERT_EQ(got, data.size() - 4096);
    EXPECT_EQ(std::memcmp(buffer, data.data() + 4096, got), 0);
    EXPECT_TRUE(file->CheckUnchanged().ok());
  }
  auto file = File::Open(path);
  char byte;
  const Status past = file->ReadAt(data.size(), &byte, 1);
  ASSERT_FALSE(past.ok());
  EXPECT_EQ(past.error().code, Code::kBadFile);
  std::ofstream(path, std::ios::app) << "more";
  EXPECT_FALSE(file->CheckUnchanged().ok());
  EXPECT_EQ(File::Open(path + "-absent").error().code, Code::kBadFile);
}

// Where direct reads are refused, ordinary ones leave nothing in the page cache.
TEST(File, RefusedDirectReadsDropTheirPages) {
  constexpr size_t kBytes = 1 << 20;
  const std::string path = testing::TempDir() + "/f";
  const std::string data(kBytes, 'x');
  ASSERT_TRUE(WriteFileAtomically(path, data.data(), data.size()).ok());  // synced: clean pages
  const int fd = open(path.c_str(), O_RDONLY);
  void* map = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  auto cached = [&] {
    std::vector<unsigned char> pages(kBytes / 4096);
    EXPECT_EQ(mincore(map, kBytes, pages.data()), 0);
    return std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1) != 0; });
  };
  std::vector<char> buffer(kBytes);
  ASSERT_TRUE(File::Open(path)->ReadAt(0, buffer.data(), kBytes).ok());
  EXPECT_EQ(cached(), static_cast<std::ptrdiff_t>(kBytes / 4096));
  auto refused = File::Open(path, true, true);
  ASSERT_TRUE(refused.ok());
  EXPECT_FALSE(refused->direct());
  ASSERT_TRUE(refused->ReadAt(0, buffer.data(), kBytes).ok());
  EXPECT_EQ(std::string(buffer.data(), kBytes), data);
  EXPECT_EQ(cached(), 0);
  munmap(map, kBytes);
  close(fd);
  // A file system that truly refuses.
  auto proc = File::Open("/proc/self/maps", true);
  ASSERT_TRUE(proc.ok());
  EXPECT_FALSE(proc->direct());
  uint64_t got = 0;
  EXPECT_TRUE(proc->ReadAt(0, buffer.data(), 64, &got).ok());
  EXPECT_EQ(got, 64u);
}

TEST(Json, BoundsDepthSizeAndDuplicates) {
  EXPECT_TRUE(ParseJson(R"({"a":[1,2]})", "t").ok());
  EXPECT_FALSE(ParseJson(R"({"a":1,"a":2})", "t").ok());
  EXPECT_FALSE(ParseJson(std::string(100000, '['), "t").ok());
  EXPECT_FALSE(ParseJson("[1", "t").ok());
  EXPECT_FALSE(ParseJson("[1,2,3]", "t", {3, 64}).ok());
  EXPECT_NO_THROW(DumpJson(Json("\xff")));
}

}  // namespace
}  // namespace snug
