// The program as its users and their scripts see it.
#include <gtest/gtest.h>

#include <sstream>

#include "cli/program.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

std::string Gemma() { return testing::ModelPath(testing::kGemma); }
TEST(Cli, EveryVerbHasHelp) {
  for (const char* verb : {"run", "chat", "embed", "plan", "inspect", "template", "tokenize",
                           "eval", "bench", "doctor", "repro"}) {
    const Outcome o = Snug(std::vector<std::string>{verb, "--help"});
    EXPECT_EQ(o.code, 0) << verb;
    EXPECT_FALSE(o.out.empty()) << verb;
  }
  EXPECT_EQ(Snug(std::vector<std::string>{}).code, 2);
}

TEST(Cli, BadFilesEndWith3) {
  const std::string path = testing::TempDir() + "/bad.gguf";
  std::ofstream(path) << "not a model at all, but long enough to be read";
  for (const char* verb : {"run", "plan", "inspect", "tokenize"}) {
    const Outcome o = Snug({verb, path, "--json"}, "x");
    EXPECT_EQ(o.code, 3) << verb;
    EXPECT_EQ(o.json()["error"]["code"], "bad_file") << verb;
  }
  EXPECT_EQ(Snug({"run", "/nonexistent.gguf", "-p", "x"}).code, 3);
}

TEST(Cli, TinyModelRunsPlansAndRefuses) {
  SNUG_NEED(testing::TinyQwen());
  const Outcome run =
      Snug({"run", testing::TinyQwen(), "-c", "128", "-n", "8", "--temp", "0", "--memory", "128MiB",
            "--json", "-ctk", "bf16", "-ctv", "f16", "-ub", "32"},
           "hello there");
  ASSERT_EQ(run.code, 0) << run.err;
  const Json j = run.json();
  EXPECT_EQ(j["tokens"].size(), 8u);
  EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), j["memory"]["budget"].get<uint64_t>());
  EXPECT_EQ(Snug({"plan", testing::TinyQwen(), "-c", "128", "--memory", "128MiB"}).code, 0);
  const Outcome refused =
      Snug({"run", testing::TinyQwen(), "-c", "128", "--memory", "2MiB", "-p", "x", "--json"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_NE(refused.json()["error"]["next"].get<std::string>().find("--memory"), std::string::npos);
  EXPECT_EQ(Snug({"plan", testing::TinyQwen(), "-c", "128", "--memory", "2MiB"}).code, 4);
  const Outcome overflow = Snug({"run", testing::TinyQwen(), "-c", "64", "-n", "100", "--memory",
                                 "128MiB", "-p", "x", "--json"});
  EXPECT_EQ(overflow.code, 4);
  EXPECT_NE(overflow.json()["error"]["message"].get<std::string>().find("100"), std::string::npos);
  EXPECT_EQ(
      Snug({"run", testing::TinyQwen(), "-p", "x", "--temp", "-3", "--memory", "128MiB"}).code, 2);
  EXPECT_EQ(Snug({"run", testing::TinyQwen(), "-p", "x", "--kv", "q9", "--memory", "128MiB"}).code,
            2);
}

// States in the plan, as the run then holds them.
TEST(Cli, RecurrentModelsPlanRunAndBench) {
  for (const char* name : {"falcon-mamba", "mamba2-groups", "qwen3next"}) {
    const std::string model =
        testing::SourcePath(std::string("tests/data/models/") + name + ".gguf");
    const Json plan =
        Snug({"plan", model, "-c", "128", "--memory", "128MiB", "--snapshots", "2", "--json"})
            .json();
    EXPECT_EQ(plan["fits"], true) << name;
    EXPECT_EQ(plan["snapshots"], 2);
    const uint64_t state = plan["state_bytes"];
    EXPECT_GT(state, 0u);
    EXPECT_GE(plan["owners"]["context"]["kv"].get<uint64_t>(), 4 * state);
    const Outcome text = Snug({"plan", model, "-c", "128", "--memory", "128MiB"});
    EXPECT_NE(text.out.find("a sequence's state takes"), std::string::npos) << text.out;
    const Outcome run =
        Snug({"run", model, "-c", "128", "-n", "12", "--temp", "0", "--memory", "128MiB",
              "--ignore-eos", "--snapshots", "2", "--json", "-p", "@B@B@B"});
    ASSERT_EQ(run.code, 0) << run.out << run.err;
    const Json j = run.json();
    EXPECT_EQ(j["tokens"].size(), 12u);
    EXPECT_EQ(j["memory"]["owners"]["kv"], plan["owners"]["context"]["kv"]) << run.out;
    EXPECT_EQ(j["memory"]["ledger_peak"], j["memory"]["planned"]) << run.out;
    EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), j["memory"]["budget"].get<uint64_t>());
    const Outcome bench = Snug({"bench", model, "-p", "16", "-n", "4", "-d", "0,8", "-r", "2",
                                "--memory", "256MiB", "--json"});
    ASSERT_EQ(bench.code, 0) << bench.out << bench.err;
    EXPECT_EQ(bench.json()["rows"].size(), 4u);
  }
}

TEST(Cli, TokensGoThereAndBack) {
  SNUG_NEED(Gemma());
  const Outcome there = Snug({"tokenize", Gemma(), "--json"}, "Hello world");
  ASSERT_EQ(there.code, 0);
  EXPECT_EQ(there.json()["tokens"][0], 2);
  const Outcome back = Snug({"tokenize", Gemma(), "--decode", "--no-special", "--json"}, there.out);
  EXPECT_EQ(back.json()["text"], "Hello world");
  EXPECT_EQ(Snug({"tokenize", Gemma(), "--decode"}, "[99999999]").code, 3);
  EXPECT_EQ(Snug({"tokenize", Gemma(), "--decode"}, "[").code, 3);
}

TEST(Cli, EmbedsLinesAndTexts) {
  const std::string model = testing::SourcePath("tests/data/bert/model.gguf");
  const Outcome lines =
      Snug({"embed", model, "--memory", "128MiB", "--json", "--normalize"}, "a cat\n\nthe mat");
  ASSERT_EQ(lines.code, 0) << lines.out << lines.err;
  const Json j = lines.json();
  EXPECT_EQ(j["dim"], 32);
  EXPECT_EQ(j["pooling"], "cls");
  EXPECT_EQ(j["normalized"], true);
  ASSERT_EQ(j["embeddings"].size(), 3u);  // the empty line too
  EXPECT_EQ(j["embeddings"][1].size(), 32u);
  EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), j["memory"]["budget"].get<uint64_t>());
  const Outcome texts = Snug(
      {"embed", model, "--memory", "128MiB", "--normalize", "-q", "-p", "the mat", "-p", "a cat"});
  ASSERT_EQ(texts.code, 0) << texts.err;
  std::istringstream out(texts.out);
  for (const int i : {2, 0}) {
    for (size_t d = 0; d < 32; ++d) {
      float v = 0;
      out >> v;
      EXPECT_EQ(v, j["embeddings"][i][d].get<float>());
    }
  }
  EXPECT_TRUE(texts.err.empty()) << texts.err;

  const Outcome refused = Snug({"embed", model, "-c", "4", "--memory", "128MiB", "--json"},
                               "a\na cat that was not had");
  EXPECT_EQ(refused.code, 4);
  EXPECT_EQ(refused.json()["error"]["values"]["text"], 2);
  EXPECT_EQ(Snug({"embed", model, "-c", "4", "--truncate", "--memory", "128MiB"}, "a b c d e").code,
            0);
  EXPECT_EQ(Snug({"run", model, "-p", "x", "--memory", "128MiB"}).code, 2);
  EXPECT_EQ(Snug({"plan", model, "--memory", "128MiB"}).code, 0);
  EXPECT_EQ(Snug({"plan", model, "--memory", "4MiB"}).code, 4);
  EXPECT_EQ(Snug({"embed", "/nonexistent", "-p", "x"}).code, 3);
  EXPECT_EQ(Snug({"embed", model, "-f", "/nonexistent", "--memory", "128MiB"}).code, 3);
}

TEST(Cli, EveryBudgetOfALadderIsKept) {
  SNUG_NEED(Gemma());
  Json tokens;
  int ran = 0, refused = 0;
  for (int mib = 40; mib <= 320; mib += 7) {
    const Outcome o = Snug({"run", Gemma(), "-c", "256", "-n", "3", "--temp", "0", "-p",
                            "One two three", "--json", "--memory", std::to_string(mib) + "MiB"});
    if (o.code == 4) {
      ++refused;
      continue;
    }
    ASSERT_EQ(o.code, 0) << o.out << o.err;
    ++ran;
    const Json j = o.json();
    EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), static_cast<uint64_t>(mib) << 20) << mib;
    if (tokens.is_null()) tokens = j["tokens"];
    EXPECT_EQ(j["tokens"], tokens) << mib;
  }
  EXPECT_GE(ran + refused, 40);
  EXPECT_GT(ran, 20);
  EXPECT_GT(refused, 0);
}

TEST(Cli, TheFirstInterruptKeepsTheText) {
  SNUG_NEED(Gemma());
  const std::vector<std::string> args = {
      "run",      Gemma(), "-c", "8192", "-n", "8000", "--ignore-eos", "-p", "Once upon a time",
      "--memory", "600MiB"};
  const Outcome o = Snug(testing::Run{args, "", true, {}, 0});
  EXPECT_EQ(o.code, 5) << o.err;
  EXPECT_FALSE(o.out.empty());
}

TEST(Cli, EvalScoresAndComparesWithItself) {
  SNUG_NEED(Gemma());
  const std::string text = testing::DataPath("tinyshakespeare.txt");
  SNUG_NEED(text);
  const std::string reference = testing::TempDir() + "/r.safetensors";
  const Outcome exact =
      Snug({"eval", Gemma(), "--text", text, "-c", "64", "--chunks", "1", "--exact", "--json",
            "--save-reference", reference, "--memory", "2GiB"});
  ASSERT_EQ(exact.code, 0) << exact.err;
  const Outcome fast = Snug({"eval", Gemma(), "--text", text, "-c", "64", "--chunks", "1", "--json",
                             "--reference", reference, "--memory", "2GiB"});
  ASSERT_EQ(fast.code, 0) << fast.err;
  EXPECT_LT(fast.json()["kl_mean"].get<double>(), 0.0076);
  EXPECT_GT(fast.json()["kl_mean"].get<double>(), 0.0);
  EXPECT_LT(fast.json()["kl_max"].get<double>(), 0.5);
  EXPECT_NEAR(fast.json()["ppl"].get<double>() / exact.json()["ppl"].get<double>(), 1, 0.05);
}

}  // namespace
}  // namespace snug
