// Small random models in GGUF, and their logits by plain loops in double.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace snug::testing {

// What a random model is made of. Norms, sinks and experts follow from the architecture.
struct ModelShape {
  std::string arch = "llama";
  uint32_t layers = 2, dim = 48, heads = 4, kv_heads = 2, head_dim = 16, ffn = 40, vocab = 37;
  bool tied = false, biased = false;
  uint32_t window = 0;                // in the layers of the family's pattern
  uint32_t experts = 0, used = 0;     // of a mixture, in place of the dense block
  bool q8_0 = false;                  // matrices stored as Q8_0; their inputs are multiples of 32
  float attn_cap = 0, final_cap = 0;  // Gemma 2
  std::string name() const;
};

class RandomModel {
 public:
  RandomModel(const ModelShape& shape, uint32_t seed);
  const ModelShape& shape() const { return s_; }
  void Write(const std::string& path) const;
  // [tokens, vocab]; nothing is cached or shared between positions.
  std::vector<float> Logits(std::span<const Token> tokens) const;

 private:
  struct Tensor {
    std::vector<uint64_t> dims;  // innermost first
    std::vector<float> values;
    bool q8_0 = false;
  };
  void Add(const std::string& name, std::vector<uint64_t> dims, float mean, float spread);
  const std::vector<float>* Find(const std::string& name) const;
  std::vector<double> Attention(uint32_t layer, const std::vector<std::vector<double>>& inputs,
                                size_t pos) const;
  std::vector<double> Ffn(uint32_t layer, const std::vector<double>& x) const;
  std::vector<double> Norm(const std::vector<double>& x, const std::string& name) const;
  // y = W x + b; `part` chooses an expert of a stack.
  std::vector<double> Linear(const std::vector<double>& x, const std::string& name, size_t rows,
                             size_t part = 0) const;
  void Rotate(std::vector<double>* heads, size_t pos) const;

  ModelShape s_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace snug::testing
