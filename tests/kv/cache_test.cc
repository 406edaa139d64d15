#include "kv/cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace snug {
namespace {

KvLayout SmallLayout() {
  KvLayout l;
  l.key_type = l.value_type = KvType::kF16;
  l.layers = 3;
  l.kv_heads = 2;
  l.head_dim = 16;
  l.window = {0, 100, 0};
  l.context = 1000;
  l.sequences = 2;
  l.chunk = 128;
  return l;
}

// Writes a mark for every token of every layer, as the engine writes keys, and commits.
void Append(KvCache& cache, uint32_t seq, uint32_t n, uint8_t salt) {
  cache.Extend(seq, n);
  for (uint32_t l = 0; l < cache.layout().layers; ++l) {
    for (uint32_t p = cache.length(seq); p < cache.length(seq) + n; ++p) {
      cache.page(seq, l, p / kTileTokens)[p % kTileTokens] = static_cast<uint8_t>(p * 7 + l + salt);
    }
  }
  cache.Commit(seq, n);
}

// Every token that a query at `length` sees is there and has its mark.
void ExpectSeen(KvCache& cache, uint32_t seq, uint8_t salt) {
  for (uint32_t l = 0; l < cache.layout().layers; ++l) {
    const uint32_t w = cache.layout().window[l], n = cache.length(seq);
    for (uint32_t p = w == 0 || n + 1 <= w ? 0 : n + 1 - w; p < n; ++p) {
      const uint8_t* page = cache.tiles(seq, l)[p / kTileTokens];
      ASSERT_NE(page, nullptr) << "layer " << l << " token " << p;
      ASSERT_EQ(page[p % kTileTokens], static_cast<uint8_t>(p * 7 + l + salt)) << l << " " << p;
    }
  }
}

TEST(KvCache, KeepsWhatQueriesSeeAndNeverExceedsItsPool) {
  Ledger ledger(64 * kMiB);
  auto cache = KvCache::Create(SmallLayout(), ledger);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(ledger.snapshot().total, KvCache::PoolBytes(SmallLayout()));
  std::mt19937 rng(1);
  for (uint32_t seq : {0u, 1u}) {
    while (cache->length(seq) < 1000) {
      const uint32_t n = std::min<uint32_t>(1 + rng() % 128, 1000 - cache->length(seq));
      Append(*cache, seq, n, static_cast<uint8_t>(seq));
      ExpectSeen(*cache, seq, static_cast<uint8_t>(seq));
    }
  }
  ExpectSeen(*cache, 0, 0);
  EXPECT_LE(cache->held_bytes(), KvCache::PoolBytes(SmallLayout()));
}

TEST(KvCache, WindowLayersHoldOnlyTheirWindow) {
  Ledger ledger(64 * kMiB);
  KvLayout l = SmallLayout();
  l.window = {100, 100, 100};
  auto cache = KvCache::Create(l, ledger);
  ASSERT_TRUE(cache.ok());
  Append(*cache, 0, 128, 0);
  for (int i = 0; i < 6; ++i) Append(*cache, 0, 100, 0);
  // window + rollback margin + chunk, in tiles, one more for alignment.
  EXPECT_LE(cache->held_bytes(), 3 * l.page_bytes() * ((100 + kRollback + 128 + 63) / 64 + 1));
}

TEST(KvCache, RollsBackByTheMarginAndRefusesBeyondTheWindow) {
  Ledger ledger(64 * kMiB);
  auto cache = KvCache::Create(SmallLayout(), ledger);
  ASSERT_TRUE(cache.ok());
  for (int i = 0; i < 5; ++i) Append(*cache, 0, 128, 0);
  ASSERT_EQ(cache->Truncate(0, 640 - kRollback), 640 - kRollback);
  ExpectSeen(*cache, 0, 0);
  Append(*cache, 0, 30, 0);
  ExpectSeen(*cache, 0, 0);
  EXPECT_EQ(cache->Held(0, 200), 0u);
  EXPECT_EQ(cache->Truncate(0, 200), 0u);
  EXPECT_EQ(cache->length(0), 0u);
  EXPECT_EQ(cache->held_bytes(), 0u);
}

TEST(KvCache, SharedPagesAreNotWrittenThrough) {
  Ledger ledger(64 * kMiB);
  auto cache = KvCache::Create(SmallLayout(), ledger);
  ASSERT_TRUE(cache.ok());
  Append(*cache, 0, 128, 0);
  Append(*cache, 0, 42, 0);
  const uint64_t alone = cache->held_bytes();
  ASSERT_EQ(cache->Share(0, 1, 150), 150u);
  EXPECT_EQ(cache->length(1), 150u);
  EXPECT_EQ(cache->held_bytes(),
            alone + 3 * SmallLayout().page_bytes());  // one partial page a layer
  ExpectSeen(*cache, 1, 0);
  Append(*cache, 1, 100, 0);
  ExpectSeen(*cache, 0, 0);
  // Back into a page that is shared: writing after it must leave the other sequence alone.
  ASSERT_EQ(cache->Truncate(1, 190), 190u);
  ASSERT_EQ(cache->Truncate(0, 130), 130u);
  Append(*cache, 0, 20, 0);
  ExpectSeen(*cache, 0, 0);
  cache->Clear(0);
  ExpectSeen(*cache, 1, 0);
  cache->Clear(1);
  EXPECT_EQ(cache->held_bytes(), 0u);
}

// A hybrid of one layer with attention and two with states.
TEST(KvCache, LayersWithStatesTakeNoPagesAndDecideWhatIsHeld) {
  Ledger ledger(64 * kMiB);
  KvLayout l = SmallLayout();
  l.window = {0, 0, 0};
  l.attends = {false, true, false};
  l.states.floats = {100, 0, 20};
  l.states.sequences = l.sequences;
  l.states.snapshots = 2;
  auto cache = KvCache::Create(l, ledger);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(ledger.snapshot().total, KvCache::PoolBytes(l));
  EXPECT_EQ(l.total_pages(), l.sequences * ((l.context + kTileTokens - 1) / kTileTokens));
  const auto append = [&](uint32_t seq, uint32_t n) {
    cache->Extend(seq, n);
    cache->states().next(seq, 0)[99] = static_cast<float>(cache->length(seq) + n);
    cache->states().next(seq, 2)[19] = static_cast<float>(cache->length(seq) + n);
    cache->Commit(seq, n);
  };
  append(0, 128);
  append(0, 100);
  for (int i = 0; i < 20; ++i) append(0, 1);
  // Whole tokens of attention, but states at the edges of chunks only.
  EXPECT_EQ(cache->Held(0, 248), 248u);
  EXPECT_EQ(cache->Held(0, 247), 228u);
  EXPECT_EQ(cache->Share(0, 1, 240), 228u);
  EXPECT_EQ(cache->states().committed(1, 0)[99], 228.0f);
  EXPECT_EQ(cache->states().committed(1, 2)[19], 228.0f);
  EXPECT_EQ(cache->Truncate(0, 200), 128u);
  EXPECT_EQ(cache->length(0), 128u);
  append(0, 10);
  EXPECT_EQ(cache->states().committed(0, 0)[99], 138.0f);
  EXPECT_EQ(cache->states().committed(1, 0)[99], 228.0f);
  cache->Clear(0);
  cache->Clear(1);
  EXPECT_EQ(cache->states().committed(0, 0), nullptr);
  EXPECT_EQ(cache->held_bytes(), 0u);
}

TEST(KvCache, ReservesBeforeItAllocates) {
  Ledger ledger(KvCache::PoolBytes(SmallLayout()) - 1);
  auto cache = KvCache::Create(SmallLayout(), ledger);
  ASSERT_FALSE(cache.ok());
  EXPECT_EQ(cache.error().code, Code::kDoesNotFit);
  EXPECT_EQ(ledger.snapshot().total, 0u);
}

// What a file's metadata and a user's flags may add up to does not wrap around.
TEST(KvCache, AbsurdSizesAreMoreThanAnyLedgerGrants) {
  KvLayout l;
  l.layers = 4096;
  l.kv_heads = 1 << 12;
  l.head_dim = 256;
  l.window.assign(l.layers, 0);
  l.context = uint32_t{1} << 31;
  l.sequences = 1024;
  EXPECT_EQ(l.total_pages(), uint64_t{1} << (12 + 25 + 10));
  EXPECT_EQ(KvCache::PoolBytes(l), uint64_t{1} << 60);
  l.window.assign(l.layers, uint32_t{1} << 31);
  l.chunk = uint32_t{1} << 31;
  EXPECT_EQ(KvCache::PoolBytes(l), uint64_t{1} << 60);
  Ledger ledger(uint64_t{1} << 40);
  EXPECT_FALSE(KvCache::Create(l, ledger).ok());
}

}  // namespace
}  // namespace snug
