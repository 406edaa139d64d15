// tokens.reduce: which tokens of a prompt are read. The model's first layers run over the whole
// prompt and keep nothing, up to the keys of one layer; from what the last token's query makes of
// each key there, a method chooses tokens, which are then read as a prompt of their own, at new
// positions. A method is a file beside this one and a line of its registry (reduce.cc); the engine
// knows no method by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/spec.h"
#include "base/status.h"
#include "kv/method.h"
#include "model/config.h"

namespace snug {

// What the last token's query makes of the keys of a layer, its own included.
struct PromptScores {
  uint32_t tokens = 0, heads = 0;  // query heads
  const float* dots = nullptr;     // [heads, stride] q.k after rotation, neither scaled nor capped
  size_t stride = 0;
  float scale = 1, softcap = 0;  // what attention would do to them; no cap: 0
};

class ReduceMethod : public KvMethod {
 public:
  // Tokens that are read of a prompt of so many: never more, and as it is where as many.
  virtual uint32_t Stay(uint32_t tokens) const = 0;
  // The layer whose keys are asked for; one that the model lacks, or whose keys a window hides, is
  // refused by who asks.
  virtual uint32_t Layer(const ModelConfig& config) const = 0;
  // Chooses Stay(tokens) of the tokens, ascending. `room` has 2 * tokens floats. A function of its
  // arguments alone. kBadFile where scores are no finite numbers, which a sound model never gives.
  virtual Status Choose(const PromptScores& scores, std::span<float> room,
                        std::span<uint32_t> chosen) const = 0;
};

// A method as the registry holds it.
struct ReduceEntry {
  std::string_view name, source;  // source: the paper
  std::string_view summary;       // what is read
  std::string_view observes;      // what it asks of the model, in words
  std::span<const SpecParameter> parameters;
  Result<std::shared_ptr<ReduceMethod>> (*make)(std::span<const double> values);
};
std::span<const ReduceEntry* const> ReduceMethods();

// The method that a spec string (base/spec.h) names. Errors: ParseSpec's and those of the method.
Result<std::shared_ptr<const ReduceMethod>> ParseReduce(std::string_view spec);

}  // namespace snug
