// A small Llama of random blocks in every stored type, end to end: exact products against a float
// model of the same weights, streamed against resident.
#include <cmath>
#include <fstream>

#include "engine_testing.h"
#include "format/gguf_builder.h"
#include "kernel/weights.h"

namespace snug {
namespace {

using testing::AllLogits;
using testing::OpenOrFail;
using testing::SameBits;
using testing::SomeTokens;

constexpr uint32_t kDim = 256, kFfn = 512, kHeads = 4, kKvHeads = 2, kLayers = 3, kVocab = 70;

struct Weights {
  std::string name;
  uint32_t rows, cols;
};
std::vector<Weights> Matrices() {
  std::vector<Weights> all = {{"token_embd.weight", kVocab, kDim}};
  for (uint32_t l = 0; l < kLayers; ++l) {
    const std::string layer = "blk." + std::to_string(l) + ".";
    const uint32_t kv = kDim / kHeads * kKvHeads;
    all.push_back({layer + "attn_q.weight", kDim, kDim});
    all.push_back({layer + "attn_k.weight", kv, kDim});
    all.push_back({layer + "attn_v.weight", kv, kDim});
    all.push_back({layer + "attn_output.weight", kDim, kDim});
    all.push_back({layer + "ffn_gate.weight", kFfn, kDim});
    all.push_back({layer + "ffn_up.weight", kFfn, kDim});
    all.push_back({layer + "ffn_down.weight", kDim, kFfn});
  }
  return all;
}

std::vector<uint8_t> FloatBytes(const std::vector<float>& v) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(v.data());
  return {bytes, bytes + v.size() * sizeof(float)};
}

// A model whose matrices are random blocks of `type`, or float32 matrices of the same values.
std::string WriteModel(DType type, bool as_floats) {
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;
    DType type;
    std::vector<uint8_t> bytes;
  };
  std::vector<Tensor> tensors;
  std::mt19937 rng(11);
  for (const Weights& w : Matrices()) {
    std::vector<uint8_t> raw = testing::RandomWeights(type, w.rows, w.cols, rng);
    if (as_floats) {
      std::vector<float> values(size_t{w.rows} * w.cols);
      Dequantize(type, raw.data(), values.size(), values.data());
      raw = FloatBytes(values);
    }
    tensors.push_back({w.name, {w.cols, w.rows}, as_floats ? DType::kF32 : type, std::move(raw)});
  }
  // Random weights are near 1: small norms keep softmax and logits from one-hot extremes.
  const std::vector<uint8_t> norm = FloatBytes(std::vector<float>(kDim, 0.1f));
  tensors.push_back({"output_norm.weight", {kDim}, DType::kF32, norm});
  for (uint32_t l = 0; l < kLayers; ++l) {
    for (const char* name : {"attn_norm.weight", "ffn_norm.weight"}) {
      tensors.push_back({"blk." + std::to_string(l) + "." + name, {kDim}, DType::kF32, norm});
    }
  }

  std::vector<std::string> words(kVocab);
  for (uint32_t i = 0; i < kVocab; ++i) words[i] = "w" + std::to_string(i);
  std::vector<int32_t> kinds(kVocab, 1);
  kinds[0] = 2;  // unknown
  testing::GgufBuilder file;
  file.Header(3, tensors.size(), 12)
      .String("general.architecture", "llama")
      .U32("llama.block_count", kLayers)
      .U32("llama.embedding_length", kDim)
      .U32("llama.feed_forward_length", kFfn)
      .U32("llama.attention.head_count", kHeads)
      .U32("llama.attention.head_count_kv", kKvHeads)
      .U32("llama.context_length", 256)
      .Float("llama.attention.layer_norm_rms_epsilon", 1e-6f)
      .String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens", words)
      .Floats("tokenizer.ggml.scores", std::vector<float>(kVocab, 0))
      .Ints("tokenizer.ggml.token_type", kinds);
  std::vector<uint8_t> data;
  for (const Tensor& t : tensors) {
    data.resize((data.size() + 31) / 32 * 32);
    file.Tensor(t.name, t.dims, static_cast<uint32_t>(t.type), data.size());
    data.insert(data.end(), t.bytes.begin(), t.bytes.end());
  }
  const std::string path = testing::TempDir() + "/model.gguf";
  std::ofstream(path, std::ios::binary) << file.Data(data).bytes;
  return path;
}

struct Run {
  bool exact = false;
  PlaceChoice place = PlaceChoice::kAuto;
};
std::vector<float> Logits(const std::string& path, const Run& run) {
  EngineOptions o = testing::TinyOptions("");
  o.model_path = path;
  o.exact = run.exact;
  o.place = run.place;
  auto engine = OpenOrFail(o);
  if (engine == nullptr) return {};
  EXPECT_EQ(engine->place().resident(), run.place != PlaceChoice::kStream);
  return AllLogits(*engine, 0, SomeTokens(40, kVocab), 16);
}

class StoredTypes : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, StoredTypes, ::testing::ValuesIn(testing::kAllTypes),
                         [](const auto& param) { return std::string(Info(param.param).name); });

TEST_P(StoredTypes, ExactProductsAreThoseOfTheDequantizedWeights) {
  const std::vector<float> stored = Logits(WriteModel(GetParam(), false), {.exact = true}),
                           floats = Logits(WriteModel(GetParam(), true), {.exact = true});
  ASSERT_FALSE(stored.empty());
  EXPECT_TRUE(SameBits(stored, floats));
}

TEST_P(StoredTypes, StreamedWeightsGiveTheSameBits) {
  const std::string path = WriteModel(GetParam(), false);
  const std::vector<float> resident = Logits(path, {}),
                           streamed = Logits(path, {.place = PlaceChoice::kStream});
  ASSERT_FALSE(resident.empty());
  EXPECT_TRUE(SameBits(resident, streamed));
}

TEST_P(StoredTypes, FastProductsStayNearTheExactOnes) {
  const std::string path = WriteModel(GetParam(), false);
  const std::vector<float> fast = Logits(path, {}), exact = Logits(path, {.exact = true});
  ASSERT_EQ(fast.size(), exact.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < fast.size(); ++i) {
    error += std::pow(fast[i] - exact[i], 2);
    norm += std::pow(exact[i], 2);
  }
  ASSERT_GT(norm, 0);
  // Q2_K's random minima are many times its random weights: their sums cancel.
  EXPECT_LT(std::sqrt(error / norm), GetParam() == DType::kQ2_K ? 0.4 : 0.1);
}

}  // namespace
}  // namespace snug
