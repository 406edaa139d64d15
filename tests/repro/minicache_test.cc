// The reproduction on a tiny model of random weights: identities and bytes must hold, and layers
// that have nothing in common must be seen to.
#include <gtest/gtest.h>

#include <fstream>

#include "repro/repro.h"
#include "testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

TEST(Repro, MiniCacheSeesThatRandomLayersAreNotAlike) {
  testing::TinyModel model;
  model.layers = 4;
  model.dim = 64;
  model.context = 1024;
  ReproOptions options;
  options.model_path = model.Write();
  options.quick = true;
  const Repro* repro = FindRepro("minicache");
  ASSERT_NE(repro, nullptr);
  auto without = repro->run(options);
  ASSERT_FALSE(without.ok());
  EXPECT_EQ(without.error().code, Code::kUsage);
  options.texts = {testing::TempDir() + "/text.txt"};
  std::ofstream(options.texts[0]) << "short";
  EXPECT_EQ(repro->run(options).error().code, Code::kBadInput);
  std::string text;
  for (int i = 0; i < 400; ++i) text += std::to_string(i * i) + (i % 7 == 0 ? ".\n" : " ");
  std::ofstream(options.texts[0]) << text;
  const auto report = repro->run(options);
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_EQ(report->rows.size(), 4u);
  EXPECT_EQ(report->rows[0].verdict, Verdict::kAbsent) << report->rows[0].measured;
  EXPECT_EQ(report->rows[1].verdict, Verdict::kHolds) << report->rows[1].measured;
  EXPECT_EQ(report->rows[2].verdict, Verdict::kHolds) << report->rows[2].measured;
  EXPECT_FALSE(report->not_shown.empty());
}

}  // namespace
}  // namespace snug
