// Models written anew as GGUF: the same bytes where nothing changes, the same model from a folder,
// the same file whether or not the writing was interrupted.
#include "format/gguf_convert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "format/gguf.h"
#include "format/quantize.h"
#include "format/tensor_rows.h"
#include "hf_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

std::vector<uint8_t> Rows(const ModelFile& file, const TensorInfo& t) {
  std::vector<uint8_t> buffer(t.rows() * ReadBytesPerRow(t) + kReadOverhead);
  auto rows = ReadRows(file.files(), t, 0, t.rows(), buffer.data(), nullptr);
  EXPECT_TRUE(rows.ok());
  const uint64_t bytes = t.rows() * StoredRowBytes(t);
  return {*rows, *rows + bytes};
}

DType Same(const TensorInfo& t) { return t.type; }

Status Write(const ModelFile& file, const GgufPlan& plan, const std::string& path,
             const std::atomic<bool>* cancel = nullptr, uint64_t memory = 64 * kMiB) {
  Ledger ledger(memory);
  ThreadPool pool(2);
  return WriteGguf(file, plan, path, "test", ledger, pool, nullptr, cancel);
}

TEST(GgufConvert, ACopyHasTheSameTensorsAndKeys) {
  const testing::TinyModel model;
  auto file = GgufFile::Open(model.Write());
  ASSERT_TRUE(file.ok()) << file.error().message;
  auto plan = PlanGguf(*file, Same, 0, nullptr, nullptr);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  const std::string path = testing::TempDir() + "/copy.gguf";
  ASSERT_TRUE(Write(*file, *plan, path).ok());
  EXPECT_FALSE(testing::Exists(path + ".part"));
  EXPECT_FALSE(testing::Exists(path + ".part.state"));
  auto copy = GgufFile::Open(path);
  ASSERT_TRUE(copy.ok()) << copy.error().message;
  for (const std::string& key : file->keys()) {
    ASSERT_TRUE(copy->Has(key)) << key;
    if (const GgufArray* array = file->GetArray(key)) {
      ASSERT_EQ(copy->GetArray(key)->bytes, array->bytes);
      std::vector<uint8_t> a(array->bytes), b(array->bytes);
      ASSERT_TRUE(file->ReadArrayBytes(key, a.data()).ok());
      ASSERT_TRUE(copy->ReadArrayBytes(key, b.data()).ok());
      EXPECT_EQ(a, b) << key;
    } else {
      EXPECT_EQ(copy->GetValue(key)->bits, file->GetValue(key)->bits) << key;
      EXPECT_EQ(copy->GetValue(key)->text, file->GetValue(key)->text) << key;
    }
  }
  for (const TensorInfo& t : file->tensors()) {
    const TensorInfo* c = copy->Find(t.name);
    ASSERT_NE(c, nullptr) << t.name;
    EXPECT_EQ(c->dims, t.dims);
    EXPECT_EQ(c->type, t.type);
    EXPECT_EQ(Rows(*copy, *c), Rows(*file, t)) << t.name;
  }
  // A copy of the copy is the copy.
  auto again = PlanGguf(*copy, Same, 0, nullptr, nullptr);
  ASSERT_TRUE(Write(*copy, *again, path + "2").ok());
  EXPECT_EQ(testing::ReadBytes(path + "2"), testing::ReadBytes(path));
}

TEST(GgufConvert, AFolderBecomesWhatItsConverterMade) {
  for (const char* arch : {"llama", "gemma3", "qwen2", "mamba"}) {
    const std::string path = testing::GoldenPath(std::string("tiny/") + arch);
    SNUG_NEED(path + "/model.gguf");
    auto want = GgufFile::Open(path + "/model.gguf");
    auto folder = ModelFile::Open(path);
    ASSERT_TRUE(folder.ok()) << folder.error().message;
    auto plan = PlanGguf(**folder, Same, 0, nullptr, nullptr);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    const std::string out = testing::TempDir() + "/m.gguf";
    ASSERT_TRUE(Write(**folder, *plan, out).ok());
    auto got = GgufFile::Open(out);
    ASSERT_TRUE(got.ok()) << got.error().message;
    for (const TensorInfo& t : want->tensors()) {
      const TensorInfo* g = got->Find(t.name);
      ASSERT_NE(g, nullptr) << t.name;
      EXPECT_EQ(g->dims, t.dims) << t.name;
      const std::vector<uint8_t> a = Rows(*got, *g), b = Rows(*want, t);
      ASSERT_EQ(a.size(), b.size());
      for (size_t i = 0; i < a.size(); i += 4) {
        float x, y;
        std::memcpy(&x, &a[i], 4);
        std::memcpy(&y, &b[i], 4);
        ASSERT_NEAR(x, y, 2e-7 * std::abs(y)) << t.name;
      }
    }
    EXPECT_FALSE(got->Has(std::string(arch) + ".rope.interleaved"));
  }
}

// Biases of queries and keys are permuted as their matrices are.
TEST(GgufConvert, BiasesFollowTheirRows) {
  testing::TempDir();
  const std::string path = testing::TempDir();
  testing::WriteText(path + "/config.json",
                     R"({"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1,
                         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
                         "intermediate_size": 4, "tie_word_embeddings": true})");
  using testing::Counting;
  const std::string at = "model.layers.0.self_attn.";
  testing::WriteSafetensors(
      path + "/model.safetensors",
      {Counting("model.embed_tokens.weight", "F32", {3, 4}),
       Counting(at + "q_proj.weight", "BF16", {8, 1}), Counting(at + "q_proj.bias", "BF16", {8}),
       Counting(at + "k_proj.bias", "F32", {4})});
  auto folder = ModelFile::Open(path);
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  auto plan = PlanGguf(**folder, Same, 0, nullptr, nullptr);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  ASSERT_TRUE(Write(**folder, *plan, path + "/m.gguf").ok());
  auto file = GgufFile::Open(path + "/m.gguf");
  const auto values = [&](const char* name) {
    const TensorInfo& t = *file->Find(name);
    std::vector<float> v(t.rows() * t.cols());
    RowsToFloat(t, Rows(*file, t).data(), t.rows(), v.data());
    return v;
  };
  const std::vector<float> q = {0, 2, 1, 3, 4, 6, 5, 7};
  EXPECT_EQ(values("blk.0.attn_q.weight"), q);
  EXPECT_EQ(values("blk.0.attn_q.bias"), q);
  EXPECT_EQ(values("blk.0.attn_k.bias"), (std::vector<float>{0, 2, 1, 3}));
  EXPECT_EQ(file->Find("blk.0.attn_q.bias")->n_dims, 1);
  EXPECT_EQ(file->Find("blk.0.attn_q.weight")->type, DType::kBF16);
  EXPECT_EQ(file->Find("blk.0.attn_q.bias")->type, DType::kF32);
}

TEST(GgufConvert, QuantizesByRecipe) {
  const testing::TinyModel model{.layers = 2, .dim = 256, .heads = 4, .ffn = 512, .context = 64};
  auto file = GgufFile::Open(model.Write());
  ASSERT_TRUE(file.ok()) << file.error().message;
  const Recipe recipe = FindRecipe("q4_k_m").value();
  const auto type_of = [&](const TensorInfo& t) { return RecipeType(recipe, *file, t); };
  Importance importance;
  importance["blk.0.ffn_up.weight"] = std::vector<float>(256, 1.0f);
  importance["blk.0.ffn_up.weight"][3] = 100;
  auto plan = PlanGguf(*file, type_of, FileTypeOf(recipe), &importance, nullptr);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  const std::string path = testing::TempDir() + "/q.gguf";
  ASSERT_TRUE(Write(*file, *plan, path).ok());
  auto out = GgufFile::Open(path);
  ASSERT_TRUE(out.ok()) << out.error().message;
  EXPECT_EQ(out->GetUint("general.file_type"), 15u);
  EXPECT_EQ(out->Find("blk.0.attn_q.weight")->type, DType::kQ4_K);
  EXPECT_EQ(out->Find("blk.0.attn_norm.weight")->type, DType::kF32);
  for (const TensorInfo& t : file->tensors()) {
    const TensorInfo& o = *out->Find(t.name);
    EXPECT_EQ(o.type, RecipeType(recipe, *file, t)) << t.name;
    std::vector<float> values(t.rows() * t.cols());
    const std::vector<uint8_t> stored = Rows(*file, t);
    RowsToFloat(t, stored.data(), t.rows(), values.data());
    std::vector<uint8_t> expected(t.rows() * RowBytes(o.type, t.cols()));
    const auto it = importance.find(t.name);
    for (uint64_t r = 0; r < t.rows(); ++r)
      Quantize(o.type, &values[r * t.cols()], t.cols(),
               it == importance.end() ? nullptr : it->second.data(),
               &expected[r * RowBytes(o.type, t.cols())]);
    EXPECT_EQ(Rows(*out, o), expected) << t.name;
  }

  importance["blk.0.ffn_up.weight"].resize(100);
  auto bad = PlanGguf(*file, type_of, 0, &importance, nullptr);
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, Code::kBadFile);
}

TEST(GgufConvert, AnInterruptedRunGoesOnToTheSameBytes) {
  const testing::TinyModel model{.layers = 3, .dim = 512, .heads = 4, .ffn = 2048, .context = 64};
  auto file = GgufFile::Open(model.Write());
  ASSERT_TRUE(file.ok()) << file.error().message;
  auto plan = PlanGguf(*file, Same, 0, nullptr, nullptr);
  const std::string folder = testing::TempDir();
  ASSERT_TRUE(Write(*file, *plan, folder + "/whole.gguf").ok());
  const std::string whole = testing::ReadBytes(folder + "/whole.gguf");

  for (const uint64_t stop : {uint64_t{1000}, whole.size() / 3, whole.size() / 10 * 9}) {
    const std::string path = folder + "/resumed.gguf";
    std::atomic<bool> cancel{false};
    Ledger ledger(2 * kMiB);
    ThreadPool pool(1);
    const Status stopped = WriteGguf(
        *file, *plan, path, "test", ledger, pool,
        [&](const WriteProgress& p) { cancel = p.done >= stop; }, &cancel);
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().code, Code::kCancelled);
    ASSERT_TRUE(testing::Exists(path + ".part"));
    EXPECT_FALSE(testing::Exists(path));
    uint64_t resumed = 0;
    const Status done = WriteGguf(
        *file, *plan, path, "test", ledger, pool,
        [&](const WriteProgress& p) { resumed = p.resumed; }, nullptr);
    ASSERT_TRUE(done.ok()) << done.error().message;
    EXPECT_GT(resumed, 0u);
    EXPECT_TRUE(testing::ReadBytes(path) == whole);
    std::filesystem::remove(path);
  }

  // Other options begin anew, and so does a part whose note is missing or wrong.
  const std::string path = folder + "/other.gguf";
  for (const char* note : {"", "{", R"({"identity": "else", "bytes": 100})"}) {
    testing::WriteText(path + ".part", std::string(4096, 'z'));
    testing::WriteText(path + ".part.state", note);
    ASSERT_TRUE(Write(*file, *plan, path).ok());
    EXPECT_TRUE(testing::ReadBytes(path) == whole);
  }
}

TEST(GgufConvert, MemoryThatHoldsNoRowIsRefused) {
  const testing::TinyModel model;
  auto file = GgufFile::Open(model.Write());
  auto plan = PlanGguf(*file, Same, 0, nullptr, nullptr);
  const Status s = Write(*file, *plan, testing::TempDir() + "/x.gguf", nullptr, 4096);
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().code, Code::kDoesNotFit);
}

TEST(Recipe, NamesAndTypes) {
  EXPECT_FALSE(FindRecipe("q9_k").ok());
  EXPECT_EQ(FindRecipe("Q8_0")->base, DType::kQ8_0);
  EXPECT_TRUE(FindRecipe("q2_k")->mixed);
  EXPECT_FALSE(FindRecipe("q4_k")->mixed);
  EXPECT_EQ(FittingType(DType::kQ4_K, 512), DType::kQ4_K);
  EXPECT_EQ(FittingType(DType::kQ4_K, 160), DType::kQ5_0);
  EXPECT_EQ(FittingType(DType::kQ6_K, 160), DType::kQ8_0);
  EXPECT_EQ(FittingType(DType::kQ2_K, 48), DType::kF16);
  for (const std::string& name : RecipeNames()) EXPECT_TRUE(FindRecipe(name).ok()) << name;
}

TEST(Recipe, NormsRoutersAndStatesAreKept) {
  TensorInfo t;
  t.n_dims = 2;
  const std::pair<const char*, bool> kNames[] = {
      {"blk.0.attn_q.weight", true},       {"blk.1.ffn_down_exps.weight", true},
      {"token_embd.weight", true},         {"output.weight", true},
      {"blk.0.attn_q_norm.weight", false}, {"blk.0.ffn_gate_inp.weight", false},
      {"blk.0.ssm_conv1d.weight", false},  {"blk.0.ssm_a", false},
      {"blk.0.ssm_in.weight", true},       {"blk.0.attn_q.bias", false},
  };
  for (const auto& [name, quantizable] : kNames) {
    t.name = name;
    EXPECT_EQ(Quantizable(t), quantizable) << name;
  }
}

}  // namespace
}  // namespace snug
