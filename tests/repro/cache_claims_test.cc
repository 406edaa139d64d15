// Claims about caches: how figures are judged, that what is known is not run again, what reports
// say. Models are tiny, so what is measured says nothing of the methods.
#include "repro/cache_claims.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "kv/codec/codec.h"
#include "kv/keep/keep.h"
#include "kv/read/read.h"
#include "testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

constexpr CacheSetting kA{{}, "sink-window:budget=64", {}}, kB{{}, "random:budget=64", {}};

EvaluationRecord Record(double kl, uint64_t bytes) {
  EvaluationRecord r;
  r.tokens = 10;
  r.nll = 1;
  r.kl_mean = kl;
  r.top1 = 0.5;
  r.kv_held = bytes;
  return r;
}

// Five texts with these divergences.
CacheFigures Figures(std::vector<double> kl, uint64_t bytes) {
  CacheFigures f;
  for (const double k : kl) f.texts.push_back(Record(k, bytes));
  return f;
}

ReproReport Judged(const CacheClaim& claim, const CacheFigureMap& figures) {
  const Repro repro{"made-up", "nobody", nullptr, {&claim, 1}, {}};
  return JudgeCaches(repro, figures, {});
}

TEST(CacheClaims, AreCloserOnFourTextsOfFive) {
  const CacheClaim claim{"closer", kA, CacheRule::kCloserThanOthers, 0, {kB}, 1};
  CacheFigureMap figures{{"dense", Figures({0, 0, 0, 0, 0}, 100)},
                         {kA.Name(), Figures({.1, .2, .1, .1, .9}, 20)},
                         {kB.Name(), Figures({.2, .3, .2, .2, .2}, 20)}};
  EXPECT_EQ(Judged(claim, figures).rows[0].verdict, Verdict::kHolds);
  figures[kA.Name()].texts[0].kl_mean = .25;
  const ReproReport report = Judged(claim, figures);
  EXPECT_EQ(report.rows[0].verdict, Verdict::kDiffers);
  EXPECT_NE(report.rows[0].measured.find("closer on 3 of 5 texts"), std::string::npos)
      << report.rows[0].measured;
  // As close is not closer.
  figures[kA.Name()] = figures[kB.Name()];
  EXPECT_EQ(Judged(claim, figures).rows[0].verdict, Verdict::kDiffers);
}

TEST(CacheClaims, BoundsHoldForMeansOverTexts) {
  CacheFigureMap figures{{"dense", Figures({0, 0}, 1000)}, {kA.Name(), Figures({.1, .3}, 200)}};
  const auto verdict = [&](CacheRule rule, double bound) {
    return Judged({"a bound", kA, rule, bound, {}, 0}, figures).rows[0].verdict;
  };
  EXPECT_EQ(verdict(CacheRule::kKlAtMost, .21), Verdict::kHolds);
  EXPECT_EQ(verdict(CacheRule::kKlAtMost, .19), Verdict::kDiffers);
  EXPECT_EQ(verdict(CacheRule::kBytesAtMost, .2), Verdict::kHolds);
  EXPECT_EQ(verdict(CacheRule::kBytesAtMost, .19), Verdict::kDiffers);
}

TEST(CacheClaims, WhatIsRefusedIsNotShownWithTheReason) {
  CacheFigureMap figures{{"dense", Figures({0}, 1000)}, {kA.Name(), {}}};
  figures[kA.Name()].refused = "not with this model";
  const ReproReport report = Judged({"a bound", kA, CacheRule::kKlAtMost, 1, {}, 0}, figures);
  EXPECT_TRUE(report.rows.empty());
  ASSERT_EQ(report.not_shown.size(), 1u);
  EXPECT_EQ(report.not_shown[0], "a bound: not with this model");
}

// A store that counts.
class Memory : public EvaluationStore {
 public:
  static std::string Of(const EvaluationKey& k) {
    return k.cache + "|" + k.text + "|" + std::to_string(k.prefix) + "|" + k.reference;
  }
  Result<std::optional<EvaluationRecord>> Find(const EvaluationKey& key) const override {
    const auto it = known.find(Of(key));
    return it == known.end() ? std::optional<EvaluationRecord>() : it->second;
  }
  Status Put(const EvaluationKey& key, const EvaluationRecord& record) override {
    known[Of(key)] = record;
    ++puts;
    return {};
  }
  std::map<std::string, EvaluationRecord> known;
  int puts = 0;
};

class MeasuredClaims : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    for (const char* name : {"one", "two"}) {
      texts_.push_back(folder_ + "/" + name);
      std::ofstream(texts_.back()) << std::string(300, name[0]) + std::string(300, name[1]);
    }
    options_.model_path = testing::TinyModel().Write();
    options_.budget = {uint64_t{1} << 40, "unbounded"};
    options_.texts = texts_;
    options_.prefix = 100;
    options_.follow = 20;
    options_.folder = folder_;
    options_.store = &store_;
    options_.on_step = [this](std::string_view) { ++steps_; };
  }
  const std::string folder_ = testing::TempDir() + "/claims";
  std::vector<std::string> texts_;
  ReproOptions options_;
  Memory store_;
  int steps_ = 0;
};

TEST_F(MeasuredClaims, AreNotMeasuredTwice) {
  const std::vector<CacheSetting> settings{kA, {"bf16", {}, {}}};
  const auto first = MeasureCaches(settings, options_);
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(steps_, 6);  // two texts; dense and two others
  EXPECT_EQ(store_.puts, 6);
  EXPECT_GT(first->at(kA.Name()).texts[1].kl_mean.value(), 0);
  EXPECT_EQ(first->at("--kv bf16").texts[0].kv_held, first->at("dense").texts[0].kv_held);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/dense.safetensors"));
  const auto again = MeasureCaches(settings, options_);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(steps_, 6);
  EXPECT_EQ(again->at(kA.Name()).texts[1].kl_mean, first->at(kA.Name()).texts[1].kl_mean);
  // One setting more: dense runs again for its logits, the known ones do not.
  const auto more = MeasureCaches({kA, {"bf16", {}, {}}, kB}, options_);
  ASSERT_TRUE(more.ok());
  EXPECT_EQ(steps_, 10);
  EXPECT_EQ(more->at("dense").texts.size(), 2u);
  // Without a store everything runs.
  options_.store = nullptr;
  ASSERT_TRUE(MeasureCaches({kA}, options_).ok());
  EXPECT_EQ(steps_, 14);
}

TEST_F(MeasuredClaims, RefusedSettingsLeaveTheOthers) {
  const auto found = MeasureCaches({{"million", {}, {}}, kA}, options_);  // no codebooks
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_FALSE(found->at("--kv million").refused.empty());
  EXPECT_EQ(found->at(kA.Name()).texts.size(), 2u);
}

TEST_F(MeasuredClaims, EndWhereTheyAreCancelledOrTextsAreShort) {
  options_.go_on = [] { return false; };
  EXPECT_EQ(MeasureCaches({kA}, options_).error().code, Code::kCancelled);
  options_.go_on = nullptr;
  std::ofstream(texts_[0]) << "short";
  EXPECT_EQ(MeasureCaches({kA}, options_).error().code, Code::kBadInput);
  options_.texts = {folder_ + "/none"};
  EXPECT_EQ(MeasureCaches({kA}, options_).error().code, Code::kBadFile);
  options_.texts.clear();
  EXPECT_EQ(RunRepros({FindRepro("h2o"), 1}, options_).error().code, Code::kUsage);
}

TEST_F(MeasuredClaims, ReportsSayTheSameInAllForms) {
  const auto reports = RunRepros({FindRepro("h2o"), 1}, options_);
  ASSERT_TRUE(reports.ok()) << reports.error().message;
  const ReproReport& r = reports->at(0);
  ASSERT_EQ(r.rows.size(), 2u);
  EXPECT_EQ(r.points.size(), 4u);  // dense, h2o, two baselines
  const std::string markdown = ReproMarkdown(r), html = ReproHtml(*reports);
  for (const ReproRow& row : r.rows) {
    EXPECT_NE(markdown.find(row.measured), std::string::npos);
    EXPECT_NE(html.find(row.measured), std::string::npos);
  }
  EXPECT_EQ(ReproJson(r)["points"].size(), 4u);
  ReproReport hostile = r;
  hostile.model = "<script>\"&";
  EXPECT_EQ(ReproHtml({&hostile, 1}).find("<script>"), std::string::npos);
}

// Every method of the cache's seams can be run again, and what claims name parses.
TEST(Repros, AreThereForEveryMethod) {
  std::set<std::string_view> slugs;
  for (const Repro& r : Repros()) {
    slugs.insert(r.slug);
    EXPECT_NE(r.run == nullptr, r.claims.empty()) << r.slug;
    for (const CacheClaim& c : r.claims) {
      std::vector<CacheSetting> all{c.setting};
      for (size_t i = 0; i < c.other_count; ++i) all.push_back(c.others[i]);
      for (const CacheSetting& s : all) {
        EXPECT_TRUE(!NamesCodec(s.kv) || ParseCodec(s.kv).ok()) << s.Name();
        EXPECT_TRUE(s.keep.empty() || ParseKeep(s.keep).ok()) << s.Name();
        EXPECT_TRUE(s.read.empty() || ParseRead(s.read).ok()) << s.Name();
      }
    }
  }
  const std::set<std::string_view> baselines{"block-sparse", "random"};
  const auto there = [&](std::string_view name) {
    return slugs.count(name) + baselines.count(name);
  };
  for (const CodecEntry* e : Codecs()) EXPECT_TRUE(there(e->name)) << e->name;
  for (const KeepEntry* e : KeepMethods()) EXPECT_TRUE(there(e->name)) << e->name;
  for (const ReadEntry* e : ReadMethods()) EXPECT_TRUE(there(e->name)) << e->name;
}

}  // namespace
}  // namespace snug
