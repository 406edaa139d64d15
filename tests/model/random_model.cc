#include "random_model.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <random>

#include "format/gguf_builder.h"

namespace snug::testing {
namespace {

constexpr double kEps = 1e-5;

// Of the family, by its architecture.
struct Family {
  bool interleaved = false, gelu = false, pre_norm = true, post_norm = false;
  bool head_norm = false, joint_norm = false, sinks = false, clamped = false;
  bool normalized = true;   // chosen experts' weights
  uint32_t full_every = 0;  // of windows
  uint32_t no_rope_every = 0;
};

Family FamilyOf(const std::string& arch) {
  Family f;
  f.interleaved = arch == "llama" || arch == "granite" || arch == "smollm3";
  if (arch == "gemma2") f.gelu = f.post_norm = true;
  if (arch == "gemma2" || arch == "gpt-oss") f.full_every = 2;
  if (arch == "olmo2") f.pre_norm = false;
  if (arch == "olmo2") f.post_norm = true;
  f.head_norm = arch == "qwen3" || arch == "qwen3moe";
  f.joint_norm = arch == "olmo2" || arch == "olmoe";
  f.normalized = arch != "olmoe";
  f.sinks = f.clamped = arch == "gpt-oss";
  if (arch == "smollm3") f.no_rope_every = 4;
  return f;
}

std::string Layer(uint32_t layer, const std::string& name) {
  return "blk." + std::to_string(layer) + "." + name;
}

// The values that a Q8_0 block of 32 holds for `v`.
void RoundQ8_0(float* v, std::string* bytes) {
  float max = 0;
  for (int i = 0; i < 32; ++i) max = std::max(max, std::abs(v[i]));
  // A power of two, which f16 holds exactly.
  const float scale = max == 0 ? 0 : std::exp2(std::ceil(std::log2(max / 127)));
  const int exponent = scale == 0 ? 0 : std::ilogb(scale) + 15;
  const auto half = static_cast<uint16_t>(exponent << 10);
  if (bytes != nullptr) bytes->append(reinterpret_cast<const char*>(&half), 2);
  for (int i = 0; i < 32; ++i) {
    const auto q = static_cast<int8_t>(scale == 0 ? 0 : std::lround(v[i] / scale));
    if (bytes != nullptr) bytes->push_back(static_cast<char>(q));
    v[i] = scale * static_cast<float>(q);
  }
}

}  // namespace

std::string ModelShape::name() const {
  std::string n = arch + "_" + std::to_string(dim) + "_" + std::to_string(heads) + "x" +
                  std::to_string(head_dim) + "_kv" + std::to_string(kv_heads) + "_ffn" +
                  std::to_string(ffn) + (tied ? "_tied" : "") + (biased ? "_biased" : "") +
                  (window != 0 ? "_window" : "") + (q8_0 ? "_q8" : "");
  if (experts != 0) n += "_" + std::to_string(used) + "of" + std::to_string(experts);
  std::replace(n.begin(), n.end(), '-', '_');
  return n;
}

RandomModel::RandomModel(const ModelShape& shape, uint32_t seed) : s_(shape) {
  const Family f = FamilyOf(s_.arch);
  const uint64_t d = s_.dim, q = uint64_t{s_.heads} * s_.head_dim;
  const uint64_t kv = uint64_t{s_.kv_heads} * s_.head_dim, ffn = s_.ffn;
  auto matrix = [&](const std::string& name, uint64_t rows, uint64_t cols, uint64_t stack = 1) {
    std::vector<uint64_t> dims = {cols, rows};
    if (stack > 1) dims.push_back(stack);
    Add(name + ".weight", dims, 0, 1.2f / std::sqrt(static_cast<float>(cols)));
    if (!s_.biased) return;
    dims.erase(dims.begin());
    Add(name + ".bias", dims, 0, 0.2f);
  };
  tensors_["seed"].values = {static_cast<float>(seed)};
  Add("token_embd.weight", {d, s_.vocab}, 0, s_.arch == "gemma2" ? 0.2f : 1);
  if (!s_.tied) Add("output.weight", {d, s_.vocab}, 0, 0.3f);
  Add("output_norm.weight", {d}, 1, 0.3f);
  for (uint32_t l = 0; l < s_.layers; ++l) {
    const std::string ffn_norm = s_.arch == "gpt-oss" ? "post_attention_norm" : "ffn_norm";
    if (f.pre_norm) {
      Add(Layer(l, "attn_norm.weight"), {d}, 1, 0.3f);
      Add(Layer(l, ffn_norm + ".weight"), {d}, 1, 0.3f);
    }
    if (f.post_norm) {
      Add(Layer(l, "post_attention_norm.weight"), {d}, 1, 0.3f);
      Add(Layer(l, "post_ffw_norm.weight"), {d}, 1, 0.3f);
    }
    if (f.head_norm || f.joint_norm) {
      Add(Layer(l, "attn_q_norm.weight"), {f.joint_norm ? q : s_.head_dim}, 1, 0.3f);
      Add(Layer(l, "attn_k_norm.weight"), {f.joint_norm ? kv : s_.head_dim}, 1, 0.3f);
    }
    if (f.sinks) Add(Layer(l, "attn_sinks.weight"), {s_.heads}, 0, 1);
    matrix(Layer(l, "attn_q"), q, d);
    matrix(Layer(l, "attn_k"), kv, d);
    matrix(Layer(l, "attn_v"), kv, d);
    matrix(Layer(l, "attn_output"), d, q);
    if (s_.experts == 0) {
      matrix(Layer(l, "ffn_gate"), ffn, d);
      matrix(Layer(l, "ffn_up"), ffn, d);
      matrix(Layer(l, "ffn_down"), d, ffn);
    } else {
      matrix(Layer(l, "ffn_gate_inp"), s_.experts, d);
      matrix(Layer(l, "ffn_gate_exps"), ffn, d, s_.experts);
      matrix(Layer(l, "ffn_up_exps"), ffn, d, s_.experts);
      matrix(Layer(l, "ffn_down_exps"), d, ffn, s_.experts);
    }
  }
  tensors_.erase("seed");
}

void RandomModel::Add(const std::string& name, std::vector<uint64_t> dims, float mean,
                      float spread) {
  std::seed_seq seed(name.begin(), name.end());
  std::mt19937 rng(seed);
  rng.discard(static_cast<unsigned long long>(tensors_["seed"].values[0]));
  std::normal_distribution<float> normal(mean, spread);
  Tensor t;
  t.dims = std::move(dims);
  t.values.resize(std::accumulate(t.dims.begin(), t.dims.end(), uint64_t{1}, std::multiplies<>()));
  for (float& v : t.values) v = normal(rng);
  // Like quantizers, the router is left alone.
  t.q8_0 = s_.q8_0 && t.dims.size() >= 2 && name.find("ffn_gate_inp") == std::string::npos &&
           name.find(".bias") == std::string::npos;
  if (t.q8_0) {
    for (size_t i = 0; i < t.values.size(); i += 32) RoundQ8_0(&t.values[i], nullptr);
  }
  tensors_[name] = std::move(t);
}

const std::vector<float>* RandomModel::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second.values;
}

void RandomModel::Write(const std::string& path) const {
  GgufBuilder keys, infos;
  std::string data;
  const std::string a = s_.arch + ".";
  std::vector<std::string> vocabulary = {"<unk>"};
  std::vector<float> scores = {0};
  for (uint32_t i = 1; i < s_.vocab; ++i) {
    vocabulary.emplace_back(1, static_cast<char>('A' + i));
    scores.push_back(-static_cast<float>(i));
  }
  std::vector<int32_t> types(s_.vocab, 1);
  types[0] = 2;
  keys.String("general.architecture", s_.arch).U32(a + "block_count", s_.layers);
  keys.U32(a + "context_length", 256).U32(a + "embedding_length", s_.dim);
  keys.U32(a + "feed_forward_length", s_.ffn).U32(a + "attention.head_count", s_.heads);
  keys.U32(a + "attention.head_count_kv", s_.kv_heads);
  keys.U32(a + "attention.key_length", s_.head_dim);
  keys.U32(a + "attention.value_length", s_.head_dim);
  keys.U32(a + "attention.sliding_window", s_.window);
  keys.Float(a + "attention.layer_norm_rms_epsilon", static_cast<float>(kEps));
  keys.Float(a + "attn_logit_softcapping", s_.attn_cap);
  keys.Float(a + "final_logit_softcapping", s_.final_cap);
  keys.U32(a + "expert_count", s_.experts).U32(a + "expert_used_count", s_.used);
  keys.String("tokenizer.ggml.model", "llama").Strings("tokenizer.ggml.tokens", vocabulary);
  keys.Floats("tokenizer.ggml.scores", scores).Ints("tokenizer.ggml.token_type", types);
  keys.U32("tokenizer.ggml.unknown_token_id", 0);
  constexpr uint64_t kKeys = 20;
  for (const auto& [name, t] : tensors_) {
    infos.Tensor(name, t.dims, t.q8_0 ? 8 : 0, data.size());
    if (t.q8_0) {
      std::vector<float> values = t.values;
      for (size_t i = 0; i < values.size(); i += 32) RoundQ8_0(&values[i], &data);
    } else {
      data.append(reinterpret_cast<const char*>(t.values.data()), t.values.size() * sizeof(float));
    }
    data.resize((data.size() + 31) / 32 * 32);
  }
  GgufBuilder file;
  file.Header(3, tensors_.size(), kKeys).bytes += keys.bytes + infos.bytes;
  file.Data(0).bytes += data;
  std::ofstream(path, std::ios::binary) << file.bytes;
}

std::vector<double> RandomModel::Norm(const std::vector<double>& x, const std::string& name) const {
  const std::vector<float>& w = *Find(name);
  double squares = 0;
  for (double v : x) squares += v * v;
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + kEps) * w[i];
  }
  return y;
}

std::vector<double> RandomModel::Linear(const std::vector<double>& x, const std::string& name,
                                        size_t rows, size_t part) const {
  const std::vector<float>& w = *Find(name + ".weight");
  const std::vector<float>* bias = Find(name + ".bias");
  std::vector<double> y(rows);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < x.size(); ++c) y[r] += w[(part * rows + r) * x.size() + c] * x[c];
    if (bias != nullptr) y[r] += (*bias)[part * rows + r];
  }
  return y;
}

void RandomModel::Rotate(std::vector<double>* heads, size_t pos) const {
  const size_t d = s_.head_dim;
  const bool interleaved = FamilyOf(s_.arch).interleaved;
  for (size_t h = 0; h < heads->size(); h += d) {
    for (size_t i = 0; i < d / 2; ++i) {
      const double angle =
          static_cast<double>(pos) *
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d));
      double& a = (*heads)[h + (interleaved ? 2 * i : i)];
      double& b = (*heads)[h + (interleaved ? 2 * i + 1 : i + d / 2)];
      const double x = a, y = b;
      a = x * std::cos(angle) - y * std::sin(angle);
      b = x * std::sin(angle) + y * std::cos(angle);
    }
  }
}

// The output of attention for position `pos`, given the (normed) inputs of all positions.
std::vector<double> RandomModel::Attention(uint32_t layer,
                                           const std::vector<std::vector<double>>& inputs,
                                           size_t pos) const {
  const Family f = FamilyOf(s_.arch);
  const size_t d = s_.head_dim, group = s_.heads / s_.kv_heads;
  auto project = [&](const std::string& which, size_t heads, size_t at) {
    std::vector<double> v = Linear(inputs[at], Layer(layer, "attn_" + which), heads * d);
    if (which == "v") return v;
    const std::string norm = Layer(layer, "attn_" + which + "_norm.weight");
    if (f.joint_norm) v = Norm(v, norm);
    for (size_t h = 0; h < heads && f.head_norm; ++h) {
      const std::vector<double> head(v.begin() + h * d, v.begin() + (h + 1) * d);
      const std::vector<double> normed = Norm(head, norm);
      std::copy(normed.begin(), normed.end(), v.begin() + h * d);
    }
    if (f.no_rope_every == 0 || (layer + 1) % f.no_rope_every != 0) Rotate(&v, at);
    return v;
  };
  const bool local = s_.window != 0 && (f.full_every == 0 || (layer + 1) % f.full_every != 0);
  const size_t first = local && pos + 1 > s_.window ? pos + 1 - s_.window : 0;
  const std::vector<double> q = project("q", s_.heads, pos);
  std::vector<std::vector<double>> keys, values;
  for (size_t p = first; p <= pos; ++p) {
    keys.push_back(project("k", s_.kv_heads, p));
    values.push_back(project("v", s_.kv_heads, p));
  }
  std::vector<double> out(s_.heads * d);
  for (size_t h = 0; h < s_.heads; ++h) {
    std::vector<double> weight;
    double sum = f.sinks ? std::exp((*Find(Layer(layer, "attn_sinks.weight")))[h]) : 0;
    for (const auto& key : keys) {
      double score = 0;
      for (size_t i = 0; i < d; ++i) score += q[h * d + i] * key[h / group * d + i];
      score /= std::sqrt(static_cast<double>(d));
      if (s_.attn_cap > 0) score = s_.attn_cap * std::tanh(score / s_.attn_cap);
      weight.push_back(std::exp(score));
      sum += weight.back();
    }
    for (size_t p = 0; p < values.size(); ++p) {
      for (size_t i = 0; i < d; ++i) {
        out[h * d + i] += weight[p] / sum * values[p][h / group * d + i];
      }
    }
  }
  return Linear(out, Layer(layer, "attn_output"), s_.dim);
}

std::vector<double> RandomModel::Ffn(uint32_t layer, const std::vector<double>& x) const {
  const Family f = FamilyOf(s_.arch);
  auto gated = [&](const std::string& suffix, size_t part) {
    std::vector<double> gate = Linear(x, Layer(layer, "ffn_gate" + suffix), s_.ffn, part);
    const std::vector<double> up = Linear(x, Layer(layer, "ffn_up" + suffix), s_.ffn, part);
    for (size_t i = 0; i < gate.size(); ++i) {
      double& g = gate[i];
      if (f.clamped) {
        g = std::min(g, 7.0);
        g = g / (1 + std::exp(-1.702 * g)) * (std::clamp(up[i], -7.0, 7.0) + 1);
      } else if (f.gelu) {
        g = 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * up[i];
      } else {
        g = g / (1 + std::exp(-g)) * up[i];
      }
    }
    return Linear(gate, Layer(layer, "ffn_down" + suffix), s_.dim, part);
  };
  if (s_.experts == 0) return gated("", 0);
  std::vector<double> p = Linear(x, Layer(layer, "ffn_gate_inp"), s_.experts);
  double all = 0;
  for (double& v : p) all += v = std::exp(v);
  std::vector<size_t> order(s_.experts);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  order.resize(s_.used);
  double chosen = 0;
  for (size_t e : order) chosen += p[e];
  std::vector<double> y(s_.dim);
  for (size_t e : order) {
    const std::vector<double> part = gated("_exps", e);
    for (size_t i = 0; i < y.size(); ++i) y[i] += p[e] / (f.normalized ? chosen : all) * part[i];
  }
  return y;
}

std::vector<float> RandomModel::Logits(std::span<const Token> tokens) const {
  const Family f = FamilyOf(s_.arch);
  const std::vector<float>& embedding = *Find("token_embd.weight");
  std::vector<std::vector<double>> x;
  for (Token t : tokens) {
    x.emplace_back(embedding.begin() + t * s_.dim, embedding.begin() + (t + 1) * s_.dim);
    if (s_.arch == "gemma2") {
      for (double& v : x.back()) v *= std::sqrt(static_cast<double>(s_.dim));
    }
  }
  auto add = [](const std::vector<double>& y, std::vector<double>* sum) {
    for (size_t i = 0; i < y.size(); ++i) (*sum)[i] += y[i];
  };
  const std::string ffn_norm =
      s_.arch == "gpt-oss" ? "post_attention_norm.weight" : "ffn_norm.weight";
  for (uint32_t l = 0; l < s_.layers; ++l) {
    std::vector<std::vector<double>> inputs = x;
    for (auto& v : inputs) {
      if (f.pre_norm) v = Norm(v, Layer(l, "attn_norm.weight"));
    }
    for (size_t p = 0; p < x.size(); ++p) {
      std::vector<double> y = Attention(l, inputs, p);
      if (f.post_norm) y = Norm(y, Layer(l, "post_attention_norm.weight"));
      add(y, &x[p]);
    }
    for (auto& v : x) {
      std::vector<double> y = Ffn(l, f.pre_norm ? Norm(v, Layer(l, ffn_norm)) : v);
      if (f.post_norm) y = Norm(y, Layer(l, "post_ffw_norm.weight"));
      add(y, &v);
    }
  }
  std::vector<float> logits;
  for (const auto& v : x) {
    const std::vector<double> row =
        Linear(Norm(v, "output_norm.weight"), s_.tied ? "token_embd" : "output", s_.vocab);
    for (double z : row) {
      if (s_.final_cap > 0) z = s_.final_cap * std::tanh(z / s_.final_cap);
      logits.push_back(static_cast<float>(z));
    }
  }
  return logits;
}

}  // namespace snug::testing
