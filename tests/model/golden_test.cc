// Exact mode against the golden logits of tiny models, made with an independent implementation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/engine.h"
#include "format/safetensors.h"
#include "testing.h"

namespace snug {
namespace {

std::string Name(const ::testing::TestParamInfo<const char*>& param) {
  std::string name = param.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// The greatest difference between the engine's exact logits and the expected ones, in a run whose
// context is `context` tokens.
float WorstDifference(const std::string& model, std::span<const Token> tokens,
                      std::span<const float> expected, uint32_t context) {
  EngineOptions options;
  options.model_path = model;
  options.tokenizer = false;
  options.budget.bytes = 256 * kMiB;
  options.context = context;
  options.chunk = options.logit_rows = static_cast<uint32_t>(tokens.size());
  options.exact = true;
  auto engine = Engine::Open(options);
  if (!engine.ok()) {
    ADD_FAILURE() << engine.error().message;
    return INFINITY;
  }
  const StepItem item{0, tokens, StepItem::Logits::kAll};
  EXPECT_TRUE((*engine)->Step({&item, 1}).ok());
  const size_t vocab = (*engine)->config().vocab;
  EXPECT_EQ(expected.size(), tokens.size() * vocab);
  float worst = 0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (size_t v = 0; v < vocab; ++v) {
      const float d = std::abs((*engine)->logits(t)[v] - expected[t * vocab + v]);
      worst = d <= worst ? worst : d;  // a NaN counts as the worst
    }
  }
  return worst;
}

// A case, read from its GGUF file or from its Hugging Face folder.
class Golden : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(Golden, ExactLogitsWithin1e3) {
  const std::string folder = testing::GoldenPath(std::string("tiny/") + std::get<0>(GetParam()));
  const std::string model = folder + std::get<1>(GetParam());
  SNUG_NEED(model);
  auto golden = SafetensorsFile::Open(folder + "/golden.safetensors");
  ASSERT_TRUE(golden.ok()) << golden.error().message;
  const std::vector<Token> tokens = golden->ReadI32("tokens").value();
  const std::vector<float> expected = golden->ReadF32("logits").value();
  EXPECT_LE(WorstDifference(model, tokens, expected, 128), 1e-3f);
}

std::string CaseName(const ::testing::TestParamInfo<Golden::ParamType>& param) {
  std::string name = std::get<0>(param.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name + (*std::get<1>(param.param) == 0 ? "_folder" : "_gguf");
}

INSTANTIATE_TEST_SUITE_P(
    Tiny, Golden,
    ::testing::Combine(::testing::Values("gemma2", "gemma3", "llama", "llama-yarn", "llama3-rope",
                                         "mamba", "mamba2", "mixtral", "olmoe", "phi3", "qwen2",
                                         "qwen3", "qwen3moe", "smollm3"),
                       ::testing::Values("/model.gguf", "")),
    CaseName);
INSTANTIATE_TEST_SUITE_P(TinyFolders, Golden,
                         ::testing::Combine(::testing::Values("gpt-oss", "mistral-swa",
                                                              "qwen3next"),
                                            ::testing::Values("")),
                         CaseName);

// Models of make_golden.py and make_golden_states.py, which also has the logits of a short run
// (LongRoPE has its own factors there).
class GoldenOwn : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenOwn, ExactLogitsWithin1e3) {
  const std::string path = testing::SourcePath(std::string("tests/data/models/") + GetParam());
  auto golden = SafetensorsFile::Open(path + ".safetensors");
  ASSERT_TRUE(golden.ok()) << golden.error().message;
  const std::vector<Token> tokens = golden->ReadI32("tokens").value();
  const std::vector<float> expected = golden->ReadF32("logits").value();
  EXPECT_LE(WorstDifference(path + ".gguf", tokens, expected, 128), 1e-3f);
  const std::vector<float> expected_short = golden->ReadF32("short_logits").value();
  const std::span<const Token> first =
      std::span(tokens).first(tokens.size() * expected_short.size() / expected.size());
  EXPECT_LE(WorstDifference(path + ".gguf", first, expected_short, 32), 1e-3f);
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenOwn,
                         ::testing::Values("falcon-mamba", "gpt-oss", "granite", "llama-biases",
                                           "mamba2-groups", "olmo2", "phi3-longrope", "qwen3next"),
                         Name);

// The real models' top log-probabilities at the last 64 of 512 positions of three texts.
class GoldenReal : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenReal, ExactTopLogProbabilitiesWithin1e3) {
  const std::string model = testing::ModelPath(std::string(GetParam()) + ".gguf");
  const std::string reference =
      testing::GoldenPath(std::string("real/") + GetParam() + ".safetensors");
  SNUG_NEED(model);
  SNUG_NEED(reference);
  auto golden = SafetensorsFile::Open(reference);
  ASSERT_TRUE(golden.ok()) << golden.error().message;
  EngineOptions options;
  options.model_path = model;
  options.budget.bytes = 4096 * kMiB;
  options.context = 512;
  options.chunk = 512;
  options.logit_rows = 64;
  options.exact = true;
  auto engine = Engine::Open(options);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  for (int text = 0; text < 3; ++text) {
    const std::string suffix = "_" + std::to_string(text);
    const std::vector<Token> tokens = golden->ReadI32("tokens" + suffix).value();
    const std::vector<int32_t> ids = golden->ReadI32("top_ids" + suffix).value();
    const std::vector<float> top = golden->ReadF32("top_logprobs" + suffix).value();
    (*engine)->Clear(0);
    const std::span<const Token> all(tokens);
    const StepItem head{0, all.first(448), StepItem::Logits::kNone};
    ASSERT_TRUE((*engine)->Step({&head, 1}).ok());
    const StepItem tail{0, all.subspan(448), StepItem::Logits::kAll};
    ASSERT_TRUE((*engine)->Step({&tail, 1}).ok());
    double worst = 0;
    for (size_t t = 0; t < 64; ++t) {
      const auto logits = (*engine)->logits(t);
      const double max = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (float l : logits) sum += std::exp(l - max);
      for (size_t i = 0; i < 32; ++i) {
        const double p = logits[ids[t * 32 + i]] - max - std::log(sum);
        worst = std::max(worst, std::abs(p - top[t * 32 + i]));
      }
    }
    EXPECT_LE(worst, 1e-3) << "text " << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Real, GoldenReal,
                         ::testing::Values("gemma-3-270m-q4_k_m",
                                           "qwen2.5-coder-1.5b-instruct-q4_k_m"),
                         [](const auto& param) {
                           return std::string(param.param).substr(0, 4) == "gemm" ? "gemma3"
                                                                                  : "qwen2";
                         });

}  // namespace
}  // namespace snug
