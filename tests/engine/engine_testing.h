// Engines over the golden tiny models, and their logits as bits.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/engine.h"
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

}  // namespace snug::testing
