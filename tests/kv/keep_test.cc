// Keep methods over a cache of one layer: what the kernel sees is the softmax over the rows that
// the method's rule leaves, worked out in double from the keys and values as they came.
#include "kv/keep/keep.h"

#include "keep_testing.h"
#include "kernel/targets.h"

namespace snug {
namespace {

using keep_testing::kContext;
using keep_testing::kDim;
using keep_testing::kHeads;
using keep_testing::kKvHeads;
using keep_testing::Rule;
using keep_testing::Sequence;
using keep_testing::UpTo;

TEST(Keep, H2oIsItsRuleOnEveryTarget) {
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    Sequence s("h2o:budget=80,recent=30", KvType::kF32);
    const auto prompt = s.Prompt(200, 64);
    std::vector<Rule> rules{{0, {}, {}}, {1, {}, {}}};
    for (uint32_t t = 0; t < 200; ++t) {
      for (Rule& r : rules) r.Attend(s, t, true, prompt.data() + t * kHeads * kDim);
    }
    for (uint32_t t = 200;; ++t) {
      for (Rule& r : rules) {
        r.Shrink(80, t - 30, [&](uint32_t p) { return r.sums[p]; });
        ASSERT_EQ(s.Kept(r.head), r.rows) << t;
      }
      s.ExpectRowsAreTheirTokens();
      if (t == 300) break;
      const auto out = s.Token();
      for (Rule& r : rules) r.Attend(s, t, true, out.data());
    }
    EXPECT_NE(s.Kept(0), s.Kept(1));
  }
  UseTarget(0);
}

TEST(Keep, TovaIsItsRule) {
  Sequence s("tova:budget=50", KvType::kF32);
  s.Prompt(130, 40);
  std::vector<Rule> rules{{0, UpTo(129), {}}, {1, UpTo(129), {}}};
  for (Rule& r : rules) r.Attend(s, 129, false, nullptr);
  for (uint32_t t = 130;; ++t) {
    // The sums of both heads are needed while either drops rows.
    const auto a = rules[0].sums, b = rules[1].sums;
    for (Rule& r : rules) {
      r.Shrink(50, t - 1, [&](uint32_t p) { return a.at(p) + b.at(p); });
      ASSERT_EQ(s.Kept(r.head), r.rows) << t;
    }
    if (t == 200) break;
    const auto out = s.Token();
    for (Rule& r : rules) r.Attend(s, t, false, out.data());
  }
}

TEST(Keep, SnapKvIsItsRule) {
  Sequence s("snapkv:budget=60,window=16,pool=5,answer=20", KvType::kF32);
  s.Prompt(200, 33);
  for (uint32_t head = 0; head < kKvHeads; ++head) {
    Rule r{head, UpTo(184), {}};
    for (uint32_t t = 184; t < 200; ++t) r.Attend(s, t, true, nullptr);
    const auto score = [&](uint32_t p) {
      double sum = 0;
      for (uint32_t i = p - std::min(p, 2u); i <= p + 2 && i < 184; ++i) sum += r.sums.at(i);
      return sum;
    };
    // Scores are means over neighbours: none may be forgotten before all are judged.
    std::map<uint32_t, double> scores;
    for (uint32_t p = 0; p < 184; ++p) scores[p] = score(p);
    r.Shrink(60, 184, [&](uint32_t p) { return scores.at(p); });
    EXPECT_EQ(s.Kept(head), r.rows);
  }
  auto prompt = s.Kept(0);
  for (uint32_t t = 200; t < 250; ++t) s.Token();
  // All that stayed of the prompt, and the last 20 of the answer.
  for (uint32_t t = 230; t < 250; ++t) prompt.push_back(t);
  EXPECT_EQ(s.Kept(0), prompt);
  s.ExpectRowsAreTheirTokens();
}

TEST(Keep, SinkWindowKeepsTheFirstAndTheLast) {
  Sequence s("sink-window:budget=40,sinks=3", KvType::kF16);
  s.Prompt(100, 64);
  for (uint32_t t = 100; t < 180; ++t) {
    std::vector<uint32_t> expected{0, 1, 2};
    for (uint32_t p = t - 37; p < t; ++p) expected.push_back(p);
    for (uint32_t h = 0; h < kKvHeads; ++h) ASSERT_EQ(s.Kept(h), expected);
    s.Token();
  }
  s.ExpectRowsAreTheirTokens();
}

TEST(Keep, RandomIsASampleThatTheSeedDecides) {
  const auto kept = [](const std::string& spec) {
    Sequence s(spec, KvType::kF16);
    s.Prompt(200, 64);
    for (int i = 0; i < 10; ++i) s.Token();
    return s.Kept(0);
  };
  const auto one = kept("random:budget=60,sinks=4,recent=20,seed=1");
  EXPECT_EQ(one.size(), 60u);
  EXPECT_EQ(one[3], 3u);
  EXPECT_EQ(one[40], 190u);
  EXPECT_EQ(kept("random:budget=60,sinks=4,recent=20,seed=1"), one);
  EXPECT_NE(kept("random:budget=60,sinks=4,recent=20,seed=2"), one);
}

// Without noise and at an even temperature of 1, Keyformer is H2O with its own share of recent
// tokens.
TEST(Keep, KeyformerWithoutNoiseIsH2o) {
  Sequence h2o("h2o:budget=80,recent=24", KvType::kF32);
  Sequence keyformer("keyformer:budget=80,recent=0.3,noise=0,first=1,last=1", KvType::kF32);
  h2o.Prompt(200, 64);
  keyformer.Prompt(200, 64);
  for (int i = 0; i < 80; ++i) {
    for (uint32_t h = 0; h < kKvHeads; ++h) ASSERT_EQ(keyformer.Kept(h), h2o.Kept(h)) << i;
    EXPECT_EQ(h2o.Token(), keyformer.Token());
  }
}

TEST(Keep, KeyformersNoiseIsTheSeeds) {
  const auto kept = [](const std::string& spec) {
    Sequence s(spec, KvType::kF32);
    s.Prompt(200, 64);
    for (int i = 0; i < 30; ++i) s.Token();
    return s.Kept(0);
  };
  const auto one = kept("keyformer:budget=80,seed=1");
  EXPECT_EQ(one.size(), 80u);
  EXPECT_EQ(kept("keyformer:budget=80,seed=1"), one);
  EXPECT_NE(kept("keyformer:budget=80,seed=2"), one);
  EXPECT_NE(kept("keyformer:budget=80,noise=0"), one);
}

constexpr const char* kSpecs[] = {"h2o:budget=70",
                                  "keyformer:budget=70",
                                  "random:budget=70",
                                  "sink-window:budget=70",
                                  "snapkv:budget=70,answer=10",
                                  "tova:budget=70",
                                  "windowkv:budget=70,window=2,group=1,beta=1,suffix=16,answer=9",
                                  "chelsea:budget=70,chunk=16,sinks=2,recent=10,slack=8"};

TEST(Keep, ChunksDoNotChangeWhatStaysNorItsBytes) {
  for (const char* spec : kSpecs) {
    for (const KvType type : {KvType::kF16, KvType::kQ8_0, KvType::kQ4_0}) {
      std::vector<std::vector<uint32_t>> kept;
      std::vector<float> last;
      uint64_t held = 0;
      for (const uint32_t chunk : {64u, 1u, 7u, 50u}) {
        Sequence s(spec, type);
        s.Prompt(210, chunk);
        std::vector<float> out;
        for (int i = 0; i < 20; ++i) out = s.Token();
        s.ExpectRowsAreTheirTokens();
        if (chunk == 64) {
          kept = {s.Kept(0), s.Kept(1)};
          held = s.cache().held_bytes();
          last = out;
        }
        EXPECT_EQ(s.Kept(0), kept[0]) << spec << " " << chunk;
        EXPECT_EQ(s.Kept(1), kept[1]) << spec << " " << chunk;
        EXPECT_EQ(s.cache().held_bytes(), held) << spec << " " << chunk;
        EXPECT_EQ(out, last) << spec << " " << chunk;
      }
    }
  }
}

// A prompt fills the context, its rows are dropped, and the next one finds the pages again, in a
// pool that has no more than one layer's beside those that stay.
TEST(Keep, PagesGoBackAtOnce) {
  for (const char* spec : kSpecs) {
    Sequence s(spec, KvType::kF16);
    for (int round = 0; round < 3; ++round) {
      s.Prompt(kContext - 12, 64);
      const uint64_t tiles = (s.cache().rows(0, 0) + kTileTokens - 1) / kTileTokens;
      EXPECT_EQ(s.cache().rows(0, 0), 70u) << spec;
      const uint64_t rows = kKvHeads * 70 * s.cache().layout().kept().row_bytes();
      EXPECT_EQ(s.cache().held_bytes(), kKvHeads * tiles * s.cache().layout().page_bytes() + rows);
      for (int i = 0; i < 12; ++i) s.Token();
      EXPECT_LE(s.cache().rows(0, 0), 80u) << spec;
      s.cache().Clear(0);
      EXPECT_EQ(s.cache().held_bytes(), 0u);
    }
  }
}

// What comes after an answer may be a prompt again.
TEST(Keep, PromptsFollowAnswers) {
  for (const char* spec : kSpecs) {
    Sequence s(spec, KvType::kF16);
    s.Prompt(150, 64);
    for (int i = 0; i < 20; ++i) s.Token();
    s.Prompt(100, 30);
    EXPECT_EQ(s.cache().rows(0, 0), 70u);
    EXPECT_EQ(s.cache().length(0), 270u);
    EXPECT_EQ(s.Kept(1).back(), 269u);
    for (int i = 0; i < 20; ++i) s.Token();
    s.ExpectRowsAreTheirTokens();
  }
}

TEST(Keep, SmallBudgetsStillKeepTheNewest) {
  for (const char* spec : {"h2o:budget=2,recent=0", "tova:budget=1.5", "snapkv:budget=3,answer=1",
                           "sink-window:budget=2", "random:budget=2"}) {
    Sequence s(spec, KvType::kF16);
    s.Prompt(20, 64);
    for (uint32_t t = 20; t < 40; ++t) {
      s.Token();
      EXPECT_EQ(s.Kept(0).back(), t) << spec;
    }
  }
}

}  // namespace
}  // namespace snug
