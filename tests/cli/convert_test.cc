// snug convert: folders and GGUF files that are the same model, written within the memory that is
// given, and gone on with after a kill.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "cli/program.h"
#include "engine/engine_testing.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

EngineOptions Options(const std::string& path) {
  EngineOptions o;
  o.model_path = path;
  o.budget.bytes = 256 * kMiB;
  o.context = 96;
  o.chunk = o.logit_rows = 48;
  o.threads = 2;
  o.exact = true;
  return o;
}

struct Seen {
  std::vector<float> logits;
  std::vector<Token> tokens;  // of a text
  std::vector<bool> ends;
};

Seen See(const std::string& path, std::span<const Token> tokens) {
  Seen seen;
  const auto engine = testing::OpenOrFail(Options(path));
  if (engine == nullptr) return seen;
  seen.logits = testing::AllLogits(*engine, 0, tokens, 48);
  engine->tokenizer().Encode("the cat's 12 mats, <s> and so on", {true, true}, &seen.tokens);
  for (uint32_t t = 0; t < engine->config().vocab; ++t)
    seen.ends.push_back(engine->tokenizer().IsEndOfGeneration(static_cast<Token>(t)));
  return seen;
}

// Sums run in another order where rotary rows change places, and norms of Gemma are stored less
// one.
void ExpectSame(const Seen& a, const Seen& b, const std::string& what) {
  ASSERT_EQ(a.logits.size(), b.logits.size()) << what;
  ASSERT_FALSE(a.logits.empty()) << what;
  float largest = 0, difference = 0;
  for (size_t i = 0; i < a.logits.size(); ++i) {
    largest = std::max(largest, std::abs(a.logits[i]));
    difference = std::max(difference, std::abs(a.logits[i] - b.logits[i]));
  }
  EXPECT_LE(difference, 2e-5f * largest) << what;
  EXPECT_EQ(a.tokens, b.tokens) << what;
  EXPECT_EQ(a.ends, b.ends) << what;
}

class RoundTrip : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundTrip, GivesTheSameModel) {
  const std::string arch = GetParam(), folder = testing::GoldenPath("tiny/" + arch);
  SNUG_NEED(folder);
  const auto tokens = SafetensorsFile::Open(folder + "/golden.safetensors")->ReadI32("tokens");
  const Seen original = See(folder, *tokens);

  const std::string temp = testing::TempDir(), gguf = temp + "/a.gguf", back = temp + "/b",
                    again = temp + "/c.gguf";
  const Outcome made = Snug({"convert", folder, gguf, "--memory", "64MiB", "--json"});
  if (arch == "qwen3next") {  // projections of several heads interleaved by groups
    EXPECT_EQ(made.code, 2);
    EXPECT_NE(made.error("message").find("qwen3next"), std::string::npos);
    return;
  }
  ASSERT_EQ(made.code, 0) << made.out << made.err;
  EXPECT_LE(made.json()["memory"]["rss_peak"].get<uint64_t>(), 64 * kMiB);
  ExpectSame(original, See(gguf, *tokens), "GGUF");

  const Outcome unmade = Snug({"convert", gguf, back, "--memory", "64MiB", "--json"});
  if (arch == "gpt-oss") {
    EXPECT_EQ(unmade.code, 2);
    EXPECT_NE(unmade.error("message").find("gpt-oss"), std::string::npos);
    return;
  }
  ASSERT_EQ(unmade.code, 0) << unmade.out << unmade.err;
  ExpectSame(original, See(back, *tokens), "folder");
  // The same tensors under the same names as at first.
  const auto first = SafetensorsFile::Open(folder + "/model.safetensors");
  const auto second = SafetensorsFile::Open(back + "/model.safetensors");
  for (const SafetensorInfo& t : first->tensors()) {
    const SafetensorInfo* s = second->Find(t.name);
    ASSERT_NE(s, nullptr) << t.name;
    EXPECT_EQ(s->shape, t.shape) << t.name;
  }
  EXPECT_EQ(second->tensors().size(), first->tensors().size());

  ASSERT_EQ(Snug({"convert", back, again, "--json"}).code, 0);
  ExpectSame(original, See(again, *tokens), "GGUF again");
}

INSTANTIATE_TEST_SUITE_P(Architectures, RoundTrip,
                         ::testing::Values("gemma2", "gemma3", "gpt-oss", "llama", "llama-yarn",
                                           "llama3-rope", "mamba", "mamba2", "mistral-swa",
                                           "mixtral", "olmoe", "phi3", "qwen2", "qwen3", "qwen3moe",
                                           "qwen3next", "smollm3"),
                         [](const auto& p) {
                           std::string name = p.param;
                           for (char& ch : name) ch = ch == '-' ? '_' : ch;
                           return name;
                         });

TEST(ConvertVerb, TypesAsAsked) {
  const std::string folder = testing::GoldenPath("tiny/qwen2"), temp = testing::TempDir();
  SNUG_NEED(folder);
  ASSERT_EQ(Snug({"convert", folder, temp + "/q.gguf", "--type", "q8_0", "-q"}).code, 0);
  auto file = GgufFile::Open(temp + "/q.gguf");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->Find("blk.0.ffn_up.weight")->type, DType::kQ8_0);
  EXPECT_EQ(file->Find("blk.0.attn_norm.weight")->type, DType::kF32);
  EXPECT_EQ(file->GetUint("general.file_type"), 7u);
  ASSERT_EQ(Snug({"convert", temp + "/q.gguf", temp + "/f", "-q"}).code, 0);
  const auto weights = SafetensorsFile::Open(temp + "/f/model.safetensors");
  EXPECT_EQ(weights->Find("model.layers.0.mlp.up_proj.weight")->dtype, "F16");
  EXPECT_EQ(weights->Find("model.norm.weight")->dtype, "F32");
}

TEST(ConvertVerb, GoesOnAfterAKill) {
  // Large enough for a note or two on the way.
  const testing::TinyModel model{.layers = 12, .dim = 512, .heads = 4, .ffn = 2048, .context = 64};
  const std::string in = model.Write(), temp = testing::TempDir();
  const std::vector<std::string> args = {"convert", in,         temp + "/f", "--type",
                                         "f32",     "--memory", "48MiB",     "--json"};
  ASSERT_EQ(Snug(args).code, 0);
  const std::string part = temp + "/g/model.safetensors.part";
  auto other = args;
  other[2] = temp + "/g";
  // Killed once the first note is there.
  const pid_t pid = fork();
  if (pid == 0) {
    std::string program = testing::ProgramPath();
    std::vector<char*> argv{program.data()};
    for (auto& a : other) argv.push_back(a.data());
    argv.push_back(nullptr);
    if (freopen("/dev/null", "w", stdout) == nullptr) _exit(99);
    execv(program.c_str(), argv.data());
    _exit(98);
  }
  int status = 0;
  bool ended = false;
  while (!ended && !testing::Exists(part + ".state")) ended = waitpid(pid, &status, WNOHANG) == pid;
  if (!ended) {
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
  }
  if (WIFSIGNALED(status)) {
    EXPECT_FALSE(testing::Exists(temp + "/g/config.json"));
  }
  if (testing::Exists(part)) {
    const Outcome resumed = Snug(other);
    ASSERT_EQ(resumed.code, 0) << resumed.out << resumed.err;
    EXPECT_GT(resumed.json()["resumed_bytes"].get<uint64_t>(), 0u);
  }
  const auto a = ReadWholeFile(temp + "/f/model.safetensors", 1 << 30);
  const auto b = ReadWholeFile(temp + "/g/model.safetensors", 1 << 30);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_TRUE(*a == *b);
}

TEST(ConvertVerb, RefusesWhatItCannotDo) {
  const std::string in = testing::TinyModel{}.Write(), temp = testing::TempDir();
  EXPECT_EQ(Snug({"convert", in, in, "--json"}).code, 2);
  EXPECT_EQ(Snug({"convert", in, temp + "/o.gguf", "--type", "q11", "--json"}).code, 2);
  EXPECT_EQ(Snug({"convert", in, temp + "/o", "--type", "q8_0", "--json"}).code, 2);
  EXPECT_EQ(Snug({"convert", in, temp + "/o", "--memory", "3MiB", "--json"}).code, 4);
  EXPECT_EQ(Snug({"convert", temp + "/none", temp + "/o.gguf", "--json"}).code, 3);
  EXPECT_EQ(Snug({"convert", temp, temp + "/o.gguf", "--json"}).code, 3);
  std::ofstream(temp + "/config.json") << "{}";
  EXPECT_EQ(Snug({"convert", in, temp, "--json"}).code, 2);
}

}  // namespace
}  // namespace snug
