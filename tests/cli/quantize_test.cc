// snug calibrate and snug quantize: files that run, within the memory they are given, and that an
// interrupted run leaves in a state to go on from.
#include <gtest/gtest.h>

#include <filesystem>

#include "cli/program.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

std::string Text() {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "the cat sat on mat " + std::to_string(i * 7919) + "\n";
  return text;
}

TEST(QuantizeVerb, CalibratesQuantizesAndRuns) {
  const testing::TinyModel model{.layers = 3, .dim = 256, .heads = 4, .ffn = 1024, .context = 256};
  const std::string in = model.Write(), folder = testing::TempDir();
  const std::string text = folder + "/text.txt", imatrix = folder + "/imatrix.gguf";
  std::ofstream(text) << Text();
  const Outcome calibrated = Snug({"calibrate", in, "--text", text, "-o", imatrix, "-c", "128",
                                   "--chunks", "8", "--memory", "128MiB", "--json"});
  ASSERT_EQ(calibrated.code, 0) << calibrated.out << calibrated.err;
  EXPECT_EQ(calibrated.json()["matrices"], 21);
  EXPECT_FALSE(testing::Exists(imatrix + ".part"));

  uint64_t last = UINT64_MAX;
  for (const char* type : {"q8_0", "q4_k_m", "q2_k"}) {
    const std::string out = folder + "/" + type + ".gguf";
    const Outcome o = Snug(
        {"quantize", in, out, "--type", type, "--imatrix", imatrix, "--memory", "48MiB", "--json"});
    ASSERT_EQ(o.code, 0) << o.out << o.err;
    const Json j = o.json();
    EXPECT_LT(j["bytes"].get<uint64_t>(), last);
    last = j["bytes"].get<uint64_t>();
    EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), j["memory"]["budget"].get<uint64_t>());
    const Outcome run = Snug({"run", out, "-p", "the", "-n", "4", "-c", "64", "--memory", "128MiB",
                              "--temp", "0", "--json"});
    EXPECT_EQ(run.code, 0) << run.out << run.err;
  }
}

TEST(QuantizeVerb, OnLoadIsTheSameAsByFile) {
  const testing::TinyModel model{.layers = 2, .dim = 256, .heads = 4, .ffn = 512, .context = 256};
  const std::string in = model.Write(), out = testing::TempDir() + "/q.gguf";
  ASSERT_EQ(Snug({"quantize", in, out, "--type", "q8_0", "-q"}).code, 0);
  const std::vector<std::string> rest = {"-p",       "the",    "-n",     "12", "-c",    "64",
                                         "--memory", "128MiB", "--temp", "0",  "--json"};
  std::vector<std::string> a = {"run", in, "--weights", "q8_0"}, b = {"run", out},
                           c = {"run", in, "--weights", "q8_0,stream"},
                           d = {"run", in, "--weights", "q8_0", "--place", "stream"};
  for (auto* args : {&a, &b, &c, &d}) args->insert(args->end(), rest.begin(), rest.end());
  const Outcome loaded = Snug(a), stored = Snug(b), streamed = Snug(c), placed = Snug(d);
  ASSERT_EQ(loaded.code, 0) << loaded.out;
  EXPECT_EQ(loaded.json()["tokens"], stored.json()["tokens"]);
  EXPECT_EQ(loaded.json()["tokens"], streamed.json()["tokens"]);
  EXPECT_EQ(loaded.json()["tokens"], placed.json()["tokens"]);
  EXPECT_EQ(Snug({"run", out, "--weights", "q4_0", "-p", "x", "--json"}).code, 2);
  EXPECT_EQ(Snug({"run", in, "--weights", "q9", "-p", "x", "--json"}).code, 2);
  EXPECT_EQ(Snug({"run", in, "--weights", "stream,resident", "-p", "x", "--json"}).code, 2);
}

TEST(QuantizeVerb, MeetsATargetSize) {
  const testing::TinyModel model{.layers = 3, .dim = 256, .heads = 4, .ffn = 1024, .context = 256};
  const std::string in = model.Write(), folder = testing::TempDir();
  std::ofstream(folder + "/text.txt") << Text();
  for (const uint64_t kib : {1700, 2400}) {
    const std::string out = folder + "/t" + std::to_string(kib) + ".gguf";
    const Outcome o = Snug({"quantize", in, out, "--target-size", std::to_string(kib) + "KiB",
                            "--text", folder + "/text.txt", "--segments", "2", "--probes", "8",
                            "--memory", "96MiB", "--json"});
    ASSERT_EQ(o.code, 0) << o.out << o.err;
    EXPECT_LE(std::filesystem::file_size(out), kib << 10);
    EXPECT_GE(std::filesystem::file_size(out), (kib << 10) / 10 * 8);
    EXPECT_LE(o.json()["memory"]["rss_peak"].get<uint64_t>(), 96u << 20);
    EXPECT_FALSE(testing::Exists(out + ".sensitivity.json"));
    EXPECT_EQ(Snug({"run", out, "-p", "the", "-n", "2", "-c", "64", "--json"}).code, 0);
  }
  EXPECT_EQ(Snug({"quantize", in, folder + "/x.gguf", "--target-size", "100KiB", "--text",
                  folder + "/text.txt", "--json"})
                .code,
            4);
  EXPECT_EQ(Snug({"quantize", in, folder + "/x.gguf", "--target-size", "9MiB", "--json"}).code, 2);
}

TEST(QuantizeVerb, RefusesWhatItCannotDo) {
  const std::string in = testing::TinyModel{}.Write(), folder = testing::TempDir();
  EXPECT_EQ(Snug({"quantize", in, in, "--json"}).code, 2);
  EXPECT_EQ(Snug({"quantize", in, folder + "/o.gguf", "--type", "q11", "--json"}).code, 2);
  EXPECT_EQ(Snug({"quantize", in, folder + "/o.gguf", "--memory", "3MiB", "--json"}).code, 4);
  EXPECT_EQ(Snug({"quantize", folder + "/none.gguf", folder + "/o.gguf", "--json"}).code, 3);
  EXPECT_EQ(Snug({"quantize", in, folder + "/o.gguf", "--imatrix", in, "--json"}).code, 3);
  EXPECT_EQ(Snug({"quantize", in, "/nonexistent/o.gguf", "--json"}).code, 3);
  std::ofstream(folder + "/short.txt") << "the";
  EXPECT_EQ(
      Snug({"calibrate", in, "--text", folder + "/short.txt", "-o", folder + "/i", "--json"}).code,
      3);
}

}  // namespace
}  // namespace snug
