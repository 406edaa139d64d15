// The cache type f8_e4m3 against its definition: all codes, and what values are stored as.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernel/attention.h"
#include "kernel/kv_layout.h"
#include "kernel/targets.h"

namespace snug {
namespace {

constexpr KvType kType = KvType::kF8E4M3;

bool IsNan(int code) { return (code & 0x7f) == 0x7f; }
double Value(int code) {
  const int exponent = code / 8 % 16, mantissa = code % 8;
  const double magnitude = exponent == 0 ? mantissa / 8.0 * std::exp2(-6)
                                         : (1 + mantissa / 8.0) * std::exp2(exponent - 7);
  return code >= 128 ? -magnitude : magnitude;
}

// The code of the nearest value, of two as near ones that with an even mantissa.
int Nearest(double v) {
  int best = 0;
  for (int code = 0; code < 127; ++code) {
    const double d = std::abs(std::abs(v) - Value(code)) - std::abs(std::abs(v) - Value(best));
    if (d < 0 || (d == 0 && code % 2 == 0)) best = code;
  }
  return best + (std::signbit(v) ? 128 : 0);
}

int Stored(float v) {
  std::vector<uint8_t> tile(KvTileBytes(kType, 2));
  const float row[2] = {v, 0};
  StoreValue(kType, row, 2, 9, tile.data());
  return tile[ValueIndex(0, 9)];
}

TEST(Float8, ValuesAreStoredAsTheNearestCode) {
  for (int code = 0; code < 256; ++code) {
    if (!IsNan(code)) {
      EXPECT_EQ(Stored(static_cast<float>(Value(code))), code);
    }
  }
  for (int code = 0; code < 126; ++code) {  // halfway, and a little off
    const auto middle = static_cast<float>((Value(code) + Value(code + 1)) / 2);
    for (const float v : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 500.0f)}) {
      EXPECT_EQ(Stored(v), Nearest(v)) << v;
      EXPECT_EQ(Stored(-v), Nearest(-v)) << v;
    }
  }
  std::mt19937 rng(4);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 5000; ++i) {
    const float v = normal(rng) * std::exp2(3 * normal(rng));
    EXPECT_EQ(Stored(v), Nearest(v)) << v;
  }
  for (const float v : {449.0f, 464.0f, 465.0f, 1e30f, INFINITY}) {
    EXPECT_EQ(Stored(v), 0x7e) << v;
    EXPECT_EQ(Stored(-v), 0xfe) << v;
  }
  EXPECT_EQ(Stored(NAN), 0);
  EXPECT_EQ(Stored(std::numeric_limits<float>::denorm_min()), 0);
}

// One token of which each channel has a code: attention to it gives its values, whether they are
// decoded while multiplying (few rows) or before (many), on every target.
TEST(Float8, EveryCodeIsDecodedExactly) {
  constexpr uint32_t kDim = 256;
  std::vector<uint8_t> buffer(2 * KvTileBytes(kType, kDim) + 64);
  uint8_t* keys = buffer.data() + (64 - reinterpret_cast<uintptr_t>(buffer.data()) % 64) % 64;
  uint8_t* values = keys + KvTileBytes(kType, kDim);
  for (uint32_t d = 0; d < kDim; ++d) {
    const auto code = static_cast<uint8_t>(IsNan(static_cast<int>(d)) ? 0 : d);
    keys[KeyIndex(d, 0, kDim)] = values[ValueIndex(d, 0)] = code;
  }
  std::vector<float> row(kDim);
  for (const auto load : {LoadKey, LoadValue}) {
    load(kType, load == LoadKey ? keys : values, kDim, 0, row.data());
    for (int d = 0; d < 256; ++d) EXPECT_EQ(row[d], IsNan(d) ? 0 : Value(d)) << d;
  }
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const uint32_t heads : {1u, 14u}) {
      std::vector<float> q(heads * kDim, 0.01f), out(heads * kDim);
      const uint8_t* tiles[] = {keys};
      AttentionArgs a;
      a.key_type = a.value_type = kType;
      a.heads = heads;
      a.kv_heads = 1;
      a.head_dim = kDim;
      a.scale = 1;
      a.q = q.data();
      a.q_stride = a.out_stride = q.size();
      a.tokens = 1;
      a.tiles = tiles;
      a.out = out.data();
      std::vector<uint8_t> scratch(AttentionScratchBytes(kDim, heads) + 64);
      uint8_t* room = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
      std::vector<float> partial(PartialFloats(1, heads, kDim, 64));
      for (const bool exact : {false, true}) {
        a.exact = exact;
        const AttentionPlan plan = PlanAttention(a, 1);
        for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, room, partial.data());
        for (uint32_t h = 0; h < heads; ++h) {
          if (plan.split) CombinePartials(a, plan, partial.data(), 0, h);
          for (int d = 0; d < 256; ++d) {
            ASSERT_EQ(out[h * kDim + static_cast<uint32_t>(d)], IsNan(d) ? 0 : Value(d)) << d;
          }
        }
      }
    }
  }
  UseTarget(0);
}

TEST(Float8, IsNamedAndTakesAnyHead) {
  EXPECT_EQ(KvTypeName(kType), "f8_e4m3");
  for (const char* name : {"f8_e4m3", "fp8", "fp8_e4m3"}) EXPECT_EQ(ParseKvType(name), kType);
  EXPECT_TRUE(KvTypeSupports(kType, 80));
  EXPECT_EQ(KvTileBytes(kType, 80), 80u * kTileTokens);
}

}  // namespace
}  // namespace snug
