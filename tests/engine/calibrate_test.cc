// Importance matrices: the sums against what the first layer's inputs are by hand, the same from
// streamed weights and in any chunks, and there and back through a file.
#include "engine/calibrate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine_testing.h"
#include "format/tensor_rows.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;

EngineOptions CalibrateOptions(const std::string& path) {
  EngineOptions o;
  o.model_path = path;
  o.budget.bytes = 256 * kMiB;
  o.context = 64;
  o.chunk = 32;
  o.threads = 2;
  o.observe = Observation::kCalibrate;
  return o;
}

void RunAll(Engine& engine, std::span<const Token> tokens, size_t chunk) {
  for (size_t i = 0; i < tokens.size(); i += chunk) {
    const StepItem item{0, tokens.subspan(i, std::min(chunk, tokens.size() - i)),
                        StepItem::Logits::kLast};
    ASSERT_TRUE(engine.Step({&item, 1}).ok());
  }
}

std::vector<float> Row(const ModelFile& file, const TensorInfo& t, uint64_t row) {
  std::vector<float> values(t.cols());
  std::vector<uint8_t> buffer(RowBufferBytes(t));
  EXPECT_TRUE(ReadRow(file.files(), t, row, buffer, values.data()).ok());
  return values;
}

TEST(Calibrate, SumsAreOfTheInputs) {
  const testing::TinyModel model;
  const auto engine = OpenOrFail(CalibrateOptions(model.Write()));
  ASSERT_NE(engine, nullptr);
  const std::vector<Token> tokens = SomeTokens(50, engine->config().vocab);
  RunAll(*engine, tokens, 32);
  const Imatrix m = engine->calibration()->Sum(1, 50, {"here"});
  // Seven matrices a layer; the head and the embedding are none of them.
  EXPECT_EQ(m.entries.size(), 7u * model.layers);
  for (const auto& [name, e] : m.entries) EXPECT_EQ(e.counts, std::vector<float>{50}) << name;

  const ModelFile& file = engine->file();
  const std::vector<float> norm = Row(file, *file.Find("blk.0.attn_norm.weight"), 0);
  std::vector<double> expected(model.dim);
  for (const Token t : tokens) {
    const std::vector<float> x =
        Row(file, *file.Find("token_embd.weight"), static_cast<uint64_t>(t));
    double square = 0;
    for (const float v : x) square += double{v} * v;
    const double scale = 1 / std::sqrt(square / model.dim + engine->config().eps);
    for (uint32_t c = 0; c < model.dim; ++c)
      expected[c] += std::pow(double{x[c]} * scale * norm[c], 2);
  }
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
    const std::vector<float>& sums = m.entries.find(name)->second.sums;
    for (uint32_t c = 0; c < model.dim; ++c)
      EXPECT_NEAR(sums[c], expected[c], 1e-4 * expected[c]) << name;
  }
  const Importance importance = ImportanceOf(m);
  EXPECT_NEAR(importance.find("blk.0.attn_q.weight")->second[3], expected[3] / 50,
              1e-4 * expected[3]);
}

// Each expert has its own sums, of the rows that its router sent there: all together those of the
// router, once for every choice.
TEST(Calibrate, ExpertsHaveTheirOwnSums) {
  EngineOptions options = CalibrateOptions(testing::SourcePath("tests/data/models/gpt-oss.gguf"));
  const auto whole = OpenOrFail(options);
  options.experts.slots = 1;
  const auto cached = OpenOrFail(options);
  ASSERT_TRUE(whole != nullptr && cached != nullptr);
  const RouterConfig& router = whole->config().router;
  const std::vector<Token> tokens = SomeTokens(40, whole->config().vocab);
  RunAll(*whole, tokens, 32);
  RunAll(*cached, tokens, 7);
  const Imatrix m = whole->calibration()->Sum(1, 40, {});
  const Imatrix other = cached->calibration()->Sum(1, 40, {});
  for (uint32_t l = 0; l < whole->config().layers; ++l) {
    const std::string layer = "blk." + std::to_string(l) + ".";
    const ImatrixEntry& gate = m.entries.at(layer + "ffn_gate_exps.weight");
    const ImatrixEntry& down = m.entries.at(layer + "ffn_down_exps.weight");
    const ImatrixEntry& inputs = m.entries.at(layer + "ffn_gate_inp.weight");
    ASSERT_EQ(gate.counts.size(), router.experts);
    EXPECT_EQ(std::accumulate(gate.counts.begin(), gate.counts.end(), 0.0f), 40 * router.used);
    EXPECT_EQ(gate.counts, down.counts);
    EXPECT_EQ(gate.sums, m.entries.at(layer + "ffn_up_exps.weight").sums);
    const size_t cols = inputs.sums.size();
    for (size_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (size_t e = 0; e < router.experts; ++e) sum += gate.sums[e * cols + c];
      const double expected = double{inputs.sums[c]} * router.used;
      EXPECT_NEAR(sum, expected, 1e-4 * expected) << layer << c;
    }
    for (size_t e = 0; e < router.experts; ++e) {
      const auto begin = gate.sums.begin() + static_cast<ptrdiff_t>(e * cols);
      EXPECT_EQ(gate.counts[e] != 0, std::any_of(begin, begin + static_cast<ptrdiff_t>(cols),
                                                 [](float v) { return v != 0; }));
    }
    EXPECT_EQ(other.entries.at(layer + "ffn_down_exps.weight").counts, down.counts);
  }
}

TEST(Calibrate, NeitherPlaceNorChunksMatter) {
  const testing::TinyModel model;
  const std::string path = model.Write();
  EngineOptions options = CalibrateOptions(path);
  const auto whole = OpenOrFail(options);
  options.place = PlaceChoice::kStream;
  options.stream.slots = 1;
  const auto streamed = OpenOrFail(options);
  ASSERT_TRUE(whole != nullptr && streamed != nullptr);
  ASSERT_FALSE(streamed->plan().resident);
  const std::vector<Token> tokens = SomeTokens(48, whole->config().vocab);
  RunAll(*whole, tokens, 32);
  RunAll(*streamed, tokens, 5);
  const Imatrix a = whole->calibration()->Sum(1, 48, {}),
                b = streamed->calibration()->Sum(1, 48, {});
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (const auto& [name, e] : a.entries) {
    EXPECT_EQ(e.sums, b.entries.find(name)->second.sums) << name;
    EXPECT_EQ(e.counts, b.entries.find(name)->second.counts) << name;
  }
}

TEST(Calibrate, GoesOnFromAFile) {
  const testing::TinyModel model;
  const auto first = OpenOrFail(CalibrateOptions(model.Write()));
  const auto second = OpenOrFail(CalibrateOptions(model.Write()));
  ASSERT_TRUE(first != nullptr && second != nullptr);
  const std::vector<Token> tokens = SomeTokens(60, first->config().vocab);
  RunAll(*first, std::span(tokens).first(30), 30);
  const std::string path = testing::TempDir() + "/imatrix.gguf";
  ASSERT_TRUE(WriteImatrix(path, first->calibration()->Sum(1, 30, {"a", "b"})).ok());
  auto read = ReadImatrix(path);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->chunks, 1u);
  EXPECT_EQ(read->chunk_size, 30u);
  EXPECT_EQ(read->datasets, (std::vector<std::string>{"a", "b"}));
  ASSERT_TRUE(second->calibration()->Resume(*read).ok());
  for (Engine* engine : {first.get(), second.get()}) {
    engine->Clear(0);
    RunAll(*engine, std::span(tokens).subspan(30), 30);
  }
  const Imatrix a = first->calibration()->Sum(2, 30, {}), b = second->calibration()->Sum(2, 30, {});
  for (const auto& [name, e] : a.entries) {
    const std::vector<float>& other = b.entries.find(name)->second.sums;
    for (size_t c = 0; c < e.sums.size(); ++c)
      EXPECT_NEAR(e.sums[c], other[c], 1e-5 * e.sums[c]) << name;
    EXPECT_EQ(e.counts, b.entries.find(name)->second.counts);
  }
  // Of another model.
  const auto other = OpenOrFail(CalibrateOptions(testing::TinyModel{.layers = 3}.Write()));
  EXPECT_FALSE(other->calibration()->Resume(*read).ok());
}

TEST(Imatrix, FaultsAreNamed) {
  const std::string model = testing::TinyModel{}.Write();
  auto wrong = ReadImatrix(model);
  ASSERT_FALSE(wrong.ok());
  EXPECT_NE(wrong.error().message.find("no importance matrix"), std::string::npos);
  Imatrix m;
  m.entries["x"] = {{1, -2}, {1}};
  const std::string path = testing::TempDir() + "/i.gguf";
  ASSERT_TRUE(WriteImatrix(path, m).ok());
  EXPECT_FALSE(ReadImatrix(path).ok());
  m.entries.clear();
  ASSERT_TRUE(WriteImatrix(path, m).ok());
  EXPECT_FALSE(ReadImatrix(path).ok());
}

}  // namespace
}  // namespace snug
