// keep: which tokens' rows stay in a cache of fixed size. A method is a file beside this one and a
// line of its registry (keep.cc); the cache, the attention kernel and the engine know no method by
// name. A prompt is read exactly, layer by layer: a layer's attention sees all of its rows, then
// the method drops what does not stay and the pages go back to the pool. From then on every token
// adds a row and, where the cache is full, drops one.
//
// Layers with a sliding window stay outside: their size is bounded as it is.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/spec.h"
#include "base/status.h"
#include "kv/method.h"

namespace snug {

inline constexpr uint32_t kAllQueries = UINT32_MAX;

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
  bool any() const { return prompt_queries != 0 || decode; }
};

// One layer of a sequence after a step, before rows are dropped. Rows lie in no order, except that
// the step's own come last.
struct KeepLayer {
  uint32_t layer = 0, heads = 0;        // KV heads
  uint32_t rows = 0;                    // of each head
  uint32_t length = 0;                  // tokens of the sequence, dropped ones included
  const uint32_t* positions = nullptr;  // [heads, stride] each row's token
  const float* sums = nullptr;          // [heads, stride] what was observed, or null
  size_t stride = 0;
  const uint32_t* Positions(uint32_t head) const { return positions + head * stride; }
  const float* Sums(uint32_t head) const { return sums + head * stride; }
};

// Room to choose in, `rows` entries each; empty where one row is to be dropped.
struct KeepRoom {
  std::span<uint32_t> order;
  std::span<float> scores;
};

class KeepMethod : public KvMethod {
 public:
  virtual Observations observes() const { return {}; }
  // Rows of a layer and head that stay at the end of a prompt that makes the sequence `tokens`
  // long; never less for more tokens.
  virtual uint32_t RowsAfterPrompt(uint32_t tokens) const = 0;
  // Rows that stay while tokens are added to it.
  virtual uint32_t RowsAtMost(uint32_t tokens) const { return RowsAfterPrompt(tokens); }
  // Chooses dropped.size() rows of one head to drop, in ascending order. A function of its
  // arguments alone; heads of a layer are asked in parallel.
  virtual void Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
                    KeepRoom room) const = 0;
};

// A method as the registry holds it.
struct KeepEntry {
  std::string_view name, source;  // source: the paper
  std::string_view summary;       // what stays
  std::string_view observes;      // what it asks of attention, in words
  std::span<const SpecParameter> parameters;
  Result<std::shared_ptr<KeepMethod>> (*make)(std::span<const double> values);
};
std::span<const KeepEntry* const> KeepMethods();

// The method that a spec string (base/spec.h) names. Errors: ParseSpec's.
Result<std::shared_ptr<const KeepMethod>> ParseKeep(std::string_view spec);

}  // namespace snug
