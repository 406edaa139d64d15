#include "format/hf_write_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "format/tensor_rows.h"

namespace snug {
namespace {

// The shortest decimal that is this float32.
Json Shortest(double value) {
  return std::strtod(fmt::format("{}", static_cast<float>(value)).c_str(), nullptr);
}

Error Unsayable(const ModelFile& file, const std::string& what) {
  return MakeError(Code::kBadFile,
                   fmt::format("{}: config.json has no words for {}", file.path(), what),
                   "keep the model as GGUF", {{"path", file.path()}});
}

// A tensor of one dimension that configurations list.
Result<std::vector<float>> Values(const ModelFile& file, const TensorInfo& t) {
  constexpr uint64_t kMost = 1 << 16;
  if (t.rows() != 1 || t.cols() > kMost) return Unsayable(file, t.name + " of this size");
  std::vector<float> values(t.cols());
  std::vector<uint8_t> buffer(RowBufferBytes(t));
  SNUG_TRY(ReadRow(file.files(), t, 0, buffer, values.data()));
  return values;
}

// Llama 3's scaling from its divisors. They show the factor, and of the ramp between unscaled and
// scaled frequencies where it lies, which with the two factors of all published models gives the
// original context.
Result<Json> Llama3Scaling(const ModelFile& file, const std::vector<float>& divisors, double base) {
  constexpr double kLow = 1, kHigh = 4, kContext = 8192;
  const auto n = static_cast<double>(2 * divisors.size());
  const double factor = *std::max_element(divisors.begin(), divisors.end());
  const auto wave = [&](size_t i) {
    return 2 * M_PI * std::pow(base, 2 * static_cast<double>(i) / n);
  };
  double context = kContext;  // where no frequency lies within the ramp
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double d = divisors[i];
    if (d < 1 + 1e-4 || d > factor * (1 - 1e-4)) continue;
    const double smooth = (1 / d - 1 / factor) / (1 - 1 / factor);
    context = std::round(wave(i) * (kLow + smooth * (kHigh - kLow)));
    break;
  }
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double smooth = std::clamp((context / wave(i) - kLow) / (kHigh - kLow), 0.0, 1.0);
    const double expected = 1 / ((1 - smooth) / factor + smooth);
    if (!(std::abs(divisors[i] - expected) < 1e-4 * expected))
      return Unsayable(file, "the divisors of rope_freqs.weight");
  }
  return Json{{"rope_type", "llama3"},
              {"factor", Shortest(factor)},
              {"low_freq_factor", kLow},
              {"high_freq_factor", kHigh},
              {"original_max_position_embeddings", static_cast<uint64_t>(context)}};
}

Result<Json> RopeScaling(const ModelFile& file, const std::string& prefix, double base) {
  const auto number = [&](const char* key) { return file.GetFloat(prefix + key); };
  const auto original = file.GetUint(prefix + "scaling.original_context_length");
  const TensorInfo* shorter = file.Find("rope_factors_short.weight");
  const TensorInfo* longer = file.Find("rope_factors_long.weight");
  if (shorter != nullptr && longer != nullptr) {
    SNUG_ASSIGN(const std::vector<float> few, Values(file, *shorter));
    SNUG_ASSIGN(const std::vector<float> many, Values(file, *longer));
    Json j = {{"rope_type", "longrope"}, {"type", "longrope"}};
    for (const auto& [name, values] :
         {std::pair("short_factor", &few), std::pair("long_factor", &many)}) {
      j[name] = Json::array();
      for (const float v : *values) j[name].push_back(Shortest(v));
    }
    if (original) j["original_max_position_embeddings"] = *original;
    if (const auto f = number("scaling.attn_factor")) j["attention_factor"] = Shortest(*f);
    return j;
  }
  if (const TensorInfo* divisors = file.Find("rope_freqs.weight")) {
    SNUG_ASSIGN(const std::vector<float> values, Values(file, *divisors));
    return Llama3Scaling(file, values, base);
  }
  const std::string type = file.GetString(prefix + "scaling.type").value_or("none");
  if (type == "none") return Json();
  const double factor = number("scaling.factor").value_or(1);
  if (type == "linear") return Json{{"rope_type", "linear"}, {"factor", Shortest(factor)}};
  if (type != "yarn") return Unsayable(file, fmt::format("rotary scaling '{}'", type));
  Json j = {{"rope_type", "yarn"}, {"factor", Shortest(factor)}};
  if (original) j["original_max_position_embeddings"] = *original;
  if (const auto v = number("scaling.yarn_beta_fast")) j["beta_fast"] = Shortest(*v);
  if (const auto v = number("scaling.yarn_beta_slow")) j["beta_slow"] = Shortest(*v);
  // GGUF's factor multiplies YaRN's own, a folder's replaces it.
  if (const auto v = number("scaling.attn_factor"); v && *v != 1)
    j["attention_factor"] = Shortest(*v * (0.1 * std::log(std::max(factor, 1.0)) + 1));
  if (const auto v = file.GetBool(prefix + "scaling.yarn_truncate")) j["truncate"] = *v;
  return j;
}

Status AddRope(const ModelFile& file, const std::string& arch, Json* config) {
  const std::string prefix = arch + ".rope.";
  const double base = file.GetFloat(prefix + "freq_base").value_or(10000);
  (*config)["rope_theta"] = Shortest(base);
  if (const auto local = file.GetFloat(prefix + "freq_base_swa"))
    (*config)["rope_local_base_freq"] = Shortest(*local);
  SNUG_ASSIGN(const Json scaling, RopeScaling(file, prefix, base));
  (*config)["rope_scaling"] = scaling;
  const auto rotated = file.GetUint(prefix + "dimension_count");
  const auto head = file.GetUint(arch + ".attention.key_length");
  const uint64_t whole =
      head ? *head
           : file.GetUint(arch + ".embedding_length").value_or(0) /
                 std::max<uint64_t>(1, file.GetUint(arch + ".attention.head_count").value_or(1));
  if (rotated && *rotated != whole && whole != 0)
    (*config)["partial_rotary_factor"] = static_cast<double>(*rotated) / static_cast<double>(whole);
  return {};
}

// What Gemma's and Mamba's configurations say in their own ways.
void AddOwn(const ModelFile& file, const std::string& arch, Json* config) {
  Json& c = *config;
  if (arch == "gemma2" || arch == "gemma3") {
    const auto scale = file.GetFloat(arch + ".attention.scale");
    c["query_pre_attn_scalar"] = scale ? Shortest(1 / (*scale * *scale)) : c["head_dim"];
  }
  if (!arch.starts_with("mamba")) return;
  const uint64_t inner = file.GetUint(arch + ".ssm.inner_size").value_or(0);
  const uint64_t dim = file.GetUint(arch + ".embedding_length").value_or(0);
  const uint64_t rank = file.GetUint(arch + ".ssm.time_step_rank").value_or(0);
  for (const char* key : {"num_attention_heads", "num_key_value_heads", "head_dim", "rope_theta",
                          "rope_scaling", "max_position_embeddings"})
    c.erase(key);
  c["intermediate_size"] = inner;
  if (dim != 0) c["expand"] = inner / dim;
  if (arch == "mamba") c["time_step_rank"] = rank;
  if (arch == "mamba2" && rank != 0) c["head_dim"] = inner / rank;
}

}  // namespace

Result<const HfArchitecture*> FolderArchitecture(const ModelFile& file) {
  SNUG_ASSIGN(const std::string arch, file.NeedString("general.architecture"));
  std::string type;
  for (const HfArchitecture& a : HfArchitectures())
    if (a.gguf == arch && type.empty()) type = a.model_type;
  if (arch == "llama") {
    const bool experts = file.GetUint("llama.expert_count").value_or(0) > 0;
    const bool window = file.GetUint("llama.attention.sliding_window").value_or(0) > 0;
    type = experts ? "mixtral" : window ? "mistral" : "llama";
  } else if (arch == "mamba") {
    type = file.GetBool("mamba.ssm.dt_b_c_rms").value_or(false) ? "falcon_mamba" : "mamba";
  } else if (arch == "gemma3") {
    type = "gemma3_text";
  }
  // A folder of GPT-OSS has its experts in a form of its own, and one of an encoder says what
  // becomes of hidden states in files of sentence-transformers; for Qwen3-Next see gguf_convert.cc.
  if (type.empty() || arch == "gpt-oss" || arch == "bert" || arch == "qwen3next") {
    return MakeError(Code::kUsage,
                     fmt::format("{}: {} models are not written as folders", file.path(), arch),
                     "keep the model as GGUF", {{"architecture", arch}});
  }
  return FindHfArchitecture(type);
}

Result<Json> MakeHfConfig(const ModelFile& file, const HfArchitecture& a, DType type,
                          const std::vector<bool>& windowed) {
  const std::string arch(a.gguf);
  Json c = {{"architectures", {std::string(a.class_name)}},
            {"model_type", std::string(a.model_type)}};
  for (const HfFixed& f : a.fixed) {
    const std::string_view value = f.values.substr(0, f.values.find('|'));
    if (!value.empty()) c[std::string(f.json)] = Json::parse(value);
  }
  const auto add = [&](const HfKey& k) {
    const std::string key = arch + "." + std::string(k.key), name(k.json);
    if (k.kind == HfKey::Kind::kUint) {
      if (const auto v = file.GetUint(key); v && !c.contains(name)) c[name] = *v;
    } else if (k.kind == HfKey::Kind::kFloat) {
      if (const auto v = file.GetFloat(key); v && !c.contains(name)) c[name] = Shortest(*v);
    } else if (const auto v = file.GetBool(key); v && !c.contains(name)) {
      c[name] = *v;
    }
  };
  for (const HfKey& k : a.keys) add(k);
  for (const HfKey& k : HfSharedKeys()) add(k);
  const TensorInfo* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr) return Unsayable(file, "a model without token_embd.weight");
  c["vocab_size"] = embedding->rows();
  c["tie_word_embeddings"] = file.Find("output.weight") == nullptr;
  const uint64_t heads = file.GetUint(arch + ".attention.head_count").value_or(0);
  if (!c.contains("head_dim") && heads != 0)
    c["head_dim"] = file.GetUint(arch + ".embedding_length").value_or(0) / heads;
  const bool biased = file.Find("blk.0.attn_q.bias") != nullptr;
  if (biased && arch != "qwen2") c["attention_bias"] = true;
  if (file.Find("blk.0.ffn_up.bias") != nullptr) c["mlp_bias"] = true;
  SNUG_TRY(AddRope(file, arch, &c));
  if (std::find(windowed.begin(), windowed.end(), true) != windowed.end()) {
    c.erase("use_sliding_window");
    c["sliding_window"] = file.GetUint(arch + ".attention.sliding_window").value_or(0);
    c["layer_types"] = Json::array();
    for (const bool w : windowed)
      c["layer_types"].push_back(w ? "sliding_attention" : "full_attention");
  } else if (!a.defaults.empty() && Json::parse(a.defaults).contains("sliding_window")) {
    c["sliding_window"] = nullptr;
  }
  AddOwn(file, arch, &c);
  c["torch_dtype"] = type == DType::kF32 ? "float32" : type == DType::kF16 ? "float16" : "bfloat16";
  return c;
}

Json MakeHfGeneration(const ModelFile& file) {
  Json j = Json::object();
  const auto add = [&](const char* name, const char* key) {
    // Writers say "none" as -1, in 32 bits without a sign too.
    const auto id = file.GetInt(std::string("tokenizer.ggml.") + key);
    if (id && *id >= 0 && *id != UINT32_MAX) j[name] = *id;
  };
  add("bos_token_id", "bos_token_id");
  add("eos_token_id", "eos_token_id");
  add("pad_token_id", "padding_token_id");
  constexpr char kEnds[] = "tokenizer.ggml.eog_token_ids";
  std::vector<int64_t> ends;
  if (j.contains("eos_token_id")) ends.push_back(j["eos_token_id"].get<int64_t>());
  const auto end = [&](int64_t id) {
    if (id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  };
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = file.GetInt(key); id && *id != UINT32_MAX) end(*id);
  if (const GgufArray* list = file.GetArray(kEnds); list != nullptr && list->count <= 4096) {
    std::vector<int32_t> ids(list->count);
    if (file.ReadArray(kEnds, ids.data()).ok())
      for (const int32_t id : ids) end(id);
  }
  if (ends.size() > 1) j["eos_token_id"] = ends;
  return j;
}

}  // namespace snug
