// The JSON that scripts rely on, verb by verb, and the files and prompts that the program takes.
#include <gtest/gtest.h>

#include "base/ledger.h"
#include "base/machine.h"
#include "cli/program.h"
#include "format/safetensors.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

class Contract : public ::testing::Test {
 protected:
  const std::string model_ = testing::TinyModel().Write();
  std::vector<std::string> Run(std::vector<std::string> more) const {
    std::vector<std::string> args = {"run", model_, "--memory", "128MiB", "--temp", "0", "-q"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
};

void Has(const Json& j, const std::vector<const char*>& keys) {
  for (const char* k : keys) EXPECT_TRUE(j.contains(k)) << k << " is missing in " << DumpJson(j);
}

TEST_F(Contract, Run) {
  const Outcome o = Snug(Run({"-p", "hello", "-n", "5", "-c", "64", "--ignore-eos", "--json"}));
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  const Json j = o.json();
  Has(j, {"text", "tokens", "prompt_tokens", "cached_tokens", "finish_reason", "timings", "memory",
          "bytes_touched_per_token", "disk_bytes_per_token", "experts"});
  Has(j["timings"], {"prefill_tps", "decode_tps", "ttft_ms"});
  Has(j["memory"], {"budget", "planned", "ledger_peak", "rss_peak", "kv_held", "owners"});
  EXPECT_EQ(j["tokens"].size(), 5u);
  EXPECT_EQ(j["prompt_tokens"], 5);
  EXPECT_EQ(j["cached_tokens"], 0);
  EXPECT_EQ(j["finish_reason"], "length");
  EXPECT_EQ(j["memory"]["budget"], 128 << 20);
  EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), j["memory"]["planned"].get<uint64_t>());
  EXPECT_LE(j["memory"]["ledger_peak"].get<uint64_t>(), j["memory"]["planned"].get<uint64_t>());
  EXPECT_GT(j["bytes_touched_per_token"].get<double>(), 0);
  EXPECT_EQ(j["disk_bytes_per_token"], 0);
  EXPECT_TRUE(o.err.empty()) << o.err;
}

TEST_F(Contract, KeepDropsRowsAndSaysWhatIsHeld) {
  const std::string text(200, 'a');
  const std::vector<std::string> more = {"-p", text, "-n", "20", "--ignore-eos", "--json"};
  const Json dense = Snug(Run(more)).json();
  auto with = more;
  with.insert(with.end(), {"--kv-keep", "h2o:budget=64"});
  const Outcome o = Snug(Run(with));
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  // One page of each head and layer instead of four, and the rows' tokens and sums.
  const auto held = o.json()["memory"]["kv_held"].get<uint64_t>();
  EXPECT_LT(held, dense["memory"]["kv_held"].get<uint64_t>() / 2);
  EXPECT_EQ(o.json()["tokens"][0], dense["tokens"][0]);
  auto draft = with;
  draft.insert(draft.end(), {"--speculate", "lookup"});
  EXPECT_EQ(Snug(Run(draft)).error("code"), "usage");
  const Outcome whole = Snug({"eval", model_, "--text", "-", "--kv-keep", "h2o", "--json"}, text);
  EXPECT_EQ(whole.code, 2) << whole.out;
  EXPECT_NE(whole.error("next").find("--prefix"), std::string::npos) << whole.out;
}

TEST_F(Contract, ACodecHoldsFewerBytesAndIsRefusedWhereItCannotBe) {
  const std::vector<std::string> more = {"-p", std::string(200, 'a'), "-n",
                                         "20", "--ignore-eos",        "--json"};
  const Json dense = Snug(Run(more)).json();
  const auto with = [&](std::vector<std::string> args, const std::vector<std::string>& last) {
    args.insert(args.end(), last.begin(), last.end());
    return Snug(args);
  };
  const std::vector<std::string> kivi = {"--kv", "kivi:group=16,residual=16"};
  const Outcome o = with(Run(more), kivi);
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  // 4 bits with scales and zeros instead of 16, and a page of exact rows.
  EXPECT_LT(4 * o.json()["memory"]["kv_held"].get<uint64_t>(),
            3 * dense["memory"]["kv_held"].get<uint64_t>());
  EXPECT_EQ(o.json()["tokens"][0], dense["tokens"][0]);
  auto run = Run(more);
  run.insert(run.end(), kivi.begin(), kivi.end());
  for (const std::vector<std::string>& clash : std::vector<std::vector<std::string>>{
           {"--speculate", "lookup"}, {"--kv-keep", "h2o"}, {"--cache-type-k", "q8_0"}}) {
    EXPECT_EQ(with(run, clash).error("code"), "usage") << clash[1];
  }
  const Outcome whole = with({"eval", model_, "--text", "-", "--json"}, kivi);
  EXPECT_NE(whole.error("next").find("--prefix"), std::string::npos) << whole.out;
}

TEST_F(Contract, EvalOfWhatFollowsAPrompt) {
  const std::string text(220, 'b'), folder = testing::TempDir();
  std::ofstream(folder + "/text") << text;
  const std::vector<std::string> args = {
      "eval",     model_, "--memory",   "128MiB", "--text", folder + "/text",
      "--prefix", "150",  "--continue", "30",     "--json"};
  auto save = args;
  save.insert(save.end(), {"--save-reference", folder + "/dense"});
  const Outcome dense = Snug(save);
  ASSERT_EQ(dense.code, 0) << dense.out << dense.err;
  EXPECT_EQ(dense.json()["tokens"], 30);
  for (const char* keep : {"h2o:budget=256", "sink-window:budget=20"}) {
    auto compare = args;
    compare.insert(compare.end(), {"--reference", folder + "/dense", "--kv-keep", keep});
    const Outcome o = Snug(compare);
    ASSERT_EQ(o.code, 0) << o.out << o.err;
    if (std::string(keep) == "h2o:budget=256") {
      EXPECT_EQ(o.json()["kl_mean"].get<double>(), 0) << o.out;
      EXPECT_EQ(o.json()["top1"], 1);
    } else {
      EXPECT_GT(o.json()["kl_mean"].get<double>(), 0) << o.out;
      EXPECT_LT(o.json()["kv_held"].get<uint64_t>(), dense.json()["kv_held"].get<uint64_t>());
    }
  }
}

TEST_F(Contract, CodebooksOfCalibrateServeACodec) {
  const std::string folder = testing::TempDir(), books = folder + "/books.safetensors";
  std::string text;
  for (uint32_t i = 0; i < 700; ++i) text += static_cast<char>('a' + i * i % 23);
  std::ofstream(folder + "/text") << text;
  const std::vector<std::string> eval = {
      "eval",     model_, "--memory",   "128MiB", "--text", folder + "/text", "--chunks", "1",
      "--prefix", "150",  "--continue", "30",     "--kv",   "million",        "--json"};
  const Outcome none = Snug(eval);
  EXPECT_EQ(none.error("code"), "usage");
  EXPECT_NE(none.error("next").find("calibrate"), std::string::npos);
  const std::vector<std::string> calibrate = {
      "calibrate", model_, "--text",   folder + "/text", "-o",          books,
      "-c",        "128",  "--memory", "128MiB",         "--codebooks", "--json"};
  auto wrong = calibrate;
  wrong.insert(wrong.end(), {"--dims", "3"});
  EXPECT_EQ(Snug(wrong).error("code"), "usage");
  const Outcome learnt = Snug(calibrate);
  ASSERT_EQ(learnt.code, 0) << learnt.out << learnt.err;
  EXPECT_EQ(learnt.json()["chunks"], 5);
  EXPECT_NE(learnt.err.find("learnt from"), std::string::npos);  // few vectors
  auto with = eval;
  with.insert(with.end(), {"--kv-codebooks", books});
  const Outcome o = Snug(with);
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  EXPECT_EQ(o.json()["tokens"], 30);
  const Outcome plan = Snug(
      {"plan", model_, "--memory", "128MiB", "--kv", "million", "--kv-codebooks", books, "--json"});
  EXPECT_EQ(plan.code, 0) << plan.out << plan.err;
}

TEST_F(Contract, PermutationsOfCalibrateServeACodec) {
  const std::string folder = testing::TempDir(), order = folder + "/permutation.json";
  std::string text;
  for (uint32_t i = 0; i < 700; ++i) text += static_cast<char>('a' + i * i % 23);
  std::ofstream(folder + "/text") << text;
  const std::vector<std::string> eval = {
      "eval",     model_, "--memory",   "128MiB", "--text", folder + "/text", "--chunks", "1",
      "--prefix", "150",  "--continue", "30",     "--kv",   "rotatekv",       "--json"};
  const Outcome none = Snug(eval);
  EXPECT_EQ(none.error("code"), "usage");
  EXPECT_NE(none.error("next").find("--permutation"), std::string::npos);
  const std::vector<std::string> calibrate = {
      "calibrate", model_,     "--text", folder + "/text", "-o",    order, "-c",
      "128",       "--memory", "128MiB", "--permutation",  "--json"};
  auto wrong = calibrate;
  wrong.insert(wrong.end(), {"--heads", "3"});
  EXPECT_EQ(Snug(wrong).error("code"), "usage");
  const Outcome measured = Snug(calibrate);
  ASSERT_EQ(measured.code, 0) << measured.out << measured.err;
  EXPECT_EQ(measured.json()["chunks"], 5);
  auto with = eval;
  with.insert(with.end(), {"--kv-permutation", order});
  const Outcome o = Snug(with);
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  EXPECT_EQ(o.json()["tokens"], 30);
}

TEST_F(Contract, MethodsAreListed) {
  const Outcome o = Snug({"methods", "--json"});
  ASSERT_EQ(o.code, 0) << o.err;
  const Json list = o.json()["methods"];
  ASSERT_FALSE(list.empty());
  for (const Json& m : list) {
    Has(m, {"seam", "name", "source", "summary", "parameters"});
    const Json& seam = m["seam"];
    EXPECT_TRUE(m.contains(seam == "kv.read"    ? "index"
                           : seam == "kv.codec" ? "needs"
                           : seam == "kv.share" ? "stores"
                           : seam == "kv.place" ? "holds"
                                                : "observes"));
    EXPECT_TRUE(testing::Exists(
        testing::SourcePath("docs/methods/" + m["name"].get<std::string>() + ".md")))
        << m["name"];
  }
}

TEST_F(Contract, RowsOnDiskGiveTheSameAnswerWithinThePlan) {
  std::string text;
  for (uint32_t i = 0; i < 200; ++i) text += static_cast<char>('a' + i * i % 23);
  std::vector<std::string> args = Run({"-p", text, "-n", "40", "--ignore-eos", "--json",
                                       "--kv-read", "quest:tokens=32,dense-layers=0,page=8"});
  const Outcome memory = Snug(args);
  ASSERT_EQ(memory.code, 0) << memory.out << memory.err;
  EXPECT_TRUE(memory.json()["kv_place"].is_null());
  args.insert(args.end(), {"--kv-place", "disk:hot=0"});
  const Outcome disk = Snug(args);
  ASSERT_EQ(disk.code, 0) << disk.out << disk.err;
  const Json j = disk.json(), placed = j["kv_place"];
  EXPECT_EQ(j["tokens"], memory.json()["tokens"]);
  Has(placed,
      {"place", "disk_bytes", "rows", "hits", "hit_rate", "reads", "bytes_read", "bytes_written"});
  EXPECT_GT(placed["reads"], 0);
  EXPECT_LE(placed["bytes_written"], placed["disk_bytes"]);
  EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), j["memory"]["planned"].get<uint64_t>());
  args.insert(args.end(), {"--kv-folder", "/nowhere"});
  EXPECT_EQ(Snug(args).error("code"), "usage");
}

TEST_F(Contract, AReducedPromptSaysWhatWasRead) {
  const std::string text(200, 'a');
  const std::vector<std::string> more = {"-p", text, "-n", "5", "--ignore-eos", "-c", "64"};
  const auto with = [&](std::vector<std::string> last) {
    auto args = Run(more);
    args.insert(args.end(), last.begin(), last.end());
    args.push_back("--json");
    return Snug(args);
  };
  EXPECT_EQ(with({}).error("code"), "does_not_fit");
  const Outcome o = with({"--reduce", "gemfilter:keep=32,layer=1,last=4"});
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  const Json j = o.json(), r = j["reduce"];
  Has(r, {"method", "layer", "read_tokens", "read", "choose_ms", "read_ms"});
  EXPECT_EQ(j["prompt_tokens"], 200);
  EXPECT_EQ(j["tokens"].size(), 5u);
  EXPECT_EQ(r["layer"], 1);
  EXPECT_EQ(r["read_tokens"], 32);
  EXPECT_EQ(r["read"].back(), 199);
  EXPECT_LE(j["memory"]["rss_peak"].get<uint64_t>(), j["memory"]["planned"].get<uint64_t>());
  const Outcome longer = with({"--reduce", "gemfilter:keep=32", "--prompt-size", "150"});
  EXPECT_EQ(longer.error("code"), "does_not_fit");
  EXPECT_NE(longer.error("next").find("--prompt-size"), std::string::npos) << longer.out;
  EXPECT_EQ(with({"--reduce", "gemfilter:keep=32,layer=2"}).error("code"), "usage");
  const Outcome plan = Snug({"plan", model_, "--memory", "128MiB", "-c", "64", "--reduce",
                             "gemfilter:keep=32", "--json"});
  ASSERT_EQ(plan.code, 0) << plan.out;
  EXPECT_EQ(plan.json()["reduce"]["prompt"], 256);
  EXPECT_EQ(plan.json()["reduce"]["read"], 32);
  const Outcome whole =
      Snug({"eval", model_, "--text", "-", "--reduce", "gemfilter", "--json"}, text);
  EXPECT_EQ(whole.code, 2) << whole.out;
}

TEST_F(Contract, PromptsComeFromThreePlaces) {
  const Json given = Snug(Run({"-p", "a prompt", "-n", "3", "--json"})).json()["tokens"];
  EXPECT_EQ(given.size(), 3u);
  EXPECT_EQ(Snug(Run({"-n", "3", "--json"}), "a prompt").json()["tokens"], given);
  EXPECT_EQ(Snug(Run({"-n", "3", "-f", "-", "--json"}), "a prompt").json()["tokens"], given);
  const std::string path = testing::TempDir() + "/prompt";
  std::ofstream(path) << "a prompt";
  EXPECT_EQ(Snug(Run({"-n", "3", "-f", path, "--json"})).json()["tokens"], given);
  EXPECT_EQ(Snug(Run({"-f", path + "-absent", "--json"})).error("code"), "bad_file");
  // A prompt that was given as empty is not looked for elsewhere.
  const Outcome empty = Snug(Run({"-p", "", "--json"}), "a prompt");
  EXPECT_EQ(empty.code, 3) << empty.out;
  EXPECT_EQ(empty.error("code"), "bad_input");
  // More bytes than the context's tokens can stand for.
  const Outcome endless = Snug(Run({"-c", "64", "--json"}), std::string(1 << 20, 'x'));
  EXPECT_EQ(endless.code, 4) << endless.out;
  EXPECT_EQ(endless.json()["error"]["values"]["prompt_bytes"], 1 << 20);
  // A text that would itself not fit the budget is not even read.
  const Outcome large = Snug(Run({"--json"}), std::string(33 << 20, 'x'));
  EXPECT_EQ(large.code, 3);
  EXPECT_NE(large.error("message").find("standard input"), std::string::npos) << large.out;
}

TEST_F(Contract, ContextOverflowIsRefusedBeforeTheWeightsAreRead) {
  testing::TinyModel wide;
  std::string bytes = wide.Bytes();
  const std::string path = testing::TempDir() + "/m.gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  const Outcome o =
      Snug({"run", path, "--memory", "128MiB", "-c", "64", "-p", "hello", "-n", "60", "--json"});
  EXPECT_EQ(o.code, 4);
  EXPECT_EQ(o.error("code"), "does_not_fit");
  const Json values = o.json()["error"]["values"];
  EXPECT_EQ(values["prompt_tokens"], 5);
  EXPECT_EQ(values["max_tokens"], 60);
  EXPECT_EQ(values["context"], 64);
  EXPECT_NE(o.error("next").find("--ctx-size 65"), std::string::npos) << o.out;
  EXPECT_NE(o.error("next").find("-n 59"), std::string::npos) << o.out;
  // One less fits exactly.
  EXPECT_EQ(Snug({"run", path, "--memory", "128MiB", "-c", "64", "-p", "hello", "-n", "59"}).code,
            0);
}

TEST_F(Contract, Tokenize) {
  const Outcome there = Snug({"tokenize", model_, "--json"}, "the<|im_end|>");
  ASSERT_EQ(there.code, 0) << there.err;
  EXPECT_EQ(there.json()["tokens"], Json({257, 258}));
  const Outcome plain = Snug({"tokenize", model_, "--json", "--no-special"}, "the<|im_end|>");
  EXPECT_EQ(plain.json()["tokens"].size(), 11u);
  const Outcome back = Snug({"tokenize", model_, "--decode", "--json"}, there.out);
  EXPECT_EQ(back.json()["text"], "the<|im_end|>");
  for (const char* bad : {"[259]", "[-1]", "[1.5]", "[99999999999]", "[", "{}", "[\"a\"]", "7"}) {
    const Outcome o = Snug({"tokenize", model_, "--decode", "--json"}, bad);
    EXPECT_EQ(o.code, 3) << bad;
    EXPECT_EQ(o.error("code"), "bad_input") << bad;
  }
}

TEST_F(Contract, EvalOfTokens) {
  const std::string dir = testing::TempDir();
  std::ofstream(dir + "/t.json") << R"({"tokens":[1,2,3,257]})";
  const Outcome o = Snug({"eval", model_, "--tokens", dir + "/t.json", "--logits", dir + "/l",
                          "--memory", "128MiB", "--json"});
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  Has(o.json(), {"ppl", "nll", "tokens"});
  auto file = SafetensorsFile::Open(dir + "/l");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->Find("logits")->shape, (std::vector<uint64_t>{4, 259}));
  std::ofstream(dir + "/t.json") << "[1, 4294967298]";
  EXPECT_EQ(Snug({"eval", model_, "--tokens", dir + "/t.json", "--json"}).code, 3);
}

TEST_F(Contract, EvalOfText) {
  const std::string dir = testing::TempDir();
  std::ofstream(dir + "/text") << std::string(300, 'a');
  const std::vector<std::string> eval = {"eval",     model_,   "--text",   dir + "/text",
                                         "-c",       "32",     "--chunks", "2",
                                         "--memory", "128MiB", "--json"};
  auto save = eval, compare = eval;
  save.insert(save.end(), {"--save-reference", dir + "/r"});
  compare.insert(compare.end(), {"--reference", dir + "/r"});
  const Outcome first = Snug(save);
  ASSERT_EQ(first.code, 0) << first.err;
  // As llama-perplexity: of each chunk the second half less one.
  EXPECT_EQ(first.json()["tokens"], 30);
  const Json j = Snug(compare).json();
  Has(j, {"ppl", "nll", "tokens", "kl_mean", "kl_max", "top1"});
  EXPECT_NEAR(j["kl_mean"].get<double>(), 0, 1e-9);
  EXPECT_EQ(j["top1"], 1.0);
  std::ofstream(dir + "/text") << "short";
  EXPECT_EQ(Snug(eval).code, 3);
}

TEST_F(Contract, EvalTellsPositionsApart) {
  const std::string dir = testing::TempDir();
  std::string text;
  for (int i = 0; i < 600; ++i) text += static_cast<char>('a' + i * i % 23);
  std::ofstream(dir + "/text") << text;
  std::vector<std::string> eval = {"eval",     model_,       "--text", dir + "/text", "--prefix",
                                   "100",      "--continue", "60",     "--chunks",    "2",
                                   "--memory", "128MiB",     "--json"};
  auto save = eval;
  save.insert(save.end(), {"--save-reference", dir + "/r"});
  const Json plain = Snug(save).json();
  EXPECT_FALSE(plain.contains("buckets"));
  eval.insert(eval.end(), {"--buckets", "25", "--kv", "bf16", "--reference", dir + "/r"});
  const Outcome o = Snug(eval);
  ASSERT_EQ(o.code, 0) << o.err;
  const Json j = o.json();
  // Tokens 101 to 160 of each text.
  ASSERT_EQ(j["buckets"].size(), 3u);
  double nll = 0, kl = 0, top1 = 0;
  for (size_t i = 0; i < 3; ++i) {
    const Json& b = j["buckets"][i];
    EXPECT_EQ(b["first"], 100 + 25 * i);
    EXPECT_EQ(b["last"], 124 + 25 * i);
    EXPECT_EQ(b["tokens"], i == 0 ? 48 : i == 1 ? 50 : 22);
    Has(b, {"kv_held", "ms_per_token"});
    const auto tokens = b["tokens"].get<double>();
    nll += tokens * b["nll"].get<double>();
    kl += tokens * b["kl_mean"].get<double>();
    top1 += tokens * b["top1"].get<double>();
  }
  EXPECT_NEAR(nll, 120 * j["nll"].get<double>(), 1e-6);
  EXPECT_NEAR(kl, 120 * j["kl_mean"].get<double>(), 1e-6);
  EXPECT_NEAR(top1, 120 * j["top1"].get<double>(), 1e-6);
  EXPECT_NE(j["buckets"][0]["nll"], j["buckets"][1]["nll"]);
  EXPECT_EQ(j["buckets"][2]["kv_held"], j["kv_held"]);
}

// Texts go on past the context, of which -c is what the cache is made for.
TEST_F(Contract, PositionsRoll) {
  const std::string dir = testing::TempDir();
  std::ofstream(dir + "/text") << std::string(900, 'a');
  std::vector<std::string> eval = {
      "eval",     model_,       "--text", dir + "/text", "--prefix",
      "100",      "--continue", "700",    "--kv-keep",   "sink-window:budget=64",
      "--memory", "128MiB",     "--json"};
  const Outcome original = Snug(eval);
  EXPECT_EQ(original.code, 4) << original.out;
  EXPECT_NE(original.json()["error"]["next"].get<std::string>().find("--kv-positions rolling"),
            std::string::npos);
  eval.insert(eval.end(), {"--kv-positions", "rolling", "-c", "128"});
  const Outcome o = Snug(eval);
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  EXPECT_EQ(o.json()["tokens"], 700);
  auto run = Run({"-p", "hello", "-c", "128", "--kv-keep", "sink-window:budget=64", "--ignore-eos",
                  "--kv-positions", "rolling", "--json", "-n"});
  auto endless = run;
  run.push_back("400");
  endless.push_back("-1");
  EXPECT_EQ(Snug(run).json()["tokens"].size(), 400u);
  const Outcome refused = Snug(endless);
  EXPECT_EQ(refused.json()["error"]["code"], "usage") << refused.out;
}

TEST_F(Contract, Bench) {
  const Outcome o = Snug({"bench", "-p", "16,32", "-n", "4", "-d", "0,8", model_, "--kv", "bf16",
                          "-np", "1,2", "-r", "2", "--memory", "256MiB", "--json"});
  ASSERT_EQ(o.code, 0) << o.out << o.err;
  const Json rows = o.json()["rows"];
  ASSERT_EQ(rows.size(), 8u);  // with the prefills that depth 8 takes
  for (const Json& row : rows) {
    Has(row, {"test", "tps", "spread", "gbps", "share_of_limit", "rss_peak", "logits_hash"});
    EXPECT_GT(row["tps"].get<double>(), 0);
    EXPECT_LE(row["rss_peak"].get<uint64_t>(), uint64_t{256} << 20);
  }
}

TEST_F(Contract, PlanFitsOrSaysWhatWould) {
  const Outcome fits = Snug({"plan", model_, "--memory", "128MiB", "-c", "64", "--json"});
  ASSERT_EQ(fits.code, 0) << fits.err;
  const Json j = fits.json();
  Has(j, {"fits", "owners", "peak", "suggestions", "predicted"});
  Has(j["owners"], {"load", "start", "context", "peak"});
  EXPECT_EQ(j["fits"], true);
  EXPECT_TRUE(j["suggestions"].empty());
  const Outcome not_fits = Snug({"plan", model_, "--memory", "2MiB", "-c", "64", "--json"});
  EXPECT_EQ(not_fits.code, 4);
  const Json n = not_fits.json();
  EXPECT_EQ(n["fits"], false);
  ASSERT_FALSE(n["suggestions"].empty());
  const std::string change = n["suggestions"][0]["change"];
  ASSERT_EQ(change.rfind("--memory ", 0), 0u) << change;
  const Outcome followed =
      Snug({"plan", model_, "--memory", change.substr(9), "-c", "64", "--json"});
  EXPECT_EQ(followed.code, 0) << followed.out;
}

TEST_F(Contract, DoctorSaysWhichBoundHolds) {
  const Json j = Snug({"doctor", "--memory", "50%", "--json"}).json();
  Has(j, {"cpu", "threads", "threads_origin", "target", "read_bytes_per_s", "bounds", "auto",
          "budget"});
  uint64_t least = UINT64_MAX;
  std::string name;
  for (const Json& b : j["bounds"]) {
    if (b["free"].get<uint64_t>() >= least) continue;
    least = b["free"].get<uint64_t>();
    name = b["name"].get<std::string>();
  }
  EXPECT_EQ(j["auto"]["bound"], name);
  EXPECT_EQ(j["budget"]["bytes"].get<uint64_t>(), (least - (64u << 20)) / 2);
  EXPECT_EQ(Snug({"doctor", "--memory", "1.5GiB", "--json"}).json()["budget"]["origin"], "given");
}

TEST_F(Contract, Inspect) {
  const Json j = Snug({"inspect", model_, "--tensors", "--json"}).json();
  EXPECT_EQ(j["metadata"]["general.architecture"], "llama");
  EXPECT_EQ(j["types"]["F32"]["tensors"], 20);
  EXPECT_EQ(j["tensors"].size(), 20u);
}

TEST_F(Contract, SplitFilesRunAsOne) {
  const Outcome whole = Snug(Run({"-p", "hello", "-n", "8", "--json"}));
  ASSERT_EQ(whole.code, 0) << whole.err;
  const std::string parts = testing::TinyModel().Write(3);
  const Outcome split =
      Snug({"run", parts, "--memory", "128MiB", "--temp", "0", "-p", "hello", "-n", "8", "--json"});
  ASSERT_EQ(split.code, 0) << split.out << split.err;
  EXPECT_EQ(split.json()["tokens"], whole.json()["tokens"]);
  const Outcome streamed = Snug({"run", parts, "--memory", "128MiB", "--temp", "0", "-p", "hello",
                                 "-n", "8", "--json", "--weights", "stream"});
  ASSERT_EQ(streamed.code, 0) << streamed.out << streamed.err;
  EXPECT_EQ(streamed.json()["tokens"], whole.json()["tokens"]);
  std::filesystem::remove(parts.substr(0, parts.find("-00001")) + "-00002-of-00003.gguf");
  const Outcome missing = Snug({"plan", parts, "--json"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_NE(missing.error("message").find("part 2"), std::string::npos) << missing.out;
}

// What the operating system refuses is an error like any other.
TEST_F(Contract, RefusalsOfTheSystemAreTyped) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need the address space";
#endif
  testing::Run run{Run({"-p", "hello", "-t", "64", "--json"}), "", false, {}, 256u << 20};
  const Outcome threads = Snug(run);
  EXPECT_EQ(threads.code, 3) << threads.out << threads.err;
  EXPECT_EQ(threads.error("code"), "io") << threads.out;
  run = {Run({"-p", "hello", "-t", "1", "--json"}), "", false, {}, 0};
  bool ran = false;
  for (uint64_t mib = 8; mib <= 256 && !ran; mib += 8) {
    run.address_space = mib << 20;
    const Outcome o = Snug(run);
    if (o.code == 127 || o.code == 98) continue;  // the loader itself had no room
    ran = o.code == 0;
    EXPECT_TRUE(ran || o.code == 3 || o.code == 4) << mib << ": " << o.code << o.out << o.err;
    if (!ran && !o.out.empty()) {
      EXPECT_FALSE(o.error("message").empty());
    }
  }
  EXPECT_TRUE(ran);
}

TEST_F(Contract, OutputThatCannotBeWrittenIsAnError) {
  const Outcome o = Snug({"inspect", model_, "--json"});
  EXPECT_EQ(o.code, 0);
  const std::string command =
      testing::ProgramPath() + " inspect " + model_ + " > /dev/full 2>/dev/null";
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST_F(Contract, AnInterruptKeepsTheText) {
  testing::TinyModel model;
  model.context = 1 << 17;
  model.layers = 8;
  const std::vector<std::string> args = {"run", model.Write(), "--memory",    "1GiB",
                                         "-n",  "-1",          "-c",          "0",
                                         "-p",  "hello",       "--ignore-eos"};
  const Outcome o = Snug(testing::Run{args, "", true, {}, 0});
  EXPECT_EQ(o.code, 5) << o.err;
  EXPECT_FALSE(o.out.empty());
  EXPECT_NE(o.err.find("cancelled"), std::string::npos) << o.err;
}

TEST_F(Contract, VersionIsSmall) {
  const Outcome o = Snug({"--version"});
  ASSERT_EQ(o.code, 0);
  EXPECT_NE(o.out.find("snug "), std::string::npos);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const size_t at = o.out.find("peak memory ");
  ASSERT_NE(at, std::string::npos) << o.out;
  const auto bytes = ParseBytes(o.out.substr(at + 12, o.out.find(')') - at - 12));
  ASSERT_TRUE(bytes.ok()) << o.out;
  EXPECT_LE(*bytes, 15 * kMiB);
#endif
}

}  // namespace
}  // namespace snug
