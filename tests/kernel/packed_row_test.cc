// Rows apart from tiles: there and back without a bit changed.
#include "kernel/packed_row.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

namespace snug {
namespace {

constexpr std::pair<size_t, size_t> kMoves[] = {{0, 63}, {17, 16}, {62, 31}, {5, 6}};
constexpr KvType kTypes[] = {KvType::kF32,    KvType::kF16,  KvType::kBF16,
                             KvType::kF8E4M3, KvType::kQ8_0, KvType::kQ4_0};

TEST(PackedRow, MovesAsTheTilesCopiesDo) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  for (const KvType type : kTypes) {
    for (const size_t dim : {10, 32, 80, 96, 128}) {
      if (!KvTypeSupports(type, dim)) continue;
      const size_t bytes = KvTileBytes(type, dim);
      std::vector<uint8_t> tile(bytes), rows(bytes), want(bytes), got(bytes);
      std::vector<float> v(dim);
      for (size_t slot = 0; slot < kTileTokens; ++slot) {
        for (float& x : v) x = normal(rng);
        StoreKey(type, v.data(), dim, slot, tile.data());
        StoreValue(type, v.data(), dim, slot, rows.data());
      }
      // Odd addresses, too.
      std::vector<uint8_t> room(2 * PackedBytes(type, dim) + 1), other(room.size());
      uint8_t *packed = room.data() + 1, *second = other.data() + 1;
      const auto expect_same = [&](const char* what) {
        EXPECT_EQ(got, want) << KvTypeName(type) << " " << dim << " " << what;
        want.assign(bytes, 0);
        got.assign(bytes, 0);
      };
      want.assign(bytes, 0);
      got.assign(bytes, 0);
      for (const auto& [from, to] : kMoves) {
        CopyKey(type, tile.data(), from, dim, want.data(), to);
        PackKey(type, tile.data(), dim, from, false, packed);
        UnpackKey(type, packed, dim, to, false, got.data());
        expect_same("key");
        CopyRowAsKey(type, rows.data(), from, dim, want.data(), to);
        PackKey(type, rows.data(), dim, from, true, packed);
        UnpackKey(type, packed, dim, to, false, got.data());
        expect_same("key of a tile by rows");
        CopyValue(type, rows.data(), from, dim, want.data(), to);
        PackValue(type, rows.data(), dim, from, packed);
        UnpackValue(type, packed, dim, to, got.data());
        expect_same("value");
        CopyValue(type, rows.data(), from, dim, want.data(), to);
        UnpackKey(type, packed, dim, to, true, got.data());
        expect_same("key to a tile by rows");
        if (type != KvType::kF16 && type != KvType::kBF16) continue;
        const size_t even = to & ~size_t{1};
        CopyValue(type, rows.data(), from, dim, want.data(), even);
        CopyValue(type, rows.data(), to, dim, want.data(), even + 1);
        PackValue(type, rows.data(), dim, to, second);
        UnpackValues(packed, second, dim, even, got.data());
        expect_same("two values");
      }
    }
  }
}

TEST(PackedRow, TakesTheBytesOfItsElements) {
  EXPECT_EQ(PackedBytes(KvType::kF32, 10), 40u);
  EXPECT_EQ(PackedBytes(KvType::kF16, 128), 256u);
  EXPECT_EQ(PackedBytes(KvType::kQ8_0, 128), 128u + 8);
  EXPECT_EQ(PackedBytes(KvType::kQ4_0, 64), 32u + 4);
}

}  // namespace
}  // namespace snug
