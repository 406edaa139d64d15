// Samplers: greedy, or penalties, top-k, top-p, min-p and temperature, in that order (llama.cpp's),
// drawn with an own generator so that a seed means the same everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace snug {

struct SamplingOptions {
  float temperature = 0.8f;  // 0: greedy, the first of equals
  int top_k = 40;            // 0: off
  float top_p = 0.95f;       // 1: off
  float min_p = 0.05f;       // 0: off
  float repeat_penalty =
      1;                 // 1: off; divides positive and multiplies negative logits of recent tokens
  int repeat_last = 64;  // tokens that count as recent
  uint64_t seed = 0;
  // kUsage naming option and value.
  Status Validate() const;
};

class Sampler {
 public:
  Sampler(const SamplingOptions& options, size_t vocab);
  // The token that these logits [vocab] give; 0 where none is a number. Allocates nothing.
  Token Sample(std::span<const float> logits);
  // Counts a token as recent.
  void Accept(Token token);
  // How many of the largest logits decide; the others may be -infinity. 0: all of them.
  size_t NeedsTop() const;

 private:
  struct Item {
    float logit;
    Token token;
  };
  double Uniform();
  float Penalised(Token token, float logit) const;
  SamplingOptions options_;
  uint64_t state_;
  std::vector<Item> items_;    // capacity: vocab
  std::vector<Token> recent_;  // ring of repeat_last
  size_t accepted_ = 0;
  std::vector<uint8_t> count_;  // [vocab] uses within recent_
};

}  // namespace snug
