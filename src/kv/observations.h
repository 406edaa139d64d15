// What methods over the cache may ask attention to tell of the rows that it reads.
#pragma once

#include <cstdint>
#include <vector>

namespace snug {

inline constexpr uint32_t kAllQueries = UINT32_MAX;

// Queries of a few tokens: the last ones and a random sample of those before, of each prompt and
// after it of every `period` tokens.
struct Probes {
  double last = 0, random = 0;  // shares of the tokens
  uint64_t seed = 0;
  uint32_t period = 0;
  bool any() const { return period != 0; }
};

// What a method asks attention to tell: for every held row, the attention that queries gave it
// (ColumnSums of kernel/attention.h).
struct Observations {
  uint32_t prompt_queries = 0;  // of a prompt, so many of its last queries; kAllQueries: all
  bool decode = false;          // of every token after the prompt, too
  bool carried = false;         // sums go on from step to step; otherwise each begins at zero
  // Weights of a flattened, noisy softmax (ScoreNoise) instead of attention's own.
  struct Noise {
    bool on = false, gumbel = false;
    uint64_t seed = 0;
    // The temperature: in a prompt, and after so many tokens of the answer.
    double first = 1, last = 1;
    uint32_t tokens = 1;
  } noise;
  // Of prompts alone: what each query head gave, instead of the mean over those of a KV head.
  bool by_query_head = false;
  // Of codecs, which can ask for nothing else.
  Probes probes = {};
  bool any() const { return prompt_queries != 0 || decode || probes.any(); }
};

// Numbers of the probes among `tokens` tokens, ascending; the last token is one of them.
void ChooseProbes(const Probes& probes, uint32_t tokens, std::vector<uint32_t>* chosen);

}  // namespace snug
