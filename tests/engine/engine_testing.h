// Engines over the golden tiny models, and their logits as bits.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/channel_statistics.h"
#include "engine/codebook_training.h"
#include "engine/engine.h"
#include "format/fingerprint.h"
#include "kv/codec/codebooks.h"
#include "kv/codec/key_basis.h"
#include "kv/read/channels.h"
#include "testing.h"

namespace snug::testing {

// The GGUF file of a golden tiny model, or its folder where that is all there is.
inline EngineOptions TinyOptions(const std::string& arch) {
  EngineOptions o;
  o.model_path = GoldenPath("tiny/" + arch);
  if (Exists(o.model_path + "/model.gguf")) o.model_path += "/model.gguf";
  o.budget.bytes = 256 * kMiB;
  o.base_bytes = 24 * kMiB;  // given, for plans that repeat
  o.context = 256;
  o.chunk = o.logit_rows = 64;
  o.threads = 2;
  return o;
}

inline std::unique_ptr<Engine> OpenOrFail(const EngineOptions& options) {
  auto engine = Engine::Open(options);
  if (!engine.ok()) {
    ADD_FAILURE() << engine.error().message << " " << engine.error().next;
    return nullptr;
  }
  return std::move(engine).value();
}

// Repeatable tokens within a tiny vocabulary.
inline std::vector<Token> SomeTokens(size_t n, uint32_t vocab, uint32_t seed = 7) {
  std::vector<Token> tokens(n);
  uint64_t state = seed;
  for (Token& t : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    t = static_cast<Token>((state >> 33) % vocab);
  }
  return tokens;
}

// Appends `tokens` in chunks of `chunk` and returns all logits rows [tokens, vocab].
inline std::vector<float> AllLogits(Engine& engine, uint32_t sequence,
                                    std::span<const Token> tokens, size_t chunk) {
  std::vector<float> all;
  for (size_t i = 0; i < tokens.size(); i += chunk) {
    const size_t n = std::min(chunk, tokens.size() - i);
    const StepItem item{sequence, tokens.subspan(i, n), StepItem::Logits::kAll};
    const Status status = engine.Step({&item, 1});
    EXPECT_TRUE(status.ok());
    if (!status.ok()) return all;
    for (size_t t = 0; t < n; ++t) {
      const auto row = engine.logits(t);
      all.insert(all.end(), row.begin(), row.end());
    }
  }
  return all;
}

inline bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// The prompt's logits, then those of each further token; `after` sees the engine after each.
template <class F>
std::vector<std::vector<float>> PromptAndTokens(Engine& engine, uint32_t sequence,
                                                std::span<const Token> tokens, size_t prompt,
                                                const F& after) {
  std::vector<std::vector<float>> rows;
  const auto take = [&] {
    const auto row = engine.logits(0);
    rows.emplace_back(row.begin(), row.end());
    after();
  };
  const Status status = engine.Prefill(sequence, tokens.first(prompt), nullptr);
  EXPECT_TRUE(status.ok());
  if (!status.ok()) return rows;
  take();
  for (size_t i = prompt; i < tokens.size(); ++i) {
    const StepItem item{sequence, tokens.subspan(i, 1), StepItem::Logits::kLast};
    EXPECT_TRUE(engine.Step({&item, 1}).ok());
    take();
  }
  return rows;
}
inline std::vector<std::vector<float>> PromptAndTokens(Engine& engine, uint32_t sequence,
                                                       std::span<const Token> tokens,
                                                       size_t prompt) {
  return PromptAndTokens(engine, sequence, tokens, prompt, [] {});
}

// Ranks the channels of a model into a file, whose path is returned.
inline std::string RankChannels(EngineOptions o, const std::string& name) {
  const std::string path = TempDir() + "/channels_" + name + ".json";
  o.observe = Observation::kChannels;
  auto engine = OpenOrFail(o);
  if (engine == nullptr) return path;
  AllLogits(*engine, 0, SomeTokens(100, engine->config().vocab, 3), 64);
  const auto weights = WeightsFingerprint(engine->file());
  EXPECT_TRUE(weights.ok());
  EXPECT_TRUE(WriteChannels(path, engine->channel_statistics()->Rank(),
                            {*weights, RotarySettings(engine->config().rope), "made up", 100})
                  .ok());
  return path;
}

inline EngineOptions TrainingOptions(EngineOptions o, uint32_t dims, bool global) {
  o.observe = Observation::kCodebooks;
  o.training = {dims, global, 512};
  return o;
}

// The text that codebooks are learnt from.
inline void ReadText(Engine& engine, uint32_t chunk) {
  for (const uint32_t seed : {3u, 4u}) {
    engine.Clear(0);
    AllLogits(engine, 0, SomeTokens(250, engine.config().vocab, seed), chunk);
  }
}

// Learns codebooks for a model into a file, once; the file's path.
inline std::string LearnCodebooks(const EngineOptions& o, uint32_t dims, bool global) {
  static const std::string dir = TempDir();
  static std::map<std::string, std::string> known;
  std::string& path = known[o.model_path + std::to_string(dims) + (global ? "g" : "")];
  if (!path.empty()) return path;
  path = dir + "/" + std::to_string(known.size()) + ".safetensors";
  auto engine = OpenOrFail(TrainingOptions(o, dims, global));
  if (engine == nullptr) return path;
  ReadText(*engine, 64);
  EXPECT_TRUE(engine->codebook_training()->Train(engine->pool(), nullptr).ok());
  const auto weights = WeightsFingerprint(engine->file());
  EXPECT_TRUE(weights.ok());
  EXPECT_TRUE(WriteCodebooks(path, engine->codebook_training()->books(),
                             {*weights, RotarySettings(engine->config().rope), "made up", 500})
                  .ok());
  return path;
}

// Orders the key channels of a model into a file, once; the file's path.
inline std::string OrderKeys(EngineOptions o, uint32_t heads = 0) {
  static const std::string dir = TempDir();
  static std::map<std::string, std::string> known;
  std::string& path = known[o.model_path + std::to_string(heads)];
  if (!path.empty()) return path;
  path = dir + "/" + std::to_string(known.size()) + ".json";
  o.observe = Observation::kKeyOrder;
  o.transform_heads = heads;
  auto engine = OpenOrFail(o);
  if (engine == nullptr) return path;
  ReadText(*engine, 64);
  KeyOrder order = engine->key_order_statistics()->Order();
  const auto weights = WeightsFingerprint(engine->file());
  EXPECT_TRUE(weights.ok());
  order.source = {*weights, RotarySettings(engine->config().rope), "made up", 500};
  EXPECT_TRUE(WriteKeyOrder(path, order).ok());
  return path;
}

// A sequence of 170 tokens and, begun earlier, one of 90 take steps together: row(i) is what the
// first is to give after token i of `tokens`, from 170 on.
template <class F>
void ExpectSameInABatch(Engine& engine, std::span<const Token> tokens, const F& row,
                        const std::string& what) {
  ASSERT_TRUE(engine.Prefill(1, tokens.first(90), nullptr).ok());
  ASSERT_TRUE(engine.Prefill(0, tokens.first(170), nullptr).ok());
  for (size_t i = 170; i < tokens.size(); ++i) {
    const StepItem items[] = {{1, tokens.subspan(i - 80, 1), StepItem::Logits::kLast},
                              {0, tokens.subspan(i, 1), StepItem::Logits::kLast}};
    ASSERT_TRUE(engine.Step(items).ok());
    ASSERT_TRUE(SameBits(engine.logits(1), row(i))) << what << " " << i;
  }
}

// Sequences 0, 1 and 0 anew fill their contexts of 256 tokens and give the same rows.
inline void ExpectFullContextsFit(Engine& engine, const std::string& what) {
  const auto tokens = SomeTokens(256, engine.config().vocab);
  std::vector<std::vector<float>> first;
  for (const uint32_t sequence : {0u, 1u, 0u}) {
    engine.Clear(sequence);
    const auto rows = PromptAndTokens(engine, sequence, tokens, 240);
    if (first.empty()) first = rows;
    EXPECT_EQ(rows, first) << what;
  }
  EXPECT_LE(engine.kv_bytes_held(), engine.plan().kv_bytes);
}

// A prompt that is cancelled on its way leaves an empty sequence, which then gives what it would
// have given.
inline void ExpectCancelledPromptsLeaveNothing(Engine& engine) {
  const auto tokens = SomeTokens(200, engine.config().vocab);
  const auto reference = PromptAndTokens(engine, 0, tokens, 180);
  for (const uint32_t at : {1u, 90u, 179u}) {
    engine.Clear(0);
    uint32_t shown = 0;
    const Status s = engine.Prefill(0, std::span(tokens).first(180), [&](uint32_t done, uint32_t) {
      EXPECT_GE(done, shown);
      shown = done;
      return done < at;
    });
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.error().code, Code::kCancelled);
    EXPECT_EQ(engine.length(0), 0u);
    EXPECT_EQ(engine.kv_bytes_held(), 0u);
    EXPECT_EQ(PromptAndTokens(engine, 0, tokens, 180), reference) << at;
  }
}

inline void ExpectPrefixesAreReadAgain(Engine& engine) {
  engine.Clear(0);
  const auto tokens = SomeTokens(200, engine.config().vocab);
  const auto reference = PromptAndTokens(engine, 0, tokens, 180);
  EXPECT_EQ(engine.ReusePrefix(0, tokens), 0u);
  EXPECT_EQ(engine.length(0), 0u);
  EXPECT_EQ(PromptAndTokens(engine, 0, tokens, 180), reference);
}

inline void ExpectLedgerHoldsThePlan(Engine& engine, const std::string& what) {
  const LedgerSnapshot held = engine.ledger().snapshot();
  for (size_t i = 0; i < kOwners; ++i) {
    EXPECT_EQ(held.now[i], engine.plan().at_context[i])
        << what << " " << OwnerName(static_cast<Owner>(i));
  }
  EXPECT_EQ(held.total_peak, engine.plan().peak_total) << what;
}

// A plan is refused as misuse, in a message that has all of `parts`.
inline void ExpectRefused(const EngineOptions& options,
                          std::initializer_list<std::string_view> parts) {
  auto plan = PlanFile(options);
  ASSERT_FALSE(plan.ok()) << *parts.begin();
  EXPECT_EQ(plan.error().code, Code::kUsage);
  for (const std::string_view part : parts) {
    EXPECT_NE(plan.error().message.find(part), std::string::npos) << plan.error().message;
  }
}

// Caches whose rows are dropped, coded or chosen from are refused where there are none, and where
// windows bound all of them.
inline void ExpectRefusedWithoutRows(EngineOptions options, std::string_view part) {
  options.model_path = SourcePath("tests/data/bert");
  options.embed = true;
  options.context = options.chunk = options.logit_rows = 64;
  ExpectRefused(options, {part, "is an encoder"});
  options.embed = false;
  options.model_path = TinyOptions("mistral-swa").model_path;
  SNUG_NEED(options.model_path);
  ExpectRefused(options, {part, "have a sliding window"});
}

}  // namespace snug::testing
