#include "tiny_model.h"

#include <fmt/format.h>

#include <fstream>

#include "format/gguf_builder.h"
#include "testing.h"

namespace snug::testing {
namespace {

struct Tensor {
  std::string name;
  std::vector<uint64_t> dims;  // innermost first
  uint64_t values() const {
    uint64_t n = 1;
    for (const uint64_t d : dims) n *= d;
    return n;
  }
};

std::vector<Tensor> Tensors(const TinyModel& m) {
  std::vector<Tensor> tensors = {
      {"token_embd.weight", {m.dim, TinyModel::Vocabulary().size()}},
      {"output_norm.weight", {m.dim}},
  };
  for (uint32_t l = 0; l < m.layers; ++l) {
    const std::string b = fmt::format("blk.{}.", l);
    for (const char* norm : {"attn_norm", "ffn_norm"})
      tensors.push_back({b + norm + ".weight", {m.dim}});
    for (const char* square : {"attn_q", "attn_k", "attn_v", "attn_output"})
      tensors.push_back({b + square + ".weight", {m.dim, m.dim}});
    for (const char* wide : {"ffn_gate", "ffn_up"})
      tensors.push_back({b + wide + ".weight", {m.dim, m.ffn}});
    tensors.push_back({b + "ffn_down.weight", {m.ffn, m.dim}});
  }
  return tensors;
}

constexpr uint64_t kAlign = 32;
uint64_t Align(uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

}  // namespace

std::vector<std::string> TinyModel::Vocabulary() {
  std::vector<std::string> tokens;
  uint32_t next = 256;  // the characters that stand for bytes which print nothing
  for (uint32_t b = 0; b < 256; ++b) {
    const bool prints = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
    const uint32_t c = prints ? b : next++;
    tokens.push_back(c < 0x80 ? std::string(1, static_cast<char>(c))
                              : std::string{static_cast<char>(0xC0 | c >> 6),
                                            static_cast<char>(0x80 | (c & 0x3F))});
  }
  tokens.insert(tokens.end(), {"th", "the", "<|im_end|>"});
  return tokens;
}

std::string TinyModel::Bytes(uint32_t part, uint32_t parts) const {
  const std::vector<Tensor> all = Tensors(*this);
  std::vector<Tensor> mine;
  for (size_t i = part; i < all.size(); i += parts) mine.push_back(all[i]);
  const uint32_t split_keys = parts > 1 ? 3 : 0;
  GgufBuilder b;
  b.Header(3, mine.size(), split_keys + (part == 0 ? 14 : 0));
  if (parts > 1) {
    b.U32("split.no", part).U32("split.count", parts);
    b.U32("split.tensors.count", static_cast<uint32_t>(all.size()));
  }
  if (part == 0) {
    const std::vector<std::string> vocabulary = Vocabulary();
    std::vector<int32_t> types(vocabulary.size(), 1);
    types.back() = 3;  // a control token
    b.String("general.architecture", "llama").String("general.name", "tiny");
    b.U32("llama.block_count", layers).U32("llama.embedding_length", dim);
    b.U32("llama.feed_forward_length", ffn).U32("llama.attention.head_count", heads);
    b.U32("llama.context_length", context).Float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    b.String("tokenizer.ggml.model", "gpt2").String("tokenizer.ggml.pre", "gpt-2");
    b.Strings("tokenizer.ggml.tokens", vocabulary).Ints("tokenizer.ggml.token_type", types);
    b.Strings("tokenizer.ggml.merges", {"t h", "th e"});
    b.U32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(vocabulary.size() - 1));
  }
  uint64_t offset = 0;
  for (const Tensor& t : mine) {
    b.Tensor(t.name, t.dims, 0, offset);
    offset = Align(offset + t.values() * sizeof(float));
  }
  b.bytes.resize(Align(b.bytes.size()));
  for (const Tensor& t : mine) {
    // Values follow from the tensor's name, so that they do not depend on the split.
    uint64_t state = std::hash<std::string>{}(t.name);
    for (uint64_t i = 0; i < t.values(); ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const float unit = static_cast<float>(state >> 40) * 0x1p-24f;  // 0 .. 1
      b.Put(t.dims.size() == 1 ? 1.0f : (unit - 0.5f));
    }
    b.bytes.resize(Align(b.bytes.size()));
  }
  return std::move(b.bytes);
}

std::string TinyModel::Write(uint32_t parts) const {
  const std::string dir = TempDir();
  if (parts == 1) {
    std::ofstream(dir + "/tiny.gguf", std::ios::binary) << Bytes();
    return dir + "/tiny.gguf";
  }
  for (uint32_t i = 0; i < parts; ++i) {
    std::ofstream(fmt::format("{}/tiny-{:05}-of-{:05}.gguf", dir, i + 1, parts), std::ios::binary)
        << Bytes(i, parts);
  }
  return fmt::format("{}/tiny-00001-of-{:05}.gguf", dir, parts);
}

}  // namespace snug::testing
