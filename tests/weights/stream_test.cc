// The stream place against the resident one: the same bytes for every k and k', bounded slots,
// counted traffic, typed errors and no hang.
#include "weights/stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "format/gguf.h"
#include "model/model.h"
#include "testing.h"

namespace snug {
namespace {

struct Opened {
  std::unique_ptr<GgufFile> file;
  std::unique_ptr<Model> model;
  WeightLayout layout;
};

Opened Open(const std::string& path) {
  Opened o;
  auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok());
  o.file = std::make_unique<GgufFile>(std::move(*file));
  auto model = Model::Open(*o.file);
  EXPECT_TRUE(model.ok());
  o.model = std::move(*model);
  auto layout = MakeLayout(*o.file, *o.model);
  EXPECT_TRUE(layout.ok());
  o.layout = std::move(*layout);
  return o;
}

std::string Tiny() { return testing::GoldenPath("tiny/gemma3/model.gguf"); }

// One pass over all parts (or without the head) that compares every part with the resident copy.
void Pass(WeightPlace& place, WeightPlace& resident, const WeightLayout& layout, bool head) {
  const size_t parts = head ? layout.parts.size() : layout.first_head;
  place.BeginPass(parts, layout.parts.size());
  for (size_t p = 1; p < parts; ++p) {
    auto got = place.Acquire(p);
    ASSERT_TRUE(got.ok()) << got.error().message;
    auto want = resident.Acquire(p);
    EXPECT_EQ(std::memcmp(*got, *want, layout.parts[p].bytes), 0) << p;
    place.Release(p);
  }
}

TEST(Stream, EverySlotCountGivesTheResidentBytes) {
  SNUG_NEED(Tiny());
  const Opened o = Open(Tiny());
  ThreadPool pool(2);
  Ledger ledger(256 * kMiB);
  auto resident = MakeResidentPlace(*o.file, o.layout, ledger, pool, nullptr);
  ASSERT_TRUE(resident.ok());
  const auto n = static_cast<uint32_t>(o.layout.parts.size() - 1);
  for (uint32_t k = 1; k <= n; ++k) {
    for (uint32_t back = 1; back <= k; ++back) {
      for (uint32_t pinned : {0u, 2u, n - 1}) {
        Ledger own(256 * kMiB);
        StreamOptions options{k, back, pinned, {}};
        std::atomic<uint32_t> state{k * 31 + back};
        options.delay = [&] {
          if ((state = state * 1664525u + 1013904223u) >> 30 == 0) std::this_thread::yield();
        };
        auto place = MakeStreamPlace(*o.file, o.layout, own, options);
        ASSERT_TRUE(place.ok()) << place.error().message;
        EXPECT_EQ(own.snapshot().total, StreamWeightBytes(o.layout, options) + StreamIoBytes());
        const uint64_t at_start = (*place)->stats().loads;
        for (int pass = 0; pass < 3; ++pass) Pass(**place, **resident, o.layout, pass != 1);
        const PlaceStats stats = (*place)->stats();
        EXPECT_LE(stats.peak_slots, k);
        const uint32_t streamed = n - std::min(pinned, n);
        if (streamed <= k) {
          EXPECT_EQ(stats.loads - at_start, streamed);  // each part once for the whole run
        } else {
          EXPECT_GE(stats.loads - at_start, 2u * streamed);
        }
      }
    }
  }
}

TEST(Stream, TrafficOfAPassIsWhatIsNotPinned) {
  SNUG_NEED(Tiny());
  const Opened o = Open(Tiny());
  ThreadPool pool(1);
  Ledger ledger(256 * kMiB);
  auto resident = MakeResidentPlace(*o.file, o.layout, ledger, pool, nullptr);
  const StreamOptions options{2, 1, 2, {}};
  auto place = MakeStreamPlace(*o.file, o.layout, ledger, options);
  ASSERT_TRUE(place.ok());
  const uint64_t pinned_loads = (*place)->stats().loads;
  constexpr int kPasses = 20;
  for (int i = 0; i < kPasses; ++i) Pass(**place, **resident, o.layout, true);
  const uint64_t streamed = o.layout.parts.size() - 1 - 2;
  const uint64_t loads = (*place)->stats().loads - pinned_loads;
  EXPECT_GE(loads, kPasses * streamed);
  EXPECT_LE(loads,
            kPasses * streamed + options.slots);  // what was loaded ahead of a pass that never came
}

// A pass without the head must not find the head in its slots, however long the reader had.
TEST(Stream, ReadsAheadTheLayersOnly) {
  SNUG_NEED(Tiny());
  const Opened o = Open(Tiny());
  ThreadPool pool(1);
  Ledger ledger(256 * kMiB);
  auto resident = MakeResidentPlace(*o.file, o.layout, ledger, pool, nullptr);
  const auto n = static_cast<uint32_t>(o.layout.parts.size() - 1);
  for (uint32_t k = 1; k <= n; ++k) {
    auto place = MakeStreamPlace(*o.file, o.layout, ledger, {k, 1, 0, {}});
    ASSERT_TRUE(place.ok());
    for (int pass = 0; pass < 4; ++pass) {
      Pass(**place, **resident, o.layout, pass % 2 == 0);
      uint64_t loads = 0;
      while (loads != (*place)->stats().loads) {
        loads = (*place)->stats().loads;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
  }
}

TEST(Stream, ImpossibleOptionsAreRefused) {
  SNUG_NEED(Tiny());
  const Opened o = Open(Tiny());
  const auto n = static_cast<uint32_t>(o.layout.parts.size() - 1);
  Ledger ledger(256 * kMiB);
  for (const StreamOptions& bad :
       {StreamOptions{0, 1, 0, {}}, {n + 1, 1, 0, {}}, {2, 3, 0, {}}, {2, 0, 0, {}}}) {
    auto place = MakeStreamPlace(*o.file, o.layout, ledger, bad);
    ASSERT_FALSE(place.ok());
    EXPECT_EQ(place.error().code, Code::kUsage);
  }
  Ledger poor(kMiB);
  auto place = MakeStreamPlace(*o.file, o.layout, poor, {2, 1, 0, {}});
  ASSERT_FALSE(place.ok());
  EXPECT_EQ(place.error().code, Code::kDoesNotFit);
}

TEST(Stream, AFileThatChangesEndsInAnErrorNotAHang) {
  SNUG_NEED(Tiny());
  for (const bool truncate : {false, true}) {
    const std::string path = testing::TempDir() + "/m.gguf";
    std::filesystem::copy_file(Tiny(), path);
    const Opened o = Open(path);
    Ledger ledger(256 * kMiB);
    auto place = MakeStreamPlace(*o.file, o.layout, ledger, {1, 1, 0, {}});
    ASSERT_TRUE(place.ok());
    if (truncate) {
      std::filesystem::resize_file(path, 4096);
    } else {
      std::ofstream(path, std::ios::app) << "more";
    }
    bool failed = false;
    for (int pass = 0; pass < 3 && !failed; ++pass) {
      (*place)->BeginPass(o.layout.parts.size(), o.layout.parts.size());
      for (size_t p = 1; p < o.layout.parts.size() && !failed; ++p) {
        auto got = (*place)->Acquire(p);
        failed = !got.ok();
        if (failed) {
          EXPECT_TRUE(got.error().code == Code::kIo || got.error().code == Code::kBadFile);
        } else {
          (*place)->Release(p);
        }
      }
    }
    EXPECT_TRUE(failed);
  }
}

TEST(Stream, StopsInTheMiddleOfAPass) {
  SNUG_NEED(Tiny());
  const Opened o = Open(Tiny());
  Ledger ledger(256 * kMiB);
  for (size_t stop = 1; stop < o.layout.parts.size(); ++stop) {
    auto place = MakeStreamPlace(*o.file, o.layout, ledger, {2, 1, 0, {}});
    (*place)->BeginPass(o.layout.parts.size(), o.layout.parts.size());
    for (size_t p = 1; p < stop; ++p) {
      ASSERT_TRUE((*place)->Acquire(p).ok());
      (*place)->Release(p);
    }
  }
  EXPECT_EQ(ledger.snapshot().total, 0u);
}

}  // namespace
}  // namespace snug
