// The thread that codes tiles beside the steps: what was begun is coded after Finish, in time or
// not, and nothing else ever; what is let go is not touched any more.
#include "kv/encoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>

namespace snug {
namespace {

constexpr uint32_t kSequences = 3, kLayers = 2, kHeads = 2, kTiles = 6;
constexpr size_t kExact = 256, kCoded = 64;  // bytes of a head's tiles

// A tile's code is its first bytes, each plus its head and tile.
class Adds final : public TileCodec {
 public:
  size_t key_tile_bytes() const override { return kCoded; }
  size_t value_tile_bytes() const override { return kCoded; }
  size_t key_group() const override { return kTileTokens; }
  size_t value_group() const override { return kTileTokens; }
  void EncodeKeys(KvType /*type*/, const uint8_t* from, TileAt at, size_t slot, size_t n,
                  uint8_t* to) const override {
    EXPECT_EQ(slot, 0u);
    EXPECT_EQ(n, kTileTokens);
    for (size_t i = 0; i < kCoded; ++i) {
      to[i] = static_cast<uint8_t>(from[i] + 16 * at.head + at.tile);
    }
  }
  void EncodeValues(KvType /*type*/, const uint8_t* from, size_t /*slot*/, size_t /*n*/,
                    uint8_t* to) const override {
    for (size_t i = 0; i < kCoded; ++i) to[i] = static_cast<uint8_t>(~from[i]);
  }
  void LoadKey(const uint8_t* /*tile*/, TileAt /*at*/, size_t /*slot*/,
               float* /*k*/) const override {}
  void LoadValue(const uint8_t* /*tile*/, size_t /*slot*/, float* /*v*/) const override {}
  void Walk(const AttentionArgs& /*args*/, const Block& /*block*/, TileAt /*first*/,
            uint32_t /*last*/, TileAt /*next*/, float* /*decoded*/) const override {}
};

struct Sequences {
  explicit Sequences(uint32_t microseconds) {
    for (uint32_t i = 0; i < kSequences * kLayers; ++i) {
      exact.emplace_back(kTiles * 2 * kHeads * kExact);
      coded.emplace_back(kTiles * 2 * kHeads * kCoded);
      for (uint8_t& byte : exact.back()) byte = static_cast<uint8_t>(rng());
    }
    for (uint32_t i = 0; i < kSequences * kLayers; ++i) {
      for (uint32_t t = 0; t < kTiles; ++t) {
        exact_table[i].push_back(exact[i].data() + t * 2 * kHeads * kExact);
        coded_table[i].push_back(coded[i].data() + t * 2 * kHeads * kCoded);
      }
    }
    std::vector<TileEncoder::Layer> layers;
    for (uint32_t i = 0; i < kSequences * kLayers; ++i) {
      layers.push_back({&codec, exact_table[i].data(), coded_table[i].data()});
    }
    const auto delay = [this, microseconds] {
      const uint64_t x = (1 + delays++) * 6364136223846793005u >> 33;
      std::this_thread::sleep_for(std::chrono::microseconds(x % (microseconds + 1)));
    };
    encoder = std::make_unique<TileEncoder>(
        TileEncoder::Options{kSequences, kLayers, kHeads, KvType::kF16, kExact, kExact, delay},
        std::move(layers));
  }
  // Whether a tile of all layers of a sequence is coded, and whether none of it is.
  bool Coded(uint32_t sequence, uint32_t tile) const {
    bool all = true;
    for (uint32_t l = 0; l < kLayers; ++l) {
      const uint8_t* from = exact_table[sequence * kLayers + l][tile];
      const uint8_t* to = coded_table[sequence * kLayers + l][tile];
      for (uint32_t h = 0; h < kHeads; ++h) {
        for (size_t i = 0; i < kCoded; ++i) {
          all = all &&
                to[h * kCoded + i] == static_cast<uint8_t>(from[h * kExact + i] + 16 * h + tile);
          all = all && to[(kHeads + h) * kCoded + i] ==
                           static_cast<uint8_t>(~from[(kHeads + h) * kExact + i]);
        }
      }
    }
    return all;
  }
  bool Untouched(uint32_t sequence, uint32_t tile) const {
    for (uint32_t l = 0; l < kLayers; ++l) {
      const uint8_t* to = coded_table[sequence * kLayers + l][tile];
      if (std::any_of(to, to + 2 * kHeads * kCoded, [](uint8_t b) { return b != 0; })) return false;
    }
    return true;
  }
  void Wipe(uint32_t sequence) {
    for (uint32_t l = 0; l < kLayers; ++l) {
      std::fill(coded[sequence * kLayers + l].begin(), coded[sequence * kLayers + l].end(), 0);
    }
  }

  std::mt19937 rng{5};
  Adds codec;
  std::vector<std::vector<uint8_t>> exact, coded;  // [sequences, layers]
  std::vector<uint8_t*> exact_table[kSequences * kLayers], coded_table[kSequences * kLayers];
  std::atomic<uint64_t> delays{0};
  std::unique_ptr<TileEncoder> encoder;  // ends first
};

TEST(TileEncoder, WhatWasBegunIsCodedWhenItIsFinishedAndNothingElse) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const uint32_t delay : {0u, 50u, 3000u}) {
      Sequences s(delay);
      TileEncoder& encoder = *s.encoder;
      for (uint32_t end = 1; end <= kTiles; ++end) {
        for (uint32_t q = 0; q < kSequences; ++q) {
          EXPECT_EQ(encoder.begun(q), end - 1);
          encoder.Begin(q, end - 1, end);
        }
        // The first sequence is waited for at once, the second later, the last at the end.
        encoder.Finish(0, end, pool);
        EXPECT_TRUE(s.Coded(0, end - 1)) << end;
        if (end > 2) {
          encoder.Finish(1, end - 2, pool);
          EXPECT_TRUE(s.Coded(1, end - 3)) << end;
        }
        if (end < kTiles) {
          EXPECT_TRUE(s.Untouched(0, end)) << end;
        }
      }
      for (uint32_t q = 0; q < kSequences; ++q) {
        encoder.Finish(q, kTiles, pool);
        for (uint32_t t = 0; t < kTiles; ++t) EXPECT_TRUE(s.Coded(q, t)) << q << " " << t;
      }
    }
  }
}

TEST(TileEncoder, WhatIsLetGoIsNotTouched) {
  ThreadPool pool(1);
  Sequences s(500);
  TileEncoder& encoder = *s.encoder;
  for (uint32_t round = 0; round < 20; ++round) {
    const uint32_t q = round % kSequences, other = (q + 1) % kSequences;
    for (const uint32_t sequence : {q, other}) {
      encoder.Discard(sequence);
      s.Wipe(sequence);
    }
    encoder.Begin(q, 0, kTiles);
    encoder.Begin(other, 2, 4);  // as where others coded what lies before
    std::this_thread::sleep_for(std::chrono::microseconds(200 * (round % 4)));
    encoder.Discard(q);
    EXPECT_EQ(encoder.begun(q), 0u);
    s.Wipe(q);
    encoder.Finish(other, 4, pool);
    for (uint32_t t = 0; t < kTiles; ++t) {
      EXPECT_TRUE(s.Untouched(q, t)) << round;
      EXPECT_TRUE(t == 2 || t == 3 ? s.Coded(other, t) : s.Untouched(other, t)) << round << t;
    }
  }
  // It ends with work left.
  encoder.Begin(0, encoder.begun(0), kTiles);
  EXPECT_GT(s.delays, 0u);
}

}  // namespace
}  // namespace snug
