// The cache of experts against all experts in memory: the same bytes for every number of slots,
// counted traffic, typed errors and no hang.
#include "weights/experts.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "model/model.h"
#include "testing.h"

namespace snug {
namespace {

using Prefetch = ExpertCacheOptions::Prefetch;

struct OpenedExperts {
  std::unique_ptr<ModelFile> file;
  std::unique_ptr<Model> model;
  WeightLayout layout;
  uint32_t layers() const { return static_cast<uint32_t>(layout.experts.size()); }
};

std::string TinyExperts() { return testing::SourcePath("tests/data/models/gpt-oss.gguf"); }

OpenedExperts OpenExperts(const std::string& path = TinyExperts()) {
  OpenedExperts o;
  o.file = std::move(ModelFile::Open(path)).value();
  o.model = std::move(Model::Open(*o.file)).value();
  o.layout = std::move(MakeLayout(*o.file, *o.model)).value();
  return o;
}

// Random choices of experts, layer by layer over `passes` passes, the same for the same seed.
class Choices {
 public:
  Choices(const OpenedExperts& o, uint32_t used, uint32_t seed) : o_(o), used_(used), rng_(seed) {}
  std::vector<uint32_t> Next() {
    std::vector<uint32_t> all(o_.layout.expert_count);
    for (uint32_t e = 0; e < all.size(); ++e) all[e] = e;
    std::shuffle(all.begin(), all.end(), rng_);
    all.resize(used_);
    std::sort(all.begin(), all.end());
    return all;
  }

 private:
  const OpenedExperts& o_;
  const uint32_t used_;
  std::mt19937 rng_;
};

TEST(Experts, LayoutHoldsEveryExpertOnce) {
  const OpenedExperts o = OpenExperts();
  ASSERT_EQ(o.layers(), 3u);
  ASSERT_EQ(o.layout.expert_count, 8u);
  EXPECT_EQ(TotalExperts(o.layout), 24u);
  // Gate, up and down of 16 x 32, and biases.
  for (const Part& p : o.layout.experts) {
    EXPECT_EQ(p.file_bytes, (3 * 16 * 32 + 16 + 16 + 32) * sizeof(float));
  }
}

TEST(Experts, EverySlotCountGivesTheResidentBytes) {
  const OpenedExperts o = OpenExperts();
  ThreadPool pool(2);
  Ledger ledger(256 * kMiB);
  auto resident = MakeResidentExperts(*o.file, o.layout, ledger, pool, nullptr);
  ASSERT_TRUE(resident.ok());
  for (uint32_t slots : {1u, 2u, 3u, 5u, 8u, 23u, 24u}) {
    for (uint32_t used : {1u, 2u, 8u}) {
      for (const Prefetch prefetch : {Prefetch::kNever, Prefetch::kAlways, Prefetch::kWherePays}) {
        Ledger own(256 * kMiB);
        ExpertCacheOptions options{slots, prefetch, {}};
        std::atomic<uint32_t> state{slots * 31 + used};
        options.delay = [&] {
          if ((state = state * 1664525u + 1013904223u) >> 30 == 0) std::this_thread::yield();
        };
        auto cache = MakeExpertCache(*o.file, o.layout, own, options);
        ASSERT_TRUE(cache.ok());
        EXPECT_EQ(own.snapshot().total,
                  ExpertCacheBytes(o.layout, slots) + ExpertIoBytes(o.layout));
        Choices choices(o, used, 7), guesses(o, used, slots % 2 == 0 ? 7 : 8);
        guesses.Next();
        uint64_t lookups = 0;
        for (int pass = 0; pass < 6; ++pass) {
          for (uint32_t l = 0; l < o.layers(); ++l) {
            const std::vector<uint32_t> experts = choices.Next();
            (*cache)->Announce(l, experts);
            const std::vector<uint32_t> guess = guesses.Next();
            if (l + 1 < o.layers()) (*cache)->Expect(l + 1, guess);
            lookups += experts.size();
            // As the blocks do: one is waited for, more join while they are ready.
            for (size_t i = 0; i < experts.size();) {
              const size_t first = i;
              do {
                auto got = (*cache)->Acquire(l, experts[i]);
                ASSERT_TRUE(got.ok()) << got.error().message;
                auto want = (*resident)->Acquire(l, experts[i]);
                EXPECT_EQ(std::memcmp(*got, *want, o.layout.experts[l].bytes), 0);
                ++i;
              } while (i < experts.size() && (*cache)->Ready(l, experts[i]));
              for (size_t k = first; k < i; ++k) (*cache)->Release(l, experts[k]);
            }
          }
        }
        const ExpertStats s = (*cache)->stats();
        EXPECT_EQ(s.lookups, lookups);
        EXPECT_LE(s.misses, s.lookups);
        if (prefetch == Prefetch::kNever) {
          EXPECT_EQ(s.prefetches, 0u);
          EXPECT_EQ(s.bytes_loaded, s.misses * o.layout.experts[0].file_bytes);
          EXPECT_GE(s.bytes_read, s.bytes_loaded);
        }
        if (slots == 24) {  // each once for the whole run
          EXPECT_LE(s.misses + s.prefetches, 24u);
        }
      }
    }
  }
}

// Experts that a token asks for again and again stay, however many others pass by.
TEST(Experts, KeepsWhatIsWantedMost) {
  const OpenedExperts o = OpenExperts();
  Ledger ledger(256 * kMiB);
  auto cache = MakeExpertCache(*o.file, o.layout, ledger, {6, Prefetch::kNever, {}});
  ASSERT_TRUE(cache.ok());
  uint64_t missed_favourites = 0;
  for (uint32_t pass = 0; pass < 60; ++pass) {
    for (uint32_t l = 0; l < o.layers(); ++l) {
      const std::vector<uint32_t> experts = {0, 1 + (pass * 5 + l) % 7};
      (*cache)->Announce(l, experts);
      if (pass >= 10 && !(*cache)->Ready(l, 0)) ++missed_favourites;
      for (uint32_t e : experts) {
        ASSERT_TRUE((*cache)->Acquire(l, e).ok());
        (*cache)->Release(l, e);
      }
    }
  }
  EXPECT_EQ(missed_favourites, 0u);
}

// A cyclic scan over more than the slots hold: an order by last use would hit nothing.
TEST(Experts, AScanHitsWhatTheSlotsHold) {
  const OpenedExperts o = OpenExperts();
  Ledger ledger(256 * kMiB);
  auto cache = MakeExpertCache(*o.file, o.layout, ledger, {12, Prefetch::kNever, {}});
  ASSERT_TRUE(cache.ok());
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5, 6, 7};
  for (int pass = 0; pass < 40; ++pass) {
    for (uint32_t l = 0; l < o.layers(); ++l) {
      (*cache)->Announce(l, all);
      for (uint32_t e : all) {
        ASSERT_TRUE((*cache)->Acquire(l, e).ok());
        (*cache)->Release(l, e);
      }
    }
  }
  EXPECT_GT((*cache)->stats().hit_rate(), 0.35);  // at best 12 of 24
}

TEST(Experts, ImpossibleOptionsAreRefused) {
  const OpenedExperts o = OpenExperts();
  Ledger ledger(256 * kMiB);
  auto none = MakeExpertCache(*o.file, o.layout, ledger, {0, Prefetch::kNever, {}});
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Code::kUsage);
  Ledger poor(kMiB);
  auto cache = MakeExpertCache(*o.file, o.layout, poor, {2, Prefetch::kNever, {}});
  ASSERT_FALSE(cache.ok());
  EXPECT_EQ(cache.error().code, Code::kDoesNotFit);
}

TEST(Experts, SlotsWithinABudgetFitIt) {
  const OpenedExperts o = OpenExperts();
  for (uint64_t bytes = 0; bytes < 12 * kMiB; bytes += 100000) {
    const uint32_t slots = ExpertSlotsWithin(o.layout, bytes);
    EXPECT_LE(slots, 24u);
    if (slots > 0) {
      EXPECT_LE(ExpertCacheBytes(o.layout, slots) + ExpertIoBytes(o.layout), bytes);
    }
  }
  EXPECT_EQ(ExpertSlotsWithin(o.layout, 64 * kMiB), 24u);
}

TEST(Experts, AFileThatChangesEndsInAnErrorNotAHang) {
  const std::string path = testing::TempDir() + "/m.gguf";
  std::filesystem::copy_file(TinyExperts(), path);
  const OpenedExperts o = OpenExperts(path);
  Ledger ledger(256 * kMiB);
  auto cache = MakeExpertCache(*o.file, o.layout, ledger, {1, Prefetch::kNever, {}});
  ASSERT_TRUE(cache.ok());
  std::filesystem::resize_file(path, 4096);
  for (uint32_t l = 0; l < 2; ++l) {  // and what follows an error is that error again
    const std::vector<uint32_t> experts = {3, 4};
    (*cache)->Announce(l, experts);
    auto got = (*cache)->Acquire(l, 3);
    ASSERT_FALSE(got.ok());
    EXPECT_TRUE(got.error().code == Code::kIo || got.error().code == Code::kBadFile);
  }
}

TEST(Experts, StopsWhileLoading) {
  const OpenedExperts o = OpenExperts();
  Ledger ledger(256 * kMiB);
  for (uint32_t slots : {1u, 3u}) {
    auto cache = MakeExpertCache(*o.file, o.layout, ledger, {slots, Prefetch::kAlways, {}});
    const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5, 6, 7};
    (*cache)->Announce(0, all);
    ASSERT_TRUE((*cache)->Acquire(0, 0).ok());
  }
  EXPECT_EQ(ledger.snapshot().total, 0u);
}

}  // namespace
}  // namespace snug
