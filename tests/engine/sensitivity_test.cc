// Measured sensitivity: what is put in few bits is what was asked for, and nothing else; types
// follow from what was measured.
#include "engine/sensitivity.h"

#include <gtest/gtest.h>

#include "engine/weight_probe.h"
#include "engine_testing.h"
#include "format/gguf.h"
#include "format/recipe.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;

const testing::TinyModel kModel{.layers = 4, .dim = 256, .heads = 4, .ffn = 512, .context = 256};

EngineOptions SensitivityOptions(const std::string& path) {
  EngineOptions o;
  o.model_path = path;
  o.budget.bytes = 256 * kMiB;
  o.context = o.chunk = kSegmentTokens;
  o.logit_rows = WeightProbe::kRows;
  o.threads = 2;
  o.plane_head = false;
  return o;
}

std::vector<float> Logits(Engine& engine, std::span<const Token> tokens) {
  engine.Clear(0);
  const StepItem item{0, tokens, StepItem::Logits::kAll};
  EXPECT_TRUE(engine.Step({&item, 1}).ok());
  std::vector<float> all;
  for (size_t r = 0; r < tokens.size(); ++r)
    all.insert(all.end(), engine.logits(r).begin(), engine.logits(r).end());
  return all;
}

// A model with these tensors in the probe's type in its file says what the probed engine says.
TEST(WeightProbe, IsTheModelWithTheseTensorsInFewBits) {
  const std::string path = kModel.Write();
  EngineOptions options = SensitivityOptions(path);
  options.observe = Observation::kProbe;
  const auto engine = OpenOrFail(options);
  ASSERT_NE(engine, nullptr);
  const std::vector<Token> tokens = SomeTokens(WeightProbe::kRows, engine->config().vocab);
  const std::vector<float> plain = Logits(*engine, tokens);
  const std::vector<std::vector<std::string>> kGroups = {
      {"blk.1.ffn_down.weight"},
      {"blk.0.ffn_gate.weight", "blk.1.ffn_gate.weight"},
      {"blk.3.attn_v.weight"},
      {"token_embd.weight"}};
  for (const auto& group : kGroups) {
    engine->weight_probe()->Choose(group);
    const std::vector<float> probed = Logits(*engine, tokens);
    EXPECT_FALSE(testing::SameBits(plain, probed)) << group[0];

    auto source = GgufFile::Open(path);
    auto plan = PlanGguf(
        *source,
        [&](const TensorInfo& t) {
          const bool in = std::find(group.begin(), group.end(), t.name) != group.end();
          return in ? WeightProbe::kType : t.type;
        },
        0, nullptr, nullptr);
    const std::string stored = testing::TempDir() + "/probe.gguf";
    Ledger ledger(64 * kMiB);
    ThreadPool pool(2);
    ASSERT_TRUE(WriteGguf(*source, *plan, stored, "", ledger, pool, nullptr, nullptr).ok());
    const auto other = OpenOrFail(SensitivityOptions(stored));
    ASSERT_NE(other, nullptr);
    EXPECT_TRUE(testing::SameBits(probed, Logits(*other, tokens))) << group[0];
  }
  engine->weight_probe()->Choose({});
  EXPECT_TRUE(testing::SameBits(plain, Logits(*engine, tokens)));
}

TEST(Sensitivity, GroupsHoldEveryQuantizableTensorOnce) {
  auto file = GgufFile::Open(kModel.Write());
  for (const uint32_t most : {1u, 8u, 16u, 1000u}) {
    std::set<std::string> seen;
    const std::vector<ProbeGroup> groups = MakeProbeGroups(*file, most);
    for (const ProbeGroup& g : groups)
      for (const std::string& name : g.tensors) EXPECT_TRUE(seen.insert(name).second) << name;
    size_t expected = 0;
    for (const TensorInfo& t : file->tensors()) expected += Quantizable(t) ? 1 : 0;
    EXPECT_EQ(seen.size(), expected);
    EXPECT_LE(groups.size(), std::max(most, 8u));
  }
}

TEST(Sensitivity, MeasuresAndChooses) {
  const std::string path = kModel.Write();
  EngineOptions options = SensitivityOptions(path);
  options.observe = Observation::kProbe;
  const auto engine = OpenOrFail(options);
  ASSERT_NE(engine, nullptr);
  std::vector<ProbeGroup> groups = MakeProbeGroups(engine->file(), 16);
  const std::vector<Token> tokens = SomeTokens(kSegmentTokens, engine->config().vocab);
  ASSERT_TRUE(MeasureSegment(*engine, tokens, &groups, nullptr, nullptr).ok());
  std::vector<double> once;
  for (const ProbeGroup& g : groups) {
    EXPECT_GT(g.divergence, 0) << g.tensors[0];
    once.push_back(g.divergence);
  }
  ASSERT_TRUE(MeasureSegment(*engine, tokens, &groups, nullptr, nullptr).ok());
  for (size_t i = 0; i < groups.size(); ++i) EXPECT_EQ(groups[i].divergence, 2 * once[i]);
  std::atomic<bool> cancel{true};
  const Status stopped = MeasureSegment(*engine, tokens, &groups, nullptr, &cancel);
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, Code::kCancelled);

  // One group matters far more than all others: it gets the most bits.
  auto file = GgufFile::Open(path);
  for (ProbeGroup& g : groups) g.divergence = 1e-6;
  groups[2].divergence = 10;
  uint64_t floats = 0;
  for (const ProbeGroup& g : groups)
    for (const std::string& name : g.tensors) floats += file->Find(name)->bytes;
  Ledger ledger(64 * kMiB);
  ThreadPool pool(2);
  const uint64_t target = floats / 32 * 4;  // four bits a weight
  auto types = ChooseTypes(*file, groups, nullptr, target, ledger, pool);
  ASSERT_TRUE(types.ok()) << types.error().message;
  uint64_t bytes = 0;
  for (const auto& [name, type] : *types) {
    const TensorInfo& t = *file->Find(name);
    bytes += RowBytes(type, t.cols()) * t.rows();
  }
  EXPECT_LE(bytes, target);
  EXPECT_GT(bytes, target / 10 * 9);
  for (const std::string& name : groups[2].tensors) EXPECT_EQ((*types)[name], DType::kQ8_0) << name;
  auto impossible = ChooseTypes(*file, groups, nullptr, 1000, ledger, pool);
  ASSERT_FALSE(impossible.ok());
  EXPECT_EQ(impossible.error().code, Code::kDoesNotFit);
}

}  // namespace
}  // namespace snug
