// Prompts of which not all tokens are read, in whole models: what chooses is what the layers give,
// the answer is that of the tokens that were chosen, nothing of the first pass stays, plan and
// ledger are equal, refusals by name.
#include "tokens/reduce/reduce.h"

#include <cmath>

#include "engine/chat.h"
#include "engine/generate.h"
#include "engine_testing.h"
#include "format/tensor_rows.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SameBits;
using testing::SomeTokens;
using testing::TinyOptions;

constexpr uint32_t kLongPrompt = 400, kTokensRead = 60;
constexpr const char* kReduceSpec = "gemfilter:keep=60";
constexpr const char* kReduceArchs[] = {"llama",   "qwen2", "qwen3", "gemma2",  "gemma3",
                                        "gpt-oss", "phi3",  "olmoe", "mixtral", "smollm3"};

// A context of 100 tokens for prompts of 400.
EngineOptions ReduceOptions(const std::string& arch, const std::string& spec = kReduceSpec) {
  EngineOptions o = TinyOptions(arch);
  o.context = 100;
  o.prompt = kLongPrompt;
  o.logit_rows = 1;
  auto method = ParseReduce(spec);
  EXPECT_TRUE(method.ok()) << spec;
  if (method.ok()) o.reduce = *method;
  return o;
}

std::vector<uint32_t> ChosenTokens(Engine& engine, std::span<const Token> tokens) {
  auto chosen = engine.Reduce(tokens, nullptr);
  EXPECT_TRUE(chosen.ok()) << chosen.error().message;
  return chosen.ok() ? *chosen : std::vector<uint32_t>();
}

std::vector<Token> PickTokens(std::span<const Token> tokens, const std::vector<uint32_t>& chosen) {
  std::vector<Token> picked;
  for (const uint32_t t : chosen) picked.push_back(tokens[t]);
  return picked;
}

std::vector<float> PromptLogits(Engine& engine, std::span<const Token> prompt) {
  engine.Clear(0);
  const Status status = engine.Prefill(0, prompt, nullptr);
  EXPECT_TRUE(status.ok());
  return {engine.logits(0).begin(), engine.logits(0).end()};
}

// Scores of the layers [first, last], [layers][heads * tokens].
std::vector<std::vector<float>> ScanLayers(Engine& engine, std::span<const Token> tokens,
                                           uint32_t first, uint32_t last) {
  std::vector<std::vector<float>> all;
  const Status status =
      engine.ScanPrompt(tokens, first, last, nullptr, [&](uint32_t layer, const PromptScores& s) {
        EXPECT_EQ(layer, first + all.size());
        EXPECT_EQ(s.tokens, tokens.size());
        EXPECT_EQ(s.heads, engine.config().heads);
        all.emplace_back(s.dots, s.dots + size_t{s.heads} * s.stride);
        return Status{};
      });
  EXPECT_TRUE(status.ok());
  return all;
}

// The first layer's queries and keys of a model in float32, worked out in double from its file.
class FirstLayer {
 public:
  explicit FirstLayer(const Engine& engine) : c_(engine.config()), file_(engine.file()) {}

  // Rotated heads [heads, head_dim] of the token at `position`.
  std::vector<double> Project(const std::string& name, Token token, uint32_t position) const {
    const std::vector<double> x = Row("token_embd.weight", static_cast<uint64_t>(token));
    const std::vector<double> norm = Row("blk.0.attn_norm.weight", 0);
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double root = std::sqrt(squares / c_.dim + c_.eps);
    std::vector<double> out(file_.Find("blk.0." + name + ".weight")->rows());
    const bool biased = file_.Find("blk.0." + name + ".bias") != nullptr;
    const std::vector<double> bias =
        biased ? Row("blk.0." + name + ".bias", 0) : std::vector<double>(out.size());
    for (size_t r = 0; r < out.size(); ++r) {
      const std::vector<double> w = Row("blk.0." + name + ".weight", r);
      out[r] = bias[r];
      for (size_t i = 0; i < x.size(); ++i) out[r] += w[i] * x[i] / root * norm[i];
    }
    const uint32_t half = c_.rope.dim / 2;
    for (size_t head = 0; head < out.size(); head += c_.head_dim) {
      for (uint32_t i = 0; i < half; ++i) {
        const double angle = position * std::pow(c_.rope.base, -2.0 * i / c_.rope.dim);
        double& a = out[head + (c_.rope.interleaved ? 2 * i : i)];
        double& b = out[head + (c_.rope.interleaved ? 2 * i + 1 : i + half)];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = turned;
      }
    }
    return out;
  }

 private:
  std::vector<double> Row(const std::string& name, uint64_t row) const {
    const TensorInfo* info = file_.Find(name);
    EXPECT_NE(info, nullptr) << name;
    std::vector<uint8_t> buffer(RowBufferBytes(*info));
    std::vector<float> values(info->cols());
    EXPECT_TRUE(ReadRow(file_.files(), *info, row, buffer, values.data()).ok());
    return {values.begin(), values.end()};
  }
  const ModelConfig& c_;
  const ModelFile& file_;
};

TEST(EngineReduce, ScoresAreTheLastQueryTimesEveryKey) {
  for (const char* arch : {"llama", "qwen2"}) {
    EngineOptions o = ReduceOptions(arch, "gemfilter:keep=60,layer=0");
    SNUG_NEED(o.model_path);
    o.exact = true;
    auto engine = OpenOrFail(o);
    const ModelConfig& c = engine->config();
    const auto tokens = SomeTokens(90, c.vocab);
    const std::vector<float> dots = ScanLayers(*engine, tokens, 0, 0)[0];
    const FirstLayer layer(*engine);
    const auto q = layer.Project("attn_q", tokens.back(), 89);
    for (uint32_t t = 0; t < 90; ++t) {
      const auto k = layer.Project("attn_k", tokens[t], t);
      ASSERT_EQ(k.size(), size_t{c.kv_heads} * c.head_dim);
      for (uint32_t h = 0; h < c.heads; ++h) {
        double dot = 0;
        for (uint32_t i = 0; i < c.head_dim; ++i) {
          dot += q[h * c.head_dim + i] * k[h * c.kv_heads / c.heads * c.head_dim + i];
        }
        EXPECT_NEAR(dots[h * 90 + t], dot, 2e-5 * (1 + std::abs(dot))) << arch << " " << t;
      }
    }
  }
}

// Where a layer ends at its keys it scores what it scores where all of it runs; neither chunks nor
// threads nor streamed weights change a bit, nor what the cache of the second pass is.
TEST(EngineReduce, ScoresDependOnThePromptAlone) {
  for (const char* arch : kReduceArchs) {
    EngineOptions o = ReduceOptions(arch);
    SNUG_NEED(o.model_path);
    auto whole = OpenOrFail(o);
    const auto tokens = SomeTokens(kLongPrompt, whole->config().vocab);
    const uint32_t last = whole->config().layers - 1;
    const auto scores = ScanLayers(*whole, tokens, 0, last);
    ASSERT_EQ(scores.size(), last + 1);
    for (uint32_t l = 0; l <= last; ++l) {
      EXPECT_TRUE(SameBits(ScanLayers(*whole, tokens, l, l)[0], scores[l])) << arch << " " << l;
    }
    for (const uint32_t chunk : {7u, 33u, kLongPrompt}) {
      o.chunk = chunk;
      o.threads = chunk == 7 ? 3 : 1;
      o.place = chunk == kLongPrompt ? PlaceChoice::kStream : PlaceChoice::kAuto;
      o.codec = chunk == 7 ? *ParseCodec("kivi:residual=32,group=16") : nullptr;
      auto engine = OpenOrFail(o);
      EXPECT_TRUE(SameBits(ScanLayers(*engine, tokens, last, last)[0], scores[last]))
          << arch << " " << chunk;
      EXPECT_EQ(ChosenTokens(*engine, tokens), ChosenTokens(*whole, tokens))
          << arch << " " << chunk;
    }
  }
}

// What the second pass gives is what the plain model gives of those tokens, however its cache is
// held.
TEST(EngineReduce, AnswersAreThoseOfTheChosenTokens) {
  const std::function<void(EngineOptions&)> kReduceCaches[] = {
      [](EngineOptions&) {},
      [](EngineOptions& o) { o.codec = *ParseCodec("kivi:residual=32,group=16"); },
      [](EngineOptions& o) { o.keep = *ParseKeep("h2o:budget=40"); },
      [](EngineOptions& o) { o.keep = *ParseKeep("snapkv:budget=40,answer=10"); },
      [](EngineOptions& o) { o.read = *ParseRead("quest:tokens=32,dense-layers=1"); },
  };
  for (const char* arch : kReduceArchs) {
    SNUG_NEED(ReduceOptions(arch).model_path);
    for (size_t i = 0; i < std::size(kReduceCaches); ++i) {
      const auto& set = kReduceCaches[i];
      if (i > 0 && arch != std::string("llama") && arch != std::string("gemma3")) continue;
      EngineOptions o = ReduceOptions(arch), plain = o;
      plain.reduce = nullptr;
      set(o);
      set(plain);
      auto reducing = OpenOrFail(o), dense = OpenOrFail(plain);
      const auto tokens = SomeTokens(kLongPrompt, dense->config().vocab);
      const auto chosen = ChosenTokens(*reducing, tokens);
      ASSERT_EQ(chosen.size(), kTokensRead);
      EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
      EXPECT_EQ(std::adjacent_find(chosen.begin(), chosen.end()), chosen.end());
      EXPECT_LT(chosen.back(), kLongPrompt);
      const auto picked = PickTokens(tokens, chosen);
      EXPECT_EQ(testing::PromptAndTokens(*reducing, 0, picked, 50),
                testing::PromptAndTokens(*dense, 0, picked, 50))
          << arch;
      GenerateOptions g;
      g.max_tokens = 20;
      g.sampling.temperature = 0;
      g.ignore_eos = true;
      reducing->Clear(0);
      dense->Clear(0);
      const auto got = Generate(*reducing, 0, tokens, g), want = Generate(*dense, 0, picked, g);
      ASSERT_TRUE(got.ok() && want.ok()) << arch;
      EXPECT_EQ(got->tokens, want->tokens) << arch;
      EXPECT_EQ(got->read, chosen);
      EXPECT_EQ(got->prompt_tokens, kLongPrompt);
      EXPECT_GT(got->reduce_s, 0);
      EXPECT_GE(got->prefill_s, got->reduce_s);
    }
  }
}

TEST(EngineReduce, ShortPromptsAreReadWhole) {
  EngineOptions o = ReduceOptions("qwen2");
  SNUG_NEED(o.model_path);
  auto reducing = OpenOrFail(o);
  o.reduce = nullptr;
  auto dense = OpenOrFail(o);
  GenerateOptions g;
  g.max_tokens = 10;
  g.sampling.temperature = 0;
  for (const uint32_t n : {1u, kTokensRead - 1, kTokensRead}) {
    const auto tokens = SomeTokens(n, dense->config().vocab);
    EXPECT_EQ(ChosenTokens(*reducing, tokens).size(), n);
    const auto got = Generate(*reducing, 0, tokens, g), want = Generate(*dense, 0, tokens, g);
    ASSERT_TRUE(got.ok() && want.ok());
    EXPECT_EQ(got->tokens, want->tokens);
  }
}

TEST(EngineReduce, NothingOfTheFirstPassStays) {
  for (const PlaceChoice place : {PlaceChoice::kResident, PlaceChoice::kStream}) {
    EngineOptions o = ReduceOptions("llama", "gemfilter:keep=60,layer=2");
    SNUG_NEED(o.model_path);
    o.place = place;
    o.sequences = 2;
    auto engine = OpenOrFail(o);
    const auto tokens = SomeTokens(kLongPrompt, engine->config().vocab);
    // A sequence that lives meanwhile goes on as if nothing had been.
    const auto alone = testing::PromptAndTokens(*engine, 1, std::span(tokens).first(80), 70);
    engine->Clear(1);
    ASSERT_TRUE(engine->Prefill(1, std::span(tokens).first(70), nullptr).ok());
    const uint64_t held = engine->kv_bytes_held();
    const auto chosen = ChosenTokens(*engine, tokens);
    EXPECT_EQ(engine->kv_bytes_held(), held);
    EXPECT_EQ(engine->length(0), 0u);
    const uint64_t reserved = engine->ledger().snapshot().total;
    for (const uint32_t at : {1u, 130u, kLongPrompt - 1}) {
      uint32_t shown = 0;
      const auto cancelled = engine->Reduce(tokens, [&](uint32_t done, uint32_t total) {
        EXPECT_EQ(total, kLongPrompt);
        EXPECT_GE(done, shown);
        shown = done;
        return done < at;
      });
      ASSERT_FALSE(cancelled.ok());
      EXPECT_EQ(cancelled.error().code, Code::kCancelled);
      EXPECT_EQ(engine->kv_bytes_held(), held);
      EXPECT_EQ(ChosenTokens(*engine, tokens), chosen);
    }
    for (size_t i = 70; i < 80; ++i) {
      const StepItem item{1, std::span(tokens).subspan(i, 1), StepItem::Logits::kLast};
      ASSERT_TRUE(engine->Step({&item, 1}).ok());
      EXPECT_TRUE(SameBits(engine->logits(0), alone[i - 69]));
    }
    EXPECT_EQ(engine->ledger().snapshot().total, reserved);
  }
}

// Of streamed weights the first pass reads the layers up to the one that decides, and what the next
// pass begins with.
TEST(EngineReduce, TheFirstPassReadsTheFirstLayers) {
  testing::TinyModel model;
  model.layers = 16;
  model.dim = 128;
  model.ffn = 512;  // a layer takes 1 MiB
  model.context = 1024;
  EngineOptions o = ReduceOptions("", "gemfilter:keep=60,layer=4");
  o.model_path = model.Write();
  o.place = PlaceChoice::kStream;
  o.stream.slots = 2;
  o.budget.bytes = kMiB;
  auto plan = PlanFile(o);
  ASSERT_TRUE(plan.ok());
  o.budget.bytes = plan->peak_total;  // the least there is: hardly a layer stays in memory
  auto engine = OpenOrFail(o);
  ASSERT_NE(engine, nullptr);
  const PlaceStats before = engine->place().stats();
  ChosenTokens(*engine, SomeTokens(kLongPrompt, 256));
  const uint64_t loads = engine->place().stats().loads - before.loads;
  const uint32_t pinned = engine->plan().stream.pinned;
  ASSERT_LE(pinned, 1u);
  EXPECT_GE(loads + pinned, 5u);
  EXPECT_LE(loads, 5u + o.stream.slots);
}

TEST(EngineReduce, PlanAndLedgerAreEqual) {
  for (const char* arch : kReduceArchs) {
    SNUG_NEED(ReduceOptions(arch).model_path);
    for (const char* keep : {"", "h2o:budget=40"}) {
      EngineOptions o = ReduceOptions(arch);
      o.sequences = 2;
      o.context = 300;
      if (*keep != 0) o.keep = *ParseKeep(keep);
      EngineOptions plain = o;
      plain.reduce = nullptr;
      const auto dense = PlanFile(plain);
      ASSERT_TRUE(dense.ok());
      auto engine = OpenOrFail(o);
      testing::ExpectLedgerHoldsThePlan(*engine, arch);
      const auto tokens = SomeTokens(kLongPrompt, engine->config().vocab);
      PromptLogits(*engine, PickTokens(tokens, ChosenTokens(*engine, tokens)));
      testing::ExpectLedgerHoldsThePlan(*engine, arch);
      const MemoryPlan& p = engine->plan();
      // One layer's keys and values of the longest prompt.
      EXPECT_GT(p.kv_bytes, dense->kv_bytes);
      EXPECT_LE(p.kv_bytes,
                dense->kv_bytes +
                    Buffer::Reserved((kLongPrompt + 63) / 64 * p.kv_tile_bytes, Pages::kNormal));
      EXPECT_EQ(p.hidden_bytes,
                Buffer::Reserved(uint64_t{kLongPrompt} * engine->config().dim * 4, Pages::kNormal));
    }
  }
}

// Every question is answered from the tokens that it chooses itself, of the whole conversation.
TEST(EngineReduce, ConversationsChooseAnewInEveryTurn) {
  EngineOptions o = ReduceOptions("qwen2", "gemfilter:keep=60,first=1,last=8");
  SNUG_NEED(o.model_path);
  ChatOptions options;
  options.template_source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
  options.sampling.temperature = 0;
  options.max_tokens = 8;
  auto engine = OpenOrFail(o);
  auto chat = Chat::Create(*engine, options);
  ASSERT_TRUE(chat.ok());
  std::string story;
  for (int i = 0; i < 12; ++i) story += "one two three four five ";
  const auto first = chat->Say(*engine, story, {});
  ASSERT_TRUE(first.ok()) << first.error().message;
  const auto second = chat->Say(*engine, "and six?", {});
  ASSERT_TRUE(second.ok()) << second.error().message;
  const Generation& g = second->generation;
  EXPECT_GT(g.prompt_tokens, first->generation.prompt_tokens);
  ASSERT_EQ(g.read.size(), kTokensRead);
  EXPECT_EQ(g.read.front(), 0u);
  EXPECT_EQ(g.read.back(), g.prompt_tokens - 1);
  // As in an engine that saw nothing before.
  const std::string path = testing::TempDir() + "/chat.json";
  auto again = OpenOrFail(o);
  auto other = Chat::Create(*again, options);
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(other->Say(*again, story, {}).ok());
  again->Clear(0);
  const auto fresh = other->Say(*again, "and six?", {});
  ASSERT_TRUE(fresh.ok());
  EXPECT_EQ(fresh->generation.read, g.read);
  EXPECT_EQ(fresh->generation.tokens, g.tokens);
}

TEST(EngineReduce, RefusedByName) {
  const std::string gemfilter = "--reduce gemfilter";
  for (const char* arch : {"mamba", "qwen3next"}) {
    const EngineOptions o = ReduceOptions(arch);
    SNUG_NEED(o.model_path);
    testing::ExpectRefused(o, {gemfilter, "keep a state"});
  }
  EngineOptions o = ReduceOptions("", "gemfilter:keep=60");
  o.model_path = testing::SourcePath("tests/data/bert");
  o.embed = true;
  o.context = o.chunk = 64;
  testing::ExpectRefused(o, {gemfilter, "is an encoder"});
  o = ReduceOptions("mistral-swa");
  SNUG_NEED(o.model_path);
  testing::ExpectRefused(o, {gemfilter, "has a window of 32"});
  o = ReduceOptions("llama", "gemfilter:keep=60,layer=4");
  testing::ExpectRefused(o,
                         {"--reduce gemfilter:keep=60,layer=4", "there is no layer 4", "0 .. 3"});
  o = ReduceOptions("gemma3", "gemfilter:keep=60,layer=2");
  testing::ExpectRefused(o, {"layer 2", "has a window of 32"});

  const auto code = [](const EngineOptions& options) {
    const auto plan = PlanFile(options);
    return plan.ok() ? "" : plan.error().message;
  };
  o = ReduceOptions("llama", "gemfilter:keep=100");
  EXPECT_NE(code(o).find("leave a context of 100 no room"), std::string::npos) << code(o);
  o = ReduceOptions("llama");
  o.prompt = 513;
  EXPECT_NE(code(o).find("was trained for 512"), std::string::npos) << code(o);
  o.prompt = kLongPrompt;
  auto engine = OpenOrFail(o);
  const auto longer = engine->Reduce(SomeTokens(kLongPrompt + 1, engine->config().vocab), nullptr);
  ASSERT_FALSE(longer.ok());
  EXPECT_EQ(longer.error().code, Code::kDoesNotFit);
  EXPECT_NE(longer.error().next.find("--prompt-size"), std::string::npos);
  std::vector<Token> bad = SomeTokens(kLongPrompt, engine->config().vocab);
  bad[7] = static_cast<Token>(engine->config().vocab);
  EXPECT_EQ(engine->Reduce(bad, nullptr).error().code, Code::kBadInput);
  GenerateOptions g;
  g.max_tokens = 41;  // beside 60 tokens that are read
  EXPECT_EQ(Generate(*engine, 0, SomeTokens(kLongPrompt, 100), g).error().code, Code::kDoesNotFit);
  EXPECT_EQ(Generate(*engine, 0, {}, g).error().code, Code::kBadInput);
}

}  // namespace
}  // namespace snug
