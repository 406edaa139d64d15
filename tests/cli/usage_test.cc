// What the command line refuses, and how it helps.
#include <gtest/gtest.h>

#include "cli/program.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

struct Typo {
  std::vector<std::string> args;
  const char* expected;  // in the next step
};

TEST(Usage, NamesTheNearestVerbOptionOrValue) {
  const Typo kTypos[] = {
      {{"pln", "m.gguf"}, "plan"},
      {{"rnu", "m.gguf", "-p", "x"}, "run"},
      {{"tokenise", "m.gguf"}, "tokenize"},
      {{"run", "m.gguf", "--memry", "1GiB"}, "--memory"},
      {{"run", "m.gguf", "--memry=1GiB"}, "--memory"},
      {{"run", "m.gguf", "--tmep", "1"}, "--temp"},
      {{"eval", "m.gguf", "--chunk-s", "1"}, "--chunks"},
      {{"run", "m.gguf", "-ctx", "8"}, "-ct"},
      {{"run", "m.gguf", "--weights", "streem"}, "stream"},
      {{"run", "m.gguf", "--speculate", "lokup"}, "lookup"},
      {{"run", "m.gguf", "--kv", "q8_1"}, "q8_0"},
      {{"run", "m.gguf", "--kv", "kiwi:bits=2"}, "kivi"},
      {{"run", "m.gguf", "--kv", "kivi:bit=2"}, "bits"},
      {{"embed", "m.gguf", "--kv", "kivi", "-p", "x"}, "q8_0"},
      {{"run", "m.gguf", "--kv-keep", "h20"}, "h2o"},
      {{"run", "m.gguf", "--kv-keep", "h2o:bugdet=0.2"}, "budget"},
  };
  for (const Typo& t : kTypos) {
    auto args = t.args;
    args.insert(args.begin() + (args.size() > 1 ? 1 : 0), "--json");  // last it might be a value
    const Outcome o = Snug(args);
    EXPECT_EQ(o.code, 2) << t.args[0] << " " << o.out << o.err;
    EXPECT_EQ(o.error("code"), "usage");
    EXPECT_NE(o.error("next").find(t.expected), std::string::npos) << o.out;
  }
}

TEST(Usage, EveryRefusalIsAnErrorObject) {
  const std::vector<std::string> kBad[] = {
      {"run"},
      {"run", "m.gguf", "surplus"},
      {"run", "m.gguf", "--memory"},
      {"run", "m.gguf", "--temp", "warm"},
      {"run", "m.gguf", "-c", "-5"},
      {"run", "m.gguf", "-c", "99999999999"},
      {"run", "m.gguf", "-n", "0"},
      {"run", "m.gguf", "-n", "-2"},
      {"run", "m.gguf", "-t", "-1"},
      {"run", "m.gguf", "-p", "x", "-f", "y"},
      {"run", "m.gguf", "--top-p", "1.5"},
      {"run", "m.gguf", "-ngl", "99"},
      {"run", "m.gguf", "--no-mmap"},
      {"plan", "m.gguf", "--memory", "-1"},
      {"plan", "m.gguf", "--memory", "0"},
      {"plan", "m.gguf", "--memory", "0%"},
      {"plan", "m.gguf", "--memory", "101%"},
      {"plan", "m.gguf", "--memory", "1.5.2GiB"},
      {"plan", "m.gguf", "--memory", "99999999999999999999GiB"},
      {"plan", "m.gguf", "--memory", "nan"},
      {"eval", "m.gguf"},
      {"eval", "m.gguf", "--text", "a", "--tokens", "b"},
      {"bench", "m.gguf", "-p", "1,x"},
      {"bench", "m.gguf", "--parallel", "0"},
      {"doctor", "--memory", "lots"},
      {"--nonsense"},
  };
  for (auto args : kBad) {
    args.insert(args.begin() + (args.size() > 1 ? 1 : 0), "--json");  // last it might be a value
    const Outcome o = Snug(args);
    EXPECT_EQ(o.code, 2) << ::testing::PrintToString(args) << o.out << o.err;
    for (const char* field : {"code", "message", "values", "next"})
      EXPECT_TRUE(o.json()["error"].contains(field)) << o.out;
    EXPECT_EQ(o.error("code"), "usage") << o.out;
    EXPECT_FALSE(o.error("message").empty()) << o.out;
  }
}

TEST(Usage, WordsOfOtherProgramsAreExplained) {
  const Outcome o = Snug({"run", "m.gguf", "-ngl", "99"});
  EXPECT_EQ(o.code, 2);
  EXPECT_NE(o.err.find("'-ngl' is no option"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("processor"), std::string::npos) << o.err;
}

TEST(Usage, AliasesAndEnvironmentMeanTheSame) {
  const std::string model = testing::TinyModel().Write();
  const std::vector<std::string> plain = {"run", model, "--memory", "128MiB", "--prompt", "hello",
                                          "-n",  "4",   "--temp",   "0",      "--json",   "-q"};
  const Outcome reference = Snug(plain);
  ASSERT_EQ(reference.code, 0) << reference.out << reference.err;
  const std::vector<std::string> kSame[] = {
      {"run",         "-m",   model,    "--memory", "128MiB", "-p", "hello",
       "--n-predict", "4",    "--temp", "0",        "--json", "-q", "-ctk",
       "f16",         "-ctv", "f16",    "-ub",      "32",     "-s", "7"},
      {"run", "--model", model, "--memory=128MiB", "-p", "hello", "--predict", "4", "--temp", "0",
       "--ctx-size", "64", "--threads", "1", "--json", "-q", "--stop", "never said"},
      {"run", "--stop", "never said", model, "--memory=128MiB", "-p", "hello", "-n", "4", "--temp",
       "0", "-q", "--json"},
  };
  for (const auto& args : kSame) {
    const Outcome o = Snug(args);
    ASSERT_EQ(o.code, 0) << o.out << o.err;
    EXPECT_EQ(o.json()["tokens"], reference.json()["tokens"]);
  }
  testing::Run with_env{
      {"run", model, "-p", "hello", "-n", "4", "--show-config"}, "", false, {}, 0};
  with_env.env = {{"SNUG_MEMORY", "127MiB"}, {"SNUG_CTX_SIZE", "96"}, {"SNUG_THREADS", "1"}};
  const Outcome o = Snug(with_env);
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  EXPECT_NE(o.err.find("budget 127.0 MiB (given), context 96 (given)"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("1 threads (given)"), std::string::npos) << o.err;
  const auto line = [&](const std::string& name) {
    const size_t at = o.err.find("\n" + name + " ") + 1;
    return o.err.substr(at, o.err.find('\n', at) - at);
  };
  EXPECT_NE(line("memory").find("environment"), std::string::npos) << o.err;
  EXPECT_NE(line("predict").find("flag"), std::string::npos) << o.err;
  EXPECT_NE(line("top-k").find("default"), std::string::npos) << o.err;
}

TEST(Usage, DefaultsArePrintedWithTheirOrigin) {
  const std::string model = testing::TinyModel().Write();
  const Outcome o = Snug({"run", model, "--memory", "128MiB", "-p", "hello", "--temp", "0"});
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  // Trained for 256 tokens, fewer than the usual 4096.
  EXPECT_NE(o.err.find("context 256 (default)"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("up to 128 new tokens (default)"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("threads ("), std::string::npos) << o.err;
  const Outcome all =
      Snug({"run", model, "--memory", "128MiB", "-p", "hello", "-n", "-1", "-c", "0"});
  ASSERT_EQ(all.code, 0) << all.err;
  EXPECT_NE(all.err.find("context 256 (as trained), up to 251 new tokens"), std::string::npos)
      << all.err;
}

}  // namespace
}  // namespace snug
