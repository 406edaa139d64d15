// The reproduction runs on a tiny model: what does not depend on the machine's speed must hold.
#include <gtest/gtest.h>

#include "repro/repro.h"
#include "testing.h"

namespace snug {
namespace {

TEST(Repro, SuperpipelineHoldsWhereSpeedDoesNotDecide) {
  const std::string model = testing::ModelPath(testing::kGemma);
  SNUG_NEED(model);
  ReproOptions options;
  options.model_path = model;
  options.quick = true;
  const auto report = FindRepro("superpipeline")->run(options);
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_EQ(report->rows.size(), 5u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(report->rows[i].verdict, Verdict::kHolds)
        << report->rows[i].claim << ": " << report->rows[i].measured;
  }
  EXPECT_FALSE(report->not_shown.empty());
  const std::string markdown = ReproMarkdown(*report);
  for (const ReproRow& r : report->rows) EXPECT_NE(markdown.find(r.measured), std::string::npos);
  EXPECT_EQ(ReproJson(*report)["rows"].size(), 5u);
}

TEST(Repro, FailsWhereTheModelIsMissing) {
  EXPECT_EQ(FindRepro("no such method"), nullptr);
  ReproOptions options;
  options.model_path = "/nonexistent.gguf";
  EXPECT_FALSE(FindRepro("superpipeline")->run(options).ok());
}

}  // namespace
}  // namespace snug
