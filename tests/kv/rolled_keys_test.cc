// Positions that roll over a cache of one layer: attention is the softmax, in double, over the rows
// that stay with keys and query rotated for their places among them, however long the text.
#include "kv/rolled_keys.h"

#include "keep_testing.h"

namespace snug {
namespace {

using keep_testing::kContext;
using keep_testing::kDim;
using keep_testing::kHeads;
using keep_testing::kKvHeads;
using keep_testing::Rotated;
using keep_testing::Sequence;

constexpr uint32_t kTokens = 3 * kContext;

KeyRotation Rotation(bool interleaved, uint32_t dim = kDim) {
  KeyRotation r;
  r.dim = dim;
  r.interleaved = interleaved;
  for (uint32_t i = 0; i < dim / 2; ++i) {
    r.frequencies.push_back(static_cast<float>(std::pow(100.0, -2.0 * i / dim)));
  }
  return r;
}

// What token `t`'s query gives over the tokens of `rows`, ascending, and its own, whose places are
// 0, 1, 2, ...
std::vector<double> ByPlace(const Sequence& s, const KeyRotation& rotation, uint32_t t,
                            uint32_t head, std::vector<uint32_t> rows) {
  rows.push_back(t);
  const uint32_t kv = head / (kHeads / kKvHeads);
  const auto q = Rotated(rotation, s.query(t, head), static_cast<double>(rows.size() - 1));
  std::vector<double> w, out(kDim);
  double max = -1e300, sum = 0;
  for (size_t place = 0; place < rows.size(); ++place) {
    const auto k = Rotated(rotation, s.key(rows[place], kv), static_cast<double>(place));
    double dot = 0;
    for (uint32_t d = 0; d < kDim; ++d) dot += q[d] * k[d];
    w.push_back(dot / std::sqrt(kDim));
    max = std::max(max, w.back());
  }
  for (double& x : w) sum += x = std::exp(x - max);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (uint32_t d = 0; d < kDim; ++d) out[d] += w[i] / sum * s.value(rows[i], kv)[d];
  }
  return out;
}

void ExpectByPlace(const Sequence& s, const KeyRotation& rotation, uint32_t t,
                   const std::vector<std::vector<uint32_t>>& kept, const std::vector<float>& out,
                   double tolerance) {
  for (uint32_t head = 0; head < kHeads; ++head) {
    const auto want = ByPlace(s, rotation, t, head, kept[head / (kHeads / kKvHeads)]);
    for (uint32_t d = 0; d < kDim; ++d) {
      ASSERT_NEAR(out[head * kDim + d], want[d], tolerance) << "token " << t << " head " << head;
    }
  }
}

constexpr const char* kSpecs[] = {"h2o:budget=70",
                                  "keyformer:budget=70",
                                  "random:budget=70",
                                  "sink-window:budget=70",
                                  "snapkv:budget=70,answer=10",
                                  "tova:budget=70",
                                  "windowkv:budget=70,window=2,group=1,beta=1,suffix=16,answer=9"};

TEST(RolledKeys, RowsAreAttendedToByTheirPlaces) {
  for (const char* spec : kSpecs) {
    for (const auto& [rotation, type, tolerance] :
         {std::tuple(Rotation(false), KvType::kF32, 2e-5),
          std::tuple(Rotation(true, 24), KvType::kF32, 2e-5),
          std::tuple(Rotation(false, 24), KvType::kF16, 4e-3)}) {
      Sequence s(spec, type, rotation, kTokens);
      s.Prompt(200, 64);
      for (uint32_t t = 200; t < kTokens; ++t) {
        const std::vector<std::vector<uint32_t>> kept = {s.Kept(0), s.Kept(1)};
        ASSERT_LE(kept[0].size(), 80u);
        SCOPED_TRACE(spec);
        ExpectByPlace(s, rotation, t, kept, s.Token(), tolerance);
      }
    }
  }
}

// Whatever the length of the text, a key is its token's, rounded twice.
TEST(RolledKeys, RoundingDoesNotAddUp) {
  for (const auto& [type, tolerance] :
       {std::pair(KvType::kBF16, 0.03), std::pair(KvType::kF16, 0.004),
        std::pair(KvType::kQ8_0, 0.06)}) {
    const KeyRotation rotation = Rotation(false);
    Sequence s("sink-window:budget=40,sinks=3", type, rotation, kTokens);
    s.Prompt(100, 64);
    while (s.cache().length(0) < kTokens) s.Token();
    std::vector<float> got(kDim);
    const auto positions = s.cache().positions(0, 0, 1);
    uint32_t sinks = 0;
    for (uint32_t r = 0; r < positions.size(); ++r) {
      if (positions[r] >= 3) continue;
      ++sinks;
      const uint8_t* page = s.cache().tiles(0, 0)[s.cache().table_stride()];
      LoadKey(type, page, kDim, r, got.data());
      const auto want = Rotated(rotation, s.key(positions[r], 1), kTokens - 40.0 + positions[r]);
      for (uint32_t d = 0; d < kDim; ++d) ASSERT_NEAR(got[d], want[d], tolerance) << d;
    }
    EXPECT_EQ(sinks, 3u);
  }
}

// A second prompt's queries see the rows at their places, and what it drops moves them on.
TEST(RolledKeys, PromptsFollowAnswers) {
  const KeyRotation rotation = Rotation(true);
  for (const char* spec : kSpecs) {
    Sequence s(spec, KvType::kF32, rotation, kTokens);
    s.Prompt(150, 64);
    for (int i = 0; i < 200; ++i) s.Token();
    for (uint32_t begin = 350; begin < kTokens - 250; begin += 240) {
      std::vector<std::vector<uint32_t>> kept = {s.Kept(0), s.Kept(1)};
      const auto out = s.Prompt(200, 30);
      for (uint32_t t = begin; t < begin + 200; ++t) {
        SCOPED_TRACE(spec);
        ExpectByPlace(s, rotation, t, kept,
                      {out.begin() + (t - begin) * kHeads * kDim,
                       out.begin() + (t + 1 - begin) * kHeads * kDim},
                      2e-5);
        for (auto& rows : kept) rows.push_back(t);
      }
      for (uint32_t t = begin + 200; t < begin + 240; ++t) {
        kept = {s.Kept(0), s.Kept(1)};
        SCOPED_TRACE(spec);
        ExpectByPlace(s, rotation, t, kept, s.Token(), 2e-5);
      }
    }
    s.cache().Clear(0);
    EXPECT_EQ(s.cache().held_bytes(), 0u);
  }
}

TEST(RolledKeys, OnlyRowsThatMoveAreKeptTwice) {
  KvLayout l = keep_testing::Layout("sink-window:budget=70,sinks=5", KvType::kF16);
  l.rolling = Rotation(false);
  EXPECT_EQ(l.rolled().slots, std::vector<uint32_t>{5});
  l = keep_testing::Layout("h2o:budget=70", KvType::kF16);
  l.rolling = Rotation(false);
  EXPECT_EQ(l.rolled().slots, std::vector<uint32_t>{71});
  l.rolling->none = {true};
  EXPECT_EQ(l.rolled().slots, std::vector<uint32_t>{0});
  EXPECT_EQ(l.rolled().bytes(), 0u);
  // Held bytes grow with the rows that moved, and no further.
  Sequence s("sink-window:budget=70,sinks=5", KvType::kF16, Rotation(false), kTokens);
  s.Prompt(100, 64);
  const uint64_t held = s.cache().held_bytes();
  for (int i = 0; i < 600; ++i) s.Token();
  EXPECT_EQ(s.cache().held_bytes(), held);
}

}  // namespace
}  // namespace snug
