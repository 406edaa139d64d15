// Which ways to hold a cache go together: every pair is tried on a tiny model, and what happens is
// what docs/methods/matrix.md says. SNUG_WRITE_DOCS=1 writes that page anew.
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>

#include "base/file.h"
#include "engine/generate.h"
#include "engine_testing.h"
#include "kv/codec/codec.h"
#include "kv/keep/keep.h"
#include "kv/place/place.h"
#include "kv/read/read.h"
#include "kv/share/share.h"
#include "tiny_model.h"
#include "tokens/reduce/reduce.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;

// One way to hold a cache, or to run over it: what it is called, and how it is asked for.
struct Choice {
  std::string name;
  std::function<void(EngineOptions&)> set;
};

constexpr uint32_t kPrompt = 170, kTokens = 200;  // as ExpectSameInABatch has them

// Parameters with which every method has something to do in so many tokens.
const std::map<std::string, std::string, std::less<>> kSmall = {
    {"block-sparse", "block-sparse:queries=32,keys=16,density=1/4"},
    {"dhsa", "dhsa:queries=32,keys=16,density=1/4"},
    {"double-sparsity", "double-sparsity:tokens=40,dense-layers=1,channels=1/2"},
    {"gemfilter", "gemfilter:keep=90"},
    {"kivi", "kivi:group=16,residual=32"},
    {"million", "million:residual=64"},
    {"quest", "quest:tokens=48,dense-layers=1"},
    {"snapkv", "snapkv:budget=70,answer=10"},
    {"windowkv", "windowkv:budget=70,group=2,answer=10"},
    {"zipcache", "zipcache:gap=20"},
};
std::string Small(std::string_view name, const std::string& otherwise) {
  const auto it = kSmall.find(name);
  return it == kSmall.end() ? std::string(name) + otherwise : it->second;
}

std::vector<Choice> Types(const std::string& codebooks, const std::string& permutation) {
  std::vector<Choice> all;
  for (const KvType type :
       {KvType::kF16, KvType::kBF16, KvType::kQ8_0, KvType::kQ4_0, KvType::kF8E4M3}) {
    all.push_back({std::string(KvTypeName(type)),
                   [type](EngineOptions& o) { o.key_type = o.value_type = type; }});
  }
  for (const CodecEntry* e : Codecs()) {
    auto codec = ParseCodec(Small(e->name, ""));
    EXPECT_TRUE(codec.ok()) << e->name;
    all.push_back({std::string(e->name), [c = *codec, codebooks, permutation](EngineOptions& o) {
                     o.codec = c;
                     if (c->needs_codebooks()) o.codebooks = codebooks;
                     if (c->needs_order()) o.permutation = permutation;
                   }});
  }
  return all;
}
std::vector<Choice> Keeps() {
  std::vector<Choice> all;
  for (const KeepEntry* e : KeepMethods()) {
    auto keep = ParseKeep(Small(e->name, ":budget=70"));
    EXPECT_TRUE(keep.ok()) << e->name;
    all.push_back({std::string(e->name), [k = *keep](EngineOptions& o) { o.keep = k; }});
  }
  return all;
}
std::vector<Choice> Reads(const std::string& channels) {
  std::vector<Choice> all;
  for (const ReadEntry* e : ReadMethods()) {
    auto read = ParseRead(Small(e->name, ""));
    EXPECT_TRUE(read.ok()) << e->name;
    all.push_back({std::string(e->name), [r = *read, channels](EngineOptions& o) {
                     o.read = r;
                     if (r->needs_channels()) o.channels = channels;
                   }});
  }
  return all;
}
std::vector<Choice> Shares() {
  std::vector<Choice> all;
  for (const ShareEntry* e : ShareMethods()) {
    auto share = ParseShare(Small(e->name, ""));
    EXPECT_TRUE(share.ok()) << e->name;
    all.push_back({std::string(e->name), [s = *share](EngineOptions& o) { o.share = s; }});
  }
  return all;
}
// Places by themselves, and with what chooses the rows that come from there.
std::vector<Choice> PlacesOfRows(bool chosen) {
  std::vector<Choice> all;
  for (const PlaceEntry* e : Places()) {
    auto place = ParsePlace(Small(e->name, ""));
    auto read = ParseRead(Small("quest", ""));
    EXPECT_TRUE(place.ok() && read.ok()) << e->name;
    all.push_back({(chosen ? "quest, " : "") + std::string(e->name),
                   [p = *place, r = *read, chosen](EngineOptions& o) {
                     o.kv_place = p;
                     if (chosen) o.read = r;
                   }});
  }
  return all;
}
std::vector<Choice> Reduces() {
  std::vector<Choice> all;
  for (const ReduceEntry* e : ReduceMethods()) {
    auto reduce = ParseReduce(Small(e->name, ""));
    EXPECT_TRUE(reduce.ok()) << e->name;
    all.push_back({std::string(e->name), [r = *reduce](EngineOptions& o) {
                     o.reduce = r;
                     o.prompt = kPrompt;
                   }});
  }
  return all;
}
std::vector<Choice> Runs() {
  return {{"streamed weights", [](EngineOptions& o) { o.place = PlaceChoice::kStream; }},
          {"several sequences", [](EngineOptions& o) { o.sequences = 3; }},
          {"rolling positions", [](EngineOptions& o) { o.rolling = true; }},
          {"lookup", [](EngineOptions& o) { o.lookup = true; }}};
}

// Answers with drafts are those without.
void ExpectDraftsChangeNothing(EngineOptions o) {
  std::vector<Token> prompt = SomeTokens(60, 256);
  prompt.insert(prompt.end(), prompt.begin(), prompt.end());
  GenerateOptions g;
  g.max_tokens = 40;
  g.ignore_eos = true;
  g.sampling.temperature = 0;
  std::vector<Token> answers[2];
  for (const bool lookup : {false, true}) {
    o.lookup = g.lookup = lookup;
    auto engine = OpenOrFail(o);
    ASSERT_NE(engine, nullptr);
    const auto answer = Generate(*engine, 0, prompt, g);
    ASSERT_TRUE(answer.ok());
    answers[lookup ? 1 : 0] = answer->tokens;
  }
  EXPECT_EQ(answers[0], answers[1]);
}

// "proven": it ran, the plan equals the ledger, and neither the chunks of the prompt nor the number
// of threads changed a logit of it or of the tokens that follow. Otherwise the refusal.
std::string Try(EngineOptions o) {
  auto plan = PlanFile(o);
  if (!plan.ok()) {
    EXPECT_EQ(plan.error().code, Code::kUsage) << plan.error().message;
    return plan.error().message;
  }
  std::vector<std::vector<float>> reference;
  for (const uint32_t chunk : {64u, 7u}) {
    o.chunk = chunk;
    o.threads = chunk == 7 ? 3 : 2;
    auto engine = OpenOrFail(o);
    if (engine == nullptr) return "failed to open";
    // Drafts are held by who makes them.
    if (!o.lookup) testing::ExpectLedgerHoldsThePlan(*engine, "");
    auto tokens = SomeTokens(kTokens, engine->config().vocab);
    uint32_t prompt = kPrompt;
    if (o.reduce != nullptr) {
      // What follows is that of the tokens that are read.
      const auto read = engine->Reduce(std::span(tokens).first(kPrompt), nullptr);
      EXPECT_TRUE(read.ok());
      if (!read.ok()) return "failed to choose";
      prompt = static_cast<uint32_t>(read->size());
      for (uint32_t i = 0; i < prompt; ++i) tokens[i] = tokens[(*read)[i]];
      tokens.erase(tokens.begin() + prompt, tokens.begin() + kPrompt);
    }
    const auto rows = testing::PromptAndTokens(*engine, 0, tokens, prompt);
    if (reference.empty()) reference = rows;
    EXPECT_EQ(rows, reference);
    if (o.sequences > 1 && o.reduce == nullptr) {
      engine->Clear(0);
      testing::ExpectSameInABatch(
          *engine, tokens, [&](size_t i) { return reference[i - (kPrompt - 1)]; }, "");
    }
  }
  if (o.lookup) ExpectDraftsChangeNothing(o);
  return "proven";
}

class Page {
 public:
  explicit Page(const EngineOptions& base) : base_(base) {}

  void Table(const std::string& title, const std::vector<Choice>& down,
             const std::vector<Choice>& across) {
    text_ += fmt::format("\n## {}\n\n| |", title);
    for (const Choice& c : across) text_ += fmt::format(" {} |", c.name);
    text_ += "\n|---|";
    for (size_t i = 0; i < across.size(); ++i) text_ += "---|";
    text_ += "\n";
    for (const Choice& d : down) {
      text_ += fmt::format("| {} |", d.name);
      for (const Choice& a : across) {
        SCOPED_TRACE(d.name + " with " + a.name);
        EngineOptions o = base_;
        d.set(o);
        a.set(o);
        const std::string found = Try(o);
        text_ += found == "proven"
                     ? " proven |"
                     : fmt::format(" refused ({}) |", Number(found, {d.name, a.name}));
      }
      text_ += "\n";
    }
  }
  std::string Finish() {
    text_ += "\n## Reasons\n\n";
    for (size_t i = 0; i < reasons_.size(); ++i) {
      text_ += fmt::format("{}. {}\n", i + 1, reasons_[i]);
    }
    return text_;
  }

 private:
  // Refusals by number; which methods they name, and their parameters, are no part of a reason.
  size_t Number(std::string reason, std::initializer_list<std::string> names) {
    for (const auto& [name, spec] : kSmall) Replace(&reason, spec, name);
    Replace(&reason, ":budget=70", "");
    for (const std::string& name : names) Replace(&reason, " " + name, " METHOD");
    const auto it = std::find(reasons_.begin(), reasons_.end(), reason);
    if (it != reasons_.end()) return static_cast<size_t>(it - reasons_.begin()) + 1;
    reasons_.push_back(reason);
    return reasons_.size();
  }
  static void Replace(std::string* text, const std::string& what, const std::string& with) {
    for (size_t at = text->find(what); at != std::string::npos;
         at = text->find(what, at + with.size())) {
      text->replace(at, what.size(), with);
    }
  }

  const EngineOptions base_;
  std::vector<std::string> reasons_;
  std::string text_ =
      "# What goes together\n\n"
      "Written by tests/engine/matrix_test.cc (`SNUG_WRITE_DOCS=1`), which tries every pair on a "
      "small\n"
      "model and fails where this page says something else. *Proven*: it ran, the ledger held what "
      "the\n"
      "plan said, and neither chunks nor threads, nor other sequences or drafts where there are "
      "some,\n"
      "changed a bit. *Refused*: the plan says no, with the reason below. Caches are f16 unless "
      "said.\n";
};

TEST(Matrix, PairsAreAsThePageSays) {
  EngineOptions base = testing::TinyOptions("");
  testing::TinyModel model;
  model.layers = 4;
  model.dim = 64;  // heads of 32, which every type encodes
  base.model_path = model.Write();
  const std::string channels = testing::RankChannels(base, "matrix");
  Page page(base);
  std::vector<Choice> others = Keeps();
  for (const Choice& c : Reads(channels)) others.push_back(c);
  for (const Choice& c : Shares()) others.push_back(c);
  for (const Choice& c : PlacesOfRows(true)) others.push_back(c);
  for (const Choice& c : Runs()) others.push_back(c);
  page.Table("How rows are encoded", others,
             Types(testing::LearnCodebooks(base, 2, false), testing::OrderKeys(base)));
  std::vector<Choice> across = Reads(channels);
  for (const Choice& c : Shares()) across.push_back(c);
  for (const Choice& c : PlacesOfRows(false)) across.push_back(c);
  for (const Choice& c : Runs()) across.push_back(c);
  page.Table("Which rows stay", Keeps(), across);
  across.erase(across.begin(), across.begin() + static_cast<ptrdiff_t>(ReadMethods().size()));
  page.Table("Which rows are read", Reads(channels), across);
  std::vector<Choice> beside = PlacesOfRows(false);
  for (const Choice& c : Runs()) beside.push_back(c);
  page.Table("Which layers share rows", Shares(), beside);
  page.Table("Where rows live", PlacesOfRows(true), Runs());
  page.Table("Which tokens of a prompt are read: encodings", Reduces(),
             Types(testing::LearnCodebooks(base, 2, false), testing::OrderKeys(base)));
  std::vector<Choice> after = Keeps();
  for (const Choice& c : Reads(channels)) after.push_back(c);
  for (const Choice& c : Shares()) after.push_back(c);
  for (const Choice& c : PlacesOfRows(true)) after.push_back(c);
  for (const Choice& c : Runs()) after.push_back(c);
  page.Table("Which tokens of a prompt are read: the rest", Reduces(), after);
  const std::string want = page.Finish(), path = testing::SourcePath("docs/methods/matrix.md");
  if (std::getenv("SNUG_WRITE_DOCS") != nullptr) std::ofstream(path) << want;
  const auto have = ReadWholeFile(path, 1 << 20);
  ASSERT_TRUE(have.ok());
  EXPECT_EQ(*have, want) << "SNUG_WRITE_DOCS=1 writes it anew";
}

}  // namespace
}  // namespace snug
