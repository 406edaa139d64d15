#include "format/hf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace snug {
namespace {

constexpr uint64_t kMaxConfig = 16 << 20;
constexpr uint64_t kMaxLayers = 1 << 16, kMaxFactors = 1 << 16;

// Python writes NaN and Infinity where JSON has no word for them: null there.
std::string WithoutInfinities(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    std::string_view word;
    if (!quoted) {
      for (const std::string_view w : {"-Infinity", "Infinity", "NaN"})
        if (text.substr(i, w.size()) == w) word = w;
    }
    if (!word.empty()) {
      out += "null";
      i += word.size() - 1;
      continue;
    }
    if (text[i] == '"') quoted = !quoted;
    out += text[i];
    if (text[i] == '\\' && quoted && i + 1 < text.size()) out += text[++i];
  }
  return out;
}

const Json* Find(const Json& config, std::string_view key) {
  const auto it = config.find(key);
  return it == config.end() || it->is_null() ? nullptr : &*it;
}

Error Mistyped(const HfFolder& folder, std::string_view key, const Json& value, const char* kind) {
  std::string text = DumpJson(value);
  if (text.size() > 60) text.replace(60, std::string::npos, "...");
  return folder.Bad("config.json", fmt::format("{} is {}, expected {}", key, text, kind));
}

template <class T, class Is>
Result<std::optional<T>> Typed(const HfFolder& folder, const Json& config, std::string_view key,
                               const char* kind, Is is) {
  const Json* value = Find(config, key);
  if (value == nullptr) return std::optional<T>();
  if (!is(*value)) return Mistyped(folder, key, *value, kind);
  return std::optional<T>(value->get<T>());
}

Result<std::vector<float>> Numbers(const HfFolder& folder, const Json& config,
                                   std::string_view key) {
  const Json* list = Find(config, key);
  const bool good = list != nullptr && list->is_array() && list->size() <= kMaxFactors &&
                    std::all_of(list->begin(), list->end(),
                                [](const Json& v) { return v.is_number() && v.get<double>() > 0; });
  if (!good) {
    return Mistyped(folder, key, list == nullptr ? Json() : *list, "an array of positive numbers");
  }
  std::vector<float> values;
  for (const Json& v : *list) values.push_back(v.get<float>());
  return values;
}

// Llama 3's scaling: what each frequency is divided by (Grattafiori et al. 2024). Those whose wave
// is shorter than a part of the trained context stay, those longer than another part are scaled,
// and between the two it changes smoothly.
Status AddLlama3Divisors(HfFolder& folder, const Json& rope, double base, uint64_t dim) {
  double value[4];
  constexpr std::string_view kKeys[] = {"factor", "low_freq_factor", "high_freq_factor",
                                        "original_max_position_embeddings"};
  for (int i = 0; i < 4; ++i) {
    SNUG_ASSIGN(const auto v, HfFloat(folder, rope, kKeys[i]));
    if (!v || !(*v > 0))
      return folder.Bad("config.json", fmt::format("rotary scaling 'llama3' needs {}", kKeys[i]));
    value[i] = *v;
  }
  const auto [factor, low, high, context] = value;
  if (high <= low)
    return folder.Bad("config.json", "high_freq_factor is not above low_freq_factor");
  std::vector<float> divisors;
  for (uint64_t i = 0; i < dim; i += 2) {
    const double wave =
        2 * M_PI * std::pow(base, static_cast<double>(i) / static_cast<double>(dim));
    double divisor = factor;
    if (wave < context / high) {
      divisor = 1;
    } else if (wave <= context / low) {
      const double smooth = (context / wave - low) / (high - low);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  folder.AddComputed("rope_freqs.weight", std::move(divisors));
  return {};
}

// LongRoPE (Ding et al. 2024): two sets of divisors, for contexts up to the original and beyond.
Status AddLongDivisors(HfFolder& folder, const Json& config, const Json& rope,
                       const std::string& prefix) {
  SNUG_ASSIGN(std::vector<float> shorter, Numbers(folder, rope, "short_factor"));
  SNUG_ASSIGN(std::vector<float> longer, Numbers(folder, rope, "long_factor"));
  folder.AddComputed("rope_factors_short.weight", std::move(shorter));
  folder.AddComputed("rope_factors_long.weight", std::move(longer));
  SNUG_ASSIGN(auto original, HfFloat(folder, rope, "original_max_position_embeddings"));
  if (!original) {
    SNUG_ASSIGN(original, HfFloat(folder, config, "original_max_position_embeddings"));
  }
  SNUG_ASSIGN(const auto context, HfFloat(folder, config, "max_position_embeddings"));
  SNUG_ASSIGN(const auto given, HfFloat(folder, rope, "attention_factor"));
  if (!original || !context || !(*original > 1))
    return folder.Bad("config.json", "LongRoPE needs original_max_position_embeddings");
  const double scale = *context / *original;
  const double factor = given        ? *given
                        : scale <= 1 ? 1
                                     : std::sqrt(1 + std::log(scale) / std::log(*original));
  folder.SetFloat(prefix + "scaling.attn_factor", factor);
  folder.SetUint(prefix + "scaling.original_context_length", static_cast<uint64_t>(*original));
  return {};
}

Status ReadYarn(HfFolder& folder, const Json& rope, const std::string& prefix, double factor) {
  folder.SetString(prefix + "scaling.type", "yarn");
  folder.SetFloat(prefix + "scaling.factor", factor);
  struct Item {
    std::string_view json;
    const char* key;
  };
  for (const Item& i :
       {Item{"beta_fast", "scaling.yarn_beta_fast"}, Item{"beta_slow", "scaling.yarn_beta_slow"}}) {
    SNUG_ASSIGN(const auto value, HfFloat(folder, rope, i.json));
    if (value) folder.SetFloat(prefix + i.key, *value);
  }
  SNUG_ASSIGN(const auto original, HfUint(folder, rope, "original_max_position_embeddings"));
  if (original) folder.SetUint(prefix + "scaling.original_context_length", *original);
  // GGUF's factor multiplies YaRN's own, the folder's replaces it.
  SNUG_ASSIGN(const auto attention, HfFloat(folder, rope, "attention_factor"));
  if (attention) {
    const double own = 0.1 * std::log(std::max(factor, 1.0)) + 1;
    folder.SetFloat(prefix + "scaling.attn_factor", *attention / own);
  }
  SNUG_ASSIGN(const auto truncate, HfBool(folder, rope, "truncate"));
  if (truncate) folder.SetBool(prefix + "scaling.yarn_truncate", *truncate);
  return {};
}

// Rotary parameters: rope_parameters, or rope_theta and rope_scaling beside it.
Status ReadRope(HfFolder& folder, const Json& config, const std::string& arch) {
  const std::string prefix = arch + ".rope.";
  Json rope = Json::object();
  for (const char* key : {"rope_theta", "partial_rotary_factor"})
    if (const Json* v = Find(config, key)) rope[key] = *v;
  const Json* given = Find(config, "rope_parameters");
  if (given == nullptr) given = Find(config, "rope_scaling");
  if (given != nullptr && !given->is_object())
    return Mistyped(folder, "rope_parameters", *given, "an object");
  if (given != nullptr) {
    // One set for each kind of layer.
    if (const Json* sliding = Find(*given, "sliding_attention")) {
      SNUG_ASSIGN(const auto base, HfFloat(folder, *sliding, "rope_theta"));
      if (base) folder.SetFloat(prefix + "freq_base_swa", *base);
    }
    const Json* full = Find(*given, "full_attention");
    if (full != nullptr && !full->is_object())
      return Mistyped(folder, "full_attention", *full, "an object");
    for (const auto& [key, value] : (full != nullptr ? *full : *given).items()) rope[key] = value;
  }

  SNUG_ASSIGN(const auto local, HfFloat(folder, config, "rope_local_base_freq"));
  if (local) folder.SetFloat(prefix + "freq_base_swa", *local);
  SNUG_ASSIGN(const auto base, HfFloat(folder, rope, "rope_theta"));
  if (base) folder.SetFloat(prefix + "freq_base", *base);
  SNUG_ASSIGN(auto head, HfUint(folder, config, "head_dim"));
  if (!head) {
    SNUG_ASSIGN(const auto dim, HfUint(folder, config, "hidden_size"));
    SNUG_ASSIGN(const auto heads, HfUint(folder, config, "num_attention_heads"));
    if (heads && *heads == 0) return folder.Bad("config.json", "num_attention_heads is 0");
    head = heads ? dim.value_or(0) / *heads : 0;
  }
  if (*head > 1 << 20) return folder.Bad("config.json", "head_dim is impossible");
  SNUG_ASSIGN(const auto part, HfFloat(folder, rope, "partial_rotary_factor"));
  if (part && !(*part > 0 && *part <= 1))
    return folder.Bad("config.json", "partial_rotary_factor is outside 0 .. 1");
  const auto dim = static_cast<uint64_t>(static_cast<double>(*head) * part.value_or(1));
  if (dim > 0) folder.SetUint(prefix + "dimension_count", dim);

  SNUG_ASSIGN(auto type, HfString(folder, rope, "rope_type"));
  if (!type) {
    SNUG_ASSIGN(type, HfString(folder, rope, "type"));
  }
  // "dynamic" differs from no scaling only beyond the trained context; positions of several
  // dimensions are all the same for text.
  if (!type || *type == "default" || *type == "dynamic" || *type == "mrope") return {};
  if (*type == "llama3") return AddLlama3Divisors(folder, rope, base.value_or(10000), dim);
  if (*type == "longrope" || *type == "su") return AddLongDivisors(folder, config, rope, prefix);
  SNUG_ASSIGN(const auto factor, HfFloat(folder, rope, "factor"));
  if ((*type == "linear" || *type == "yarn") && (!factor || !(*factor > 0)))
    return folder.Bad("config.json", fmt::format("rotary scaling '{}' needs a factor", *type));
  if (*type == "yarn") return ReadYarn(folder, rope, prefix, *factor);
  if (*type == "linear") {
    folder.SetString(prefix + "scaling.type", "linear");
    folder.SetFloat(prefix + "scaling.factor", *factor);
    return {};
  }
  return folder.Bad("config.json", fmt::format("rotary scaling '{}' is not supported", *type),
                    "supported: default, dynamic, linear, yarn, llama3, longrope");
}

// The window, and every how many layers one attends to everything (0 where none does), or which
// layers have the window.
Status ReadWindows(HfFolder& folder, const Json& config, const std::string& arch) {
  SNUG_ASSIGN(const auto window, HfUint(folder, config, "sliding_window"));
  SNUG_ASSIGN(const auto used, HfBool(folder, config, "use_sliding_window"));
  const std::string key = arch + ".attention.sliding_window";
  if (window && used.value_or(true)) folder.SetUint(key, *window);
  for (const char* name : {"sliding_window_pattern", "_sliding_window_pattern"}) {
    const Json* period = Find(config, name);
    if (period != nullptr && period->is_number_unsigned())
      folder.SetUint(key + "_pattern", period->get<uint64_t>());
  }
  const Json* types = Find(config, "layer_types");
  if (types == nullptr) return {};
  if (!types->is_array() || types->size() > kMaxLayers)
    return Mistyped(folder, "layer_types", *types, "an array of names");
  const auto full = [&](size_t l) { return (*types)[l] != "sliding_attention"; };
  const size_t layers = types->size();
  size_t first = 0, windows = 0;
  for (size_t l = 0; l < layers; ++l) windows += full(l) ? 0 : 1;
  if (windows == 0) return {};
  while (first < layers && !full(first)) ++first;
  const size_t period = first == layers ? 0 : first + 1;
  bool periodic = true;
  for (size_t l = 0; l < layers; ++l)
    periodic = periodic && full(l) == (period != 0 && (l + 1) % period == 0);
  if (!periodic) {
    std::vector<int32_t> flags(layers);
    for (size_t l = 0; l < layers; ++l) flags[l] = full(l) ? 0 : 1;
    folder.SetInts(key + "_pattern", std::move(flags));
    return {};
  }
  folder.SetUint(key + "_pattern", period);
  return {};
}

Status CheckFixed(const HfFolder& folder, const Json& config, const HfFixed& fixed) {
  const Json* value = Find(config, fixed.json);
  if (value == nullptr) return {};
  const std::string text = DumpJson(*value);
  for (size_t at = 0; at <= fixed.values.size();) {
    const size_t end = std::min(fixed.values.find('|', at), fixed.values.size());
    if (fixed.values.substr(at, end - at) == text) return {};
    at = end + 1;
  }
  return folder.Bad("config.json",
                    fmt::format("{} is {}, which is not supported", fixed.json, text.substr(0, 60)),
                    fixed.values.empty() ? "" : fmt::format("supported: {}", fixed.values));
}

}  // namespace

Result<Json> ReadHfJson(const HfFolder& folder, const std::string& name, bool needed) {
  const std::string path = folder.path() + "/" + name;
  std::error_code error;
  if (!needed && !std::filesystem::exists(path, error)) return Json::object();
  SNUG_ASSIGN(const std::string text, ReadWholeFile(path, kMaxConfig));
  auto json = ParseJson(WithoutInfinities(text), path, {kMaxConfig, 32});
  if (!json.ok()) {
    Error e = std::move(json).error();
    e.code = Code::kBadFile;
    return e;
  }
  if (!json->is_object()) return folder.Bad(name, "is no JSON object");
  return json;
}

Json TextConfig(const Json& config) {
  const Json* text = Find(config, "text_config");
  if (text == nullptr || !text->is_object()) return config;
  Json merged = *text;
  for (const auto& [key, value] : config.items())
    if (!merged.contains(key) && key != "text_config" && key != "vision_config")
      merged[key] = value;
  return merged;
}

Result<std::optional<uint64_t>> HfUint(const HfFolder& folder, const Json& config,
                                       std::string_view key) {
  return Typed<uint64_t>(folder, config, key, "a whole number",
                         [](const Json& v) { return v.is_number_unsigned(); });
}
Result<std::optional<double>> HfFloat(const HfFolder& folder, const Json& config,
                                      std::string_view key) {
  return Typed<double>(folder, config, key, "a number",
                       [](const Json& v) { return v.is_number(); });
}
Result<std::optional<bool>> HfBool(const HfFolder& folder, const Json& config,
                                   std::string_view key) {
  return Typed<bool>(folder, config, key, "true or false",
                     [](const Json& v) { return v.is_boolean(); });
}
Result<std::optional<std::string>> HfString(const HfFolder& folder, const Json& config,
                                            std::string_view key) {
  return Typed<std::string>(folder, config, key, "a text",
                            [](const Json& v) { return v.is_string(); });
}

Status ReadHfConfig(HfFolder& folder, const Json& config, const HfArchitecture& architecture) {
  const std::string arch(architecture.gguf);
  folder.SetString("general.architecture", arch);
  folder.SetString("general.type", "model");
  folder.SetString("general.name",
                   std::filesystem::path(folder.path()).lexically_normal().filename().string());
  const auto set = [&](const HfKey& k) -> Status {
    const std::string key = arch + "." + std::string(k.key);
    bool found = false;
    if (k.kind == HfKey::Kind::kUint) {
      SNUG_ASSIGN(const auto value, HfUint(folder, config, k.json));
      if (value) folder.SetUint(key, *value);
      found = value.has_value();
    } else if (k.kind == HfKey::Kind::kFloat) {
      SNUG_ASSIGN(const auto value, HfFloat(folder, config, k.json));
      if (value) folder.SetFloat(key, *value);
      found = value.has_value();
    } else {
      SNUG_ASSIGN(const auto value, HfBool(folder, config, k.json));
      if (value) folder.SetBool(key, *value);
      found = value.has_value();
    }
    if (!found && k.needed) return folder.Bad("config.json", fmt::format("{} is missing", k.json));
    return {};
  };
  for (const HfFixed& f : architecture.fixed) SNUG_TRY(CheckFixed(folder, config, f));
  for (const HfKey& k : architecture.keys) SNUG_TRY(set(k));
  for (const HfKey& k : HfSharedKeys()) SNUG_TRY(set(k));
  SNUG_TRY(ReadRope(folder, config, arch));
  SNUG_TRY(ReadWindows(folder, config, arch));
  if (architecture.interleaved) folder.SetBool(arch + ".rope.interleaved", false);
  if (architecture.finish != nullptr) SNUG_TRY(architecture.finish(folder, config));
  return {};
}

}  // namespace snug
