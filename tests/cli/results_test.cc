// snug eval --results: what is known is not run again, whatever differs is; files that are no such
// files are refused and left alone.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/machine.h"
#include "cli/program.h"
#include "testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

class ResultsFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(text_) << std::string(600, 'a') + std::string(600, 'b');
    ASSERT_EQ(Eval({"--save-reference", reference_}).code, 0);
  }
  Outcome Eval(std::vector<std::string> more) const {
    std::vector<std::string> args = {"eval",     model_, "--memory",   "128MiB", "--text", text_,
                                     "--prefix", "100",  "--continue", "20",     "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return Snug(args);
  }
  Outcome Known(std::vector<std::string> more) const {
    more.insert(more.end(), {"--results", results_, "--reference", reference_});
    return Eval(more);
  }
  const std::string folder_ = testing::TempDir(), model_ = testing::TinyModel().Write();
  const std::string text_ = folder_ + "/text.txt", reference_ = folder_ + "/dense.safetensors",
                    results_ = folder_ + "/results.db";
};

TEST_F(ResultsFile, WhatIsKnownIsNotRunAgain) {
  const Outcome first = Known({"--kv-keep", "sink-window:budget=64"});
  ASSERT_EQ(first.code, 0) << first.err;
  Json want = first.json();
  EXPECT_FALSE(want.contains("known"));
  EXPECT_GT(want["kl_mean"].get<double>(), 0);
  const Outcome second = Known({"--kv-keep", "sink-window:budget=64"});
  ASSERT_EQ(second.code, 0) << second.err;
  want["known"] = true;
  EXPECT_EQ(second.json(), want);
  // Another cache, another text and another length are not known.
  EXPECT_FALSE(Known({"--kv-keep", "sink-window:budget=70"}).json().contains("known"));
  EXPECT_FALSE(Known({"--kv", "bf16"}).json().contains("known"));
  std::ofstream(text_) << std::string(600, 'b') + std::string(600, 'a');
  EXPECT_FALSE(Known({"--kv-keep", "sink-window:budget=64"}).json().contains("known"));
}

TEST_F(ResultsFile, PlansTellWhatIsKnownOfTheirCache) {
  const Json run = Known({"--kv-keep", "sink-window:budget=64"}).json();
  const std::vector<std::string> plan = {"plan", model_,      "--memory", "128MiB", "-c",
                                         "120",  "--results", results_,   "--json", "--kv-keep"};
  auto asked = plan;
  asked.push_back("sink-window:budget=64");
  const Outcome o = Snug(asked);
  ASSERT_EQ(o.code, 0) << o.err;
  const Json known = o.json()["known"];
  ASSERT_EQ(known.size(), 1u);
  EXPECT_EQ(known[0]["text"], "text.txt");
  EXPECT_EQ(known[0]["kl_mean"], run["kl_mean"]);
  EXPECT_EQ(known[0]["kv_held"], run["kv_held"]);
  asked = plan;
  asked.push_back("h2o:budget=64");
  EXPECT_TRUE(Snug(asked).json()["known"].empty());
}

TEST_F(ResultsFile, OtherFilesAreRefusedAndLeftAlone) {
  const std::string garbage(4096, 'x');
  std::ofstream(results_) << garbage;
  const Outcome o = Known({});
  EXPECT_EQ(o.code, 3);
  EXPECT_EQ(o.json()["error"]["code"], "bad_file") << o.out;
  EXPECT_EQ(testing::ReadBytes(results_), garbage);
  // A database cut short.
  std::filesystem::remove(results_);
  ASSERT_EQ(Known({}).code, 0);
  std::filesystem::resize_file(results_, 5000);
  const Outcome cut = Known({});
  EXPECT_EQ(cut.code, 3) << cut.out;
  EXPECT_TRUE(cut.json().contains("error"));
  const Outcome nowhere = Eval({"--results", folder_ + "/no/such/folder.db"});
  EXPECT_EQ(nowhere.code, 3);
  EXPECT_EQ(nowhere.json()["error"]["code"], "io");
}

}  // namespace
}  // namespace snug
