// Rows in a file: what is fetched is what was written, the rows used last stay, errors lose
// nothing.
#include "kv/placed_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <list>
#include <random>

#include "broken_file.h"
#include "kernel/packed_row.h"
#include "kv/tiles.h"
#include "testing.h"

namespace snug {
namespace {

constexpr uint32_t kHeads = 2, kContext = 500, kLayers = 2;

PlacedLayout Layout(const std::string& place, KvType type, uint32_t dim, uint32_t most) {
  PlacedLayout l;
  l.method = *ParsePlace(place);
  l.folder = kPlaceFolder;
  l.layers = kLayers;
  l.key_type = l.value_type = type;
  l.key_rows = type == KvType::kF16;
  l.heads = kHeads;
  l.head_dim = dim;
  l.context = kContext;
  l.sequences = 2;
  l.index_bytes = 64;
  l.most_rows = most;
  return l;
}

// Pages of random rows, as a cache has them.
struct RowPages {
  explicit RowPages(const PlacedLayout& l, uint32_t seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    const size_t key_tile = KvTileBytes(l.key_type, l.head_dim);
    const size_t value_tile = KvTileBytes(l.value_type, l.head_dim);
    std::vector<float> v(l.head_dim);
    for (uint32_t t = 0; t < Tiles(l.context); ++t) {
      data.emplace_back(l.heads * (key_tile + value_tile));
      for (uint32_t h = 0; h < l.heads; ++h) {
        for (uint32_t s = 0; s < kTile; ++s) {
          for (float& x : v) x = normal(rng);
          (l.key_rows ? StoreValue : StoreKey)(l.key_type, v.data(), l.head_dim, s,
                                               data[t].data() + h * key_tile);
          for (float& x : v) x = normal(rng);
          StoreValue(l.value_type, v.data(), l.head_dim, s,
                     data[t].data() + l.heads * key_tile + h * value_tile);
        }
      }
      bases.push_back(data[t].data());
    }
  }
  std::vector<uint8_t> Row(const PlacedLayout& l, uint32_t head, uint32_t row) const {
    const size_t key_tile = KvTileBytes(l.key_type, l.head_dim);
    const size_t value_tile = KvTileBytes(l.value_type, l.head_dim);
    const uint8_t* page = bases[row / kTile];
    std::vector<uint8_t> packed(l.row_bytes());
    PackKey(l.key_type, page + head * key_tile, l.head_dim, row % kTile, l.key_rows, packed.data());
    PackValue(l.value_type, page + l.heads * key_tile + head * value_tile, l.head_dim, row % kTile,
              packed.data() + PackedBytes(l.key_type, l.head_dim));
    return packed;
  }
  std::vector<std::vector<uint8_t>> data;
  std::vector<uint8_t*> bases;
};

struct Choice {
  std::vector<uint32_t> rows;
  ChosenRows chosen;
};
// `count` of the first `rows` rows for each head.
Choice Choose(const PlacedLayout& l, std::mt19937& rng, uint32_t rows, uint32_t count) {
  Choice c;
  c.rows.resize(size_t{l.heads} * l.most_rows);
  for (uint32_t h = 0; h < l.heads; ++h) {
    std::vector<uint32_t> all(rows);
    for (uint32_t i = 0; i < rows; ++i) all[i] = i;
    std::shuffle(all.begin(), all.end(), rng);
    std::sort(all.begin(), all.begin() + count);
    std::copy_n(all.begin(), count, c.rows.begin() + h * l.most_rows);
  }
  c.chosen = {c.rows.data(), l.most_rows, count};
  return c;
}

PlacedRows Create(const PlacedLayout& l, Ledger& ledger) {
  auto rows = PlacedRows::Create(l, ledger);
  EXPECT_TRUE(rows.ok()) << (rows.ok() ? "" : rows.error().message);
  return std::move(*rows);
}

void ExpectRows(const PlacedLayout& l, const RowPages& pages, const ChosenRows& chosen,
                const uint8_t* const* packed, uint32_t in_file) {
  for (uint32_t h = 0; h < l.heads; ++h) {
    for (uint32_t i = 0; i < chosen.count; ++i) {
      const uint32_t row = chosen.rows[h * chosen.stride + i];
      const uint8_t* at = packed[h * chosen.stride + i];
      if (row >= in_file) {
        ASSERT_EQ(at, nullptr);
        continue;
      }
      ASSERT_NE(at, nullptr);
      ASSERT_EQ(pages.Row(l, h, row), std::vector<uint8_t>(at, at + l.row_bytes()))
          << KvTypeName(l.key_type) << " head " << h << " row " << row;
    }
  }
}

// Types and sizes of which rows lie within blocks of the file, across them, and fill several.
TEST(PlacedRows, FetchesWhatWasWritten) {
  const std::pair<KvType, uint32_t> shapes[] = {
      {KvType::kF16, 64},    {KvType::kF16, 80},  {KvType::kQ8_0, 128}, {KvType::kQ4_0, 32},
      {KvType::kF8E4M3, 80}, {KvType::kF32, 512}, {KvType::kF32, 1024}};
  for (const auto& [type, dim] : shapes) {
    const PlacedLayout l = Layout("disk:hot=0", type, dim, 40);
    Ledger ledger(256 * kMiB);
    PlacedRows rows = Create(l, ledger);
    EXPECT_EQ(ledger.snapshot().total, Buffer::Reserved(l.bytes(), Pages::kNormal));
    std::mt19937 rng(11);
    // Both sequences and layers, which must not mix.
    std::vector<RowPages> pages;
    for (uint32_t i = 0; i < 2 * kLayers; ++i) pages.emplace_back(l, i);
    for (const uint32_t end : {1u, 3u, 6u}) {
      for (uint32_t i = 0; i < 2 * kLayers; ++i) {
        ASSERT_TRUE(rows.Write(i / kLayers, i % kLayers, end, pages[i].bases.data()).ok());
        EXPECT_EQ(rows.tiles(i / kLayers, i % kLayers), end);
      }
      for (uint32_t round = 0; round < 3; ++round) {
        for (uint32_t i = 0; i < 2 * kLayers; ++i) {
          const Choice c = Choose(l, rng, end * kTile + 30, 40);
          const auto packed = rows.Fetch(i / kLayers, i % kLayers, c.chosen);
          ASSERT_TRUE(packed.ok());
          ExpectRows(l, pages[i], c.chosen, *packed, end * kTile);
        }
      }
    }
    RowPages back(l, 99);
    for (uint32_t i = 0; i < 2 * kLayers; ++i) {
      ASSERT_TRUE(rows.Read(i / kLayers, i % kLayers, back.bases.data()).ok());
      for (uint32_t h = 0; h < kHeads; ++h) {
        for (uint32_t row = 0; row < 6 * kTile; ++row)
          ASSERT_EQ(back.Row(l, h, row), pages[i].Row(l, h, row));
      }
    }
  }
}

// Against lists of rows from the last used one to the first.
TEST(PlacedRows, TheRowsUsedLastStay) {
  for (const char* place : {"disk:hot=0", "disk:hot=60", "disk:hot=1/2", "disk:hot=1,readers=3"}) {
    const PlacedLayout l = Layout(place, KvType::kF16, 32, 40);
    Ledger ledger(64 * kMiB);
    PlacedRows rows = Create(l, ledger);
    const RowPages pages(l, 1);
    ASSERT_TRUE(rows.Write(0, 1, 7, pages.bases.data()).ok());
    std::mt19937 rng(2);
    std::list<uint32_t> used[kHeads];
    uint64_t wanted = 0, hits = 0;
    for (uint32_t round = 0; round < 60; ++round) {
      const Choice c = Choose(l, rng, round % 2 == 0 ? 120 : 448, 40 - round % 7);
      for (uint32_t h = 0; h < kHeads; ++h) {
        const std::span<const uint32_t> now(c.rows.data() + h * l.most_rows, c.chosen.count);
        const auto before = used[h];
        std::vector<uint32_t> missing;
        for (const uint32_t row : now) {
          if (std::find(before.begin(), before.end(), row) == before.end()) {
            missing.push_back(row);
            continue;
          }
          ++hits;
          used[h].remove(row);
          used[h].push_front(row);
        }
        wanted += now.size();
        for (const uint32_t row : missing) used[h].push_front(row);
        while (used[h].size() > l.hot_rows()) used[h].pop_back();
      }
      const auto packed = rows.Fetch(0, 1, c.chosen);
      ASSERT_TRUE(packed.ok());
      ExpectRows(l, pages, c.chosen, *packed, 448);
      ASSERT_EQ(rows.stats().rows, wanted);
      ASSERT_EQ(rows.stats().hits, hits) << place << " round " << round;
    }
    EXPECT_GT(hits, 0u);
    rows.Clear(0);
    EXPECT_EQ(rows.held_bytes(), 0u);
    EXPECT_EQ(rows.tiles(0, 1), 0u);
  }
}

TEST(PlacedRows, NeighboursAreReadTogether) {
  const PlacedLayout l = Layout("disk:hot=0", KvType::kF16, 64, 64);  // 16 rows a block
  Ledger ledger(64 * kMiB);
  PlacedRows rows = Create(l, ledger);
  const RowPages pages(l, 1);
  ASSERT_TRUE(rows.Write(0, 0, 7, pages.bases.data()).ok());
  Choice c;
  c.rows.resize(kHeads * 64);
  for (uint32_t h = 0; h < kHeads; ++h) {
    for (uint32_t i = 0; i < 64; ++i) c.rows[h * 64 + i] = 64 + i;
  }
  c.chosen = {c.rows.data(), 64, 64};
  ASSERT_TRUE(rows.Fetch(0, 0, c.chosen).ok());
  EXPECT_EQ(rows.stats().reads, kHeads);
  EXPECT_EQ(rows.stats().bytes_read, kHeads * l.tile_bytes());
  ASSERT_TRUE(rows.Fetch(0, 0, c.chosen).ok());
  EXPECT_EQ(rows.stats().reads, kHeads);  // they were there
}

TEST(PlacedRows, ErrorsLoseNothing) {
  const PlacedLayout l = Layout("disk:hot=0", KvType::kF16, 64, 40);
  Ledger ledger(64 * kMiB);
  PlacedRows rows = Create(l, ledger);
  const RowPages pages(l, 1);
  ASSERT_TRUE(rows.Write(0, 0, 3, pages.bases.data()).ok());
  std::mt19937 rng(5);
  const Choice c = Choose(l, rng, 150, 40);
  {
    const testing::BrokenFile full(l.folder, "/dev/full");
    const Status status = rows.Write(0, 0, 5, pages.bases.data());
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::kIo);
    EXPECT_NE(status.error().message.find(l.folder), std::string::npos);
    EXPECT_EQ(rows.tiles(0, 0), 3u);
  }
  {
    const testing::BrokenFile ends(l.folder, "/dev/null");
    const auto packed = rows.Fetch(0, 0, c.chosen);
    ASSERT_FALSE(packed.ok());
    EXPECT_EQ(packed.error().code, Code::kIo);
  }
  const auto packed = rows.Fetch(0, 0, c.chosen);
  ASSERT_TRUE(packed.ok());
  ExpectRows(l, pages, c.chosen, *packed, 192);
  ASSERT_TRUE(rows.Write(0, 0, 5, pages.bases.data()).ok());
}

TEST(PlacedRows, FoldersAreChecked) {
  PlacedLayout l = Layout("disk", KvType::kF16, 64, 40);
  Ledger ledger(64 * kMiB);
  const auto refused = [&](Code code, const char* why) {
    const auto rows = PlacedRows::Create(l, ledger);
    ASSERT_FALSE(rows.ok()) << l.folder;
    EXPECT_EQ(rows.error().code, code) << l.folder;
    EXPECT_NE(rows.error().message.find(why), std::string::npos) << rows.error().message;
    EXPECT_NE(rows.error().next.find("--kv-folder"), std::string::npos);
  };
  const std::string own = testing::TempDir();
  l.folder = own + "/none";
  refused(Code::kUsage, "No such file");
  l.folder = testing::SourcePath("README.md");
  refused(Code::kUsage, "is no folder");
  if (testing::Exists("/dev/shm")) {
    l.folder = "/dev/shm";
    refused(Code::kUsage, "lies in memory");
  }
  EXPECT_EQ(ScratchFile::CheckRoom(std::string(kPlaceFolder), uint64_t{1} << 60).error().code,
            Code::kIo);
  EXPECT_EQ(ledger.snapshot().total, 0u);
  // Of what is made no name is left.
  const auto file = ScratchFile::Create(std::string(kPlaceFolder), 1 << 20);
  ASSERT_TRUE(file.ok());
  for (const auto& entry : std::filesystem::directory_iterator(kPlaceFolder))
    EXPECT_EQ(entry.path().filename().string().rfind("snug-", 0), std::string::npos);
}

TEST(Place, SpecsAreParsed) {
  EXPECT_EQ(*ParsePlace("memory"), nullptr);
  const auto disk = *ParsePlace("disk:hot=1/4,readers=2");
  EXPECT_EQ(disk->HotRows(10, 1000), 250u);
  EXPECT_EQ(disk->HotRows(300, 1000), 300u);
  EXPECT_EQ(disk->readers(), 2u);
  EXPECT_EQ((*ParsePlace("disk:hot=70"))->HotRows(10, 1000), 70u);
  for (const char* wrong :
       {"dsk", "disk:hot=-1", "disk:readers=0", "memory:hot=1", "disk:path=/"}) {
    const auto place = ParsePlace(wrong);
    ASSERT_FALSE(place.ok()) << wrong;
    EXPECT_EQ(place.error().code, Code::kUsage);
    EXPECT_NE(place.error().message.find("--kv-place"), std::string::npos);
  }
}

}  // namespace
}  // namespace snug
