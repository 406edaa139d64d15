#include "engine/limits.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "kernel/peak.h"

namespace snug {
namespace {

constexpr uint64_t kTask = 1 * kMiB, kRequest = 4 * kMiB;

// Reads every cache line; independent sums keep the loads in flight.
uint64_t Sum(const uint8_t* data, uint64_t bytes) {
  std::array<uint64_t, 8> sums{};
  for (uint64_t i = 0; i < bytes; i += 64) {
    for (size_t j = 0; j < 8; ++j) {
      uint64_t v;
      std::memcpy(&v, data + i + 8 * j, 8);
      sums[j] += v;
    }
  }
  uint64_t total = 0;
  for (uint64_t s : sums) total += s;
  return total;
}

}  // namespace

Result<double> MeasureReads(ThreadPool& pool, Ledger& ledger, uint64_t bytes, int rounds) {
  SNUG_ASSIGN(Buffer buffer, Buffer::Allocate(ledger, Owner::kScratch, bytes, Pages::kHuge,
                                              "bandwidth measurement"));
  const size_t tasks = buffer.size() / kTask;
  pool.For(tasks, [&](size_t t, int) { std::memset(buffer.data() + t * kTask, 1, kTask); });
  double best = 0;
  std::atomic<uint64_t> sink{0};
  for (int r = 0; r < rounds; ++r) {
    const auto start = Clock::now();
    pool.For(tasks, [&](size_t t, int) { sink += Sum(buffer.data() + t * kTask, kTask); });
    best = std::max(best, static_cast<double>(buffer.size()) / SecondsSince(start));
  }
  return best;
}

double MeasureByteProducts(ThreadPool& pool, int rounds) {
  constexpr uint64_t kRounds = 6'000'000;
  double best = 0;
  for (int r = 0; r < rounds; ++r) {
    std::atomic<uint64_t> products{0};
    const auto start = Clock::now();
    pool.For(static_cast<size_t>(pool.size()),
             [&](size_t, int) { products += RunByteProducts(kRounds); });
    best = std::max(best, static_cast<double>(products) / SecondsSince(start));
  }
  return best;
}

Result<double> MeasureDisk(const std::string& path, Ledger& ledger, uint64_t bytes) {
  SNUG_ASSIGN(const File file, File::Open(path, true));
  SNUG_ASSIGN(Buffer buffer,
              Buffer::Allocate(ledger, Owner::kIo, kRequest, Pages::kNormal, "disk measurement"));
  const uint64_t first = file.size() / 2 / kDirectAlign * kDirectAlign;
  uint64_t done = 0;
  const auto start = Clock::now();
  while (done < bytes) {
    uint64_t got = 0;
    SNUG_TRY(file.ReadAt(first + done, buffer.data(), kRequest, &got));
    done += got;
    if (got < kRequest) break;
  }
  return static_cast<double>(done) / SecondsSince(start);
}

}  // namespace snug
