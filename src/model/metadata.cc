#include "model/metadata.h"

#include <fmt/format.h>

#include <cmath>

#include "kernel/attention.h"
#include "kernel/ssm.h"

namespace snug {
namespace {

// Bounds far above any published model and far below where products of two of them overflow.
constexpr uint64_t kMaxLayers = 4096, kMaxDim = 1 << 20, kMaxHeads = 1 << 12, kMaxVocab = 1 << 24,
                   kMaxExperts = 1 << 12, kMaxStates = 1 << 12, kMinConvWidth = 2;

Error Bad(const ModelFile& file, const std::string& key, uint64_t value, uint64_t max) {
  return MakeError(Code::kBadFile,
                   fmt::format("{}: {} = {} is outside 1 .. {}", file.path(), key, value, max),
                   "the file is damaged or not a decoder-only language model",
                   {{"key", key}, {"value", std::to_string(value)}});
}

Result<uint32_t> BoundedOr(const ModelFile& file, const std::string& key, uint64_t max,
                           uint64_t fallback) {
  if (!file.Has(key)) {
    if (fallback < 1 || fallback > max) return Bad(file, key, fallback, max);
    return static_cast<uint32_t>(fallback);
  }
  return ReadBounded(file, key, max);
}

Result<float> Positive(const ModelFile& file, const std::string& key, double fallback) {
  const double value = file.GetFloat(key).value_or(fallback);
  if (!std::isfinite(value) || value <= 0) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: {} = {} is not positive", file.path(), key, value));
  }
  return static_cast<float>(value);
}

Result<RopeConfig> ReadRope(const ModelFile& file, const std::string& arch, uint32_t head_dim) {
  RopeConfig rope;
  const std::string prefix = arch + ".rope.";
  SNUG_ASSIGN(rope.dim, BoundedOr(file, prefix + "dimension_count", head_dim, head_dim));
  if (rope.dim % 2 != 0) return Bad(file, prefix + "dimension_count", rope.dim, head_dim);
  SNUG_ASSIGN(rope.base, Positive(file, prefix + "freq_base", 10000));
  const std::string scaling = file.GetString(prefix + "scaling.type").value_or("none");
  if (scaling == "none") return rope;
  SNUG_ASSIGN(rope.factor, Positive(file, prefix + "scaling.factor", 1));
  if (scaling == "linear") {
    rope.scaling = RopeScaling::kLinear;
    return rope;
  }
  if (scaling != "yarn") {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: rotary scaling '{}' is not supported", file.path(), scaling),
                     "supported: none, linear, yarn, and Llama 3's factors", {{"value", scaling}});
  }
  rope.scaling = RopeScaling::kYarn;
  SNUG_ASSIGN(rope.original_context, Positive(file, prefix + "scaling.original_context_length",
                                              file.GetFloat(arch + ".context_length").value_or(0)));
  SNUG_ASSIGN(rope.beta_fast, Positive(file, prefix + "scaling.yarn_beta_fast", 32));
  SNUG_ASSIGN(rope.beta_slow, Positive(file, prefix + "scaling.yarn_beta_slow", 1));
  // The file's factor multiplies YaRN's own.
  const auto attn = file.GetFloat(prefix + "scaling.attn_factor");
  if (attn) {
    rope.attention_factor =
        static_cast<float>(*attn) * (0.1f * std::log(std::max(rope.factor, 1.0f)) + 1.0f);
  }
  return rope;
}

}  // namespace

Result<uint32_t> ReadBounded(const ModelFile& file, const std::string& key, uint64_t max) {
  SNUG_ASSIGN(const uint64_t value, file.NeedUint(key));
  if (value < 1 || value > max) return Bad(file, key, value, max);
  return static_cast<uint32_t>(value);
}

Result<ModelConfig> ReadCoreConfig(const ModelFile& file) {
  ModelConfig c;
  SNUG_ASSIGN(c.arch, file.NeedString("general.architecture"));
  c.name = file.GetString("general.name").value_or(c.arch);
  SNUG_ASSIGN(c.layers, ReadBounded(file, c.arch + ".block_count", kMaxLayers));
  SNUG_ASSIGN(c.dim, ReadBounded(file, c.arch + ".embedding_length", kMaxDim));
  SNUG_ASSIGN(c.trained_context, ReadBounded(file, c.arch + ".context_length", uint64_t{1} << 31));
  SNUG_ASSIGN(c.eps, Positive(file, c.arch + ".attention.layer_norm_rms_epsilon", 1e-6));
  const TensorInfo* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: tensor token_embd.weight is missing", file.path()),
                     "the file holds no language model's weights (a vocabulary only?)");
  }
  if (embedding->cols() != c.dim || embedding->rows() < 1 || embedding->rows() > kMaxVocab) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: token_embd.weight is {} x {}, expected vocabulary x {}",
                                 file.path(), embedding->rows(), embedding->cols(), c.dim));
  }
  c.vocab = static_cast<uint32_t>(embedding->rows());
  c.tied = file.Find("output.weight") == nullptr;
  c.window.assign(c.layers, 0);
  c.recurrent.assign(c.layers, false);
  return c;
}

Result<ModelConfig> ReadCommonConfig(const ModelFile& file) {
  SNUG_ASSIGN(ModelConfig c, ReadCoreConfig(file));
  SNUG_ASSIGN(c.ffn, ReadBounded(file, c.arch + ".feed_forward_length", kMaxDim));
  SNUG_ASSIGN(c.heads, ReadBounded(file, c.arch + ".attention.head_count", kMaxHeads));
  SNUG_ASSIGN(c.kv_heads, BoundedOr(file, c.arch + ".attention.head_count_kv", kMaxHeads, c.heads));
  SNUG_ASSIGN(c.head_dim,
              BoundedOr(file, c.arch + ".attention.key_length", kMaxHeadDim, c.dim / c.heads));
  SNUG_ASSIGN(const uint32_t value_dim,
              BoundedOr(file, c.arch + ".attention.value_length", kMaxHeadDim, c.head_dim));
  if (c.heads % c.kv_heads != 0 || c.head_dim % 2 != 0 || c.head_dim < 2 ||
      c.head_dim > kMaxHeadDim || value_dim != c.head_dim ||
      uint64_t{c.heads} * c.head_dim > kMaxDim) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: {} query heads, {} key-value heads, head sizes {} and {} do not go "
                    "together",
                    file.path(), c.heads, c.kv_heads, c.head_dim, value_dim));
  }
  SNUG_ASSIGN(c.rope, ReadRope(file, c.arch, c.head_dim));
  SNUG_ASSIGN(c.attention_scale, Positive(file, c.arch + ".attention.scale",
                                          1.0f / std::sqrt(static_cast<float>(c.head_dim))));
  c.local_rope = c.rope;
  return c;
}

bool RotaryInterleaved(const ModelFile& file, const std::string& arch) {
  return file.GetBool(arch + ".rope.interleaved").value_or(true);
}

Result<float> ReadFactor(const ModelFile& file, const std::string& key, double fallback) {
  const double value = file.GetFloat(key).value_or(fallback);
  if (!std::isfinite(value) || value < 0) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: {} = {} is not a factor", file.path(), key, value));
  }
  return static_cast<float>(value);
}

namespace {

// An array of a flag per layer; empty where the file has none.
Result<std::vector<int32_t>> LayerFlags(const ModelFile& file, const std::string& key,
                                        uint32_t layers) {
  std::vector<int32_t> flags;
  const GgufArray* array = file.GetArray(key);
  if (array == nullptr) return flags;
  if (array->count != layers) {
    return MakeError(Code::kBadFile, fmt::format("{}: {} has {} flags for {} layers", file.path(),
                                                 key, array->count, layers));
  }
  flags.resize(layers);
  SNUG_TRY(file.ReadArray(key, flags.data()));
  return flags;
}

}  // namespace

Status ReadWindows(const ModelFile& file, uint64_t window, uint64_t pattern, ModelConfig* c) {
  const std::string key = c->arch + ".attention.sliding_window";
  window = file.GetUint(key).value_or(window);
  // A window as long as the context hides nothing.
  if (window == 0 || window >= c->trained_context) return {};
  SNUG_ASSIGN(const auto flags, LayerFlags(file, key + "_pattern", c->layers));
  if (flags.empty()) pattern = file.GetUint(key + "_pattern").value_or(pattern);
  for (uint32_t l = 0; l < c->layers; ++l) {
    const bool local = flags.empty() ? pattern == 0 || (l + 1) % pattern != 0 : flags[l] != 0;
    if (local) c->window[l] = static_cast<uint32_t>(window);
  }
  return {};
}

Status ReadRecurrentLayers(const ModelFile& file, uint64_t interval, ModelConfig* c) {
  const std::string key = c->arch + ".full_attention_interval";
  SNUG_ASSIGN(const auto flags,
              LayerFlags(file, c->arch + ".attention.recurrent_layers", c->layers));
  SNUG_ASSIGN(interval, BoundedOr(file, key, kMaxLayers, interval));
  for (uint32_t l = 0; l < c->layers; ++l) {
    c->recurrent[l] = flags.empty() ? (l + 1) % interval != 0 : flags[l] != 0;
  }
  return {};
}

Status ReadExperts(const ModelFile& file, ModelConfig* c) {
  RouterConfig& r = c->router;
  SNUG_ASSIGN(r.experts, ReadBounded(file, c->arch + ".expert_count", kMaxExperts));
  SNUG_ASSIGN(r.used, ReadBounded(file, c->arch + ".expert_used_count", r.experts));
  SNUG_ASSIGN(c->expert_ffn,
              BoundedOr(file, c->arch + ".expert_feed_forward_length", kMaxDim, c->ffn));
  c->ffn = 0;
  r.normalize = file.GetBool(c->arch + ".expert_weights_norm").value_or(r.normalize);
  SNUG_ASSIGN(r.scale, ReadFactor(file, c->arch + ".expert_weights_scale", 1));
  // Numbered as llama.cpp numbers them.
  switch (const uint64_t gate = file.GetUint(c->arch + ".expert_gating_func").value_or(0)) {
    case 0:
      break;
    case 1:
      r.score = RouterConfig::Score::kSoftmax;
      break;
    case 2:
      r.score = RouterConfig::Score::kSigmoid;
      break;
    default:
      return MakeError(Code::kBadFile,
                       fmt::format("{}: {}.expert_gating_func = {} is not supported", file.path(),
                                   c->arch, gate));
  }
  return {};
}

Status ReadSharedExpert(const ModelFile& file, ModelConfig* c) {
  SNUG_ASSIGN(c->shared_ffn, BoundedOr(file, c->arch + ".expert_shared_feed_forward_length",
                                       kMaxDim, c->expert_ffn));
  return {};
}

Result<StateConfig> ReadStateConfig(const ModelFile& file, const std::string& arch) {
  StateConfig s;
  const std::string prefix = arch + ".ssm.";
  SNUG_ASSIGN(s.conv_width, ReadBounded(file, prefix + "conv_kernel", kMaxConvWidth));
  if (s.conv_width < kMinConvWidth) {
    return MakeError(Code::kBadFile, fmt::format("{}: {}conv_kernel = {} convolves nothing",
                                                 file.path(), prefix, s.conv_width));
  }
  SNUG_ASSIGN(s.inner, ReadBounded(file, prefix + "inner_size", kMaxDim));
  SNUG_ASSIGN(s.size, ReadBounded(file, prefix + "state_size", kMaxStates));
  return s;
}

Status ReadStateHeads(const ModelFile& file, const std::string& arch, StateConfig* s) {
  SNUG_ASSIGN(s->heads, ReadBounded(file, arch + ".ssm.time_step_rank", kMaxHeads));
  SNUG_ASSIGN(s->groups, ReadBounded(file, arch + ".ssm.group_count", kMaxHeads));
  if (s->inner % s->heads != 0 || s->heads % s->groups != 0 ||
      uint64_t{s->groups} * s->size > kMaxDim / 2) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: {} channels, {} heads, {} groups and states of {} do not go together",
                    file.path(), s->inner, s->heads, s->groups, s->size));
  }
  return {};
}

}  // namespace snug
