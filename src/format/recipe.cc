#include "format/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "format/quantize.h"

namespace snug {
namespace {

struct Mix {
  std::string_view name;
  DType base;
};
constexpr Mix kMixes[] = {
    {"q2_k", DType::kQ2_K},     {"q3_k_s", DType::kQ3_K}, {"q3_k_m", DType::kQ3_K},
    {"q3_k_l", DType::kQ3_K},   {"q4_k_s", DType::kQ4_K}, {"q4_k_m", DType::kQ4_K},
    {"q5_k_s", DType::kQ5_K},   {"q5_k_m", DType::kQ5_K}, {"iq4_xs", DType::kIQ4_XS},
    {"iq4_nl", DType::kIQ4_NL},
};

// Layers that a rule holds for.
enum class Where : uint8_t {
  kAll,
  kFirstTwo,
  kFirstFour,
  kFirstSixteenth,
  kFirstEighth,
  kSensitive,
  kShared
};

// The first rule that fits decides. "head": the output matrix, tied or not. Mixes and layers as
// llama.cpp has chosen them for its files of these names.
struct Rule {
  std::string_view mix, tensor;
  DType type;
  Where where = Where::kAll;
};
constexpr Rule kRules[] = {
    {"q2_k", "attn_v", DType::kQ4_K, Where::kShared},
    {"q2_k", "attn_v", DType::kQ3_K},
    {"q2_k", "ffn_down", DType::kQ3_K},
    {"q2_k", "attn_output", DType::kQ3_K},
    {"q3_k_m", "attn_v", DType::kQ5_K, Where::kFirstTwo},
    {"q3_k_m", "attn_v", DType::kQ4_K},
    {"q3_k_m", "ffn_down", DType::kQ5_K, Where::kFirstSixteenth},
    {"q3_k_m", "ffn_down", DType::kQ4_K},
    {"q3_k_m", "attn_output", DType::kQ4_K},
    {"q3_k_m", "attn_qkv", DType::kQ4_K},
    {"q3_k_l", "attn_v", DType::kQ5_K},
    {"q3_k_l", "ffn_down", DType::kQ5_K},
    {"q3_k_l", "attn_output", DType::kQ5_K},
    {"q3_k_l", "attn_qkv", DType::kQ4_K},
    {"q4_k_s", "attn_v", DType::kQ5_K, Where::kFirstFour},
    {"q4_k_s", "ffn_down", DType::kQ5_K, Where::kFirstEighth},
    {"q4_k_m", "attn_v", DType::kQ6_K, Where::kSensitive},
    {"q4_k_m", "ffn_down", DType::kQ6_K, Where::kSensitive},
    {"q4_k_m", "attn_qkv", DType::kQ5_K},
    {"q5_k_m", "attn_v", DType::kQ6_K, Where::kSensitive},
    {"q5_k_m", "ffn_down", DType::kQ6_K, Where::kSensitive},
    {"q5_k_m", "attn_qkv", DType::kQ6_K},
    {"iq4_xs", "attn_v", DType::kQ5_K, Where::kShared},
    {"iq4_xs", "ffn_down", DType::kQ5_K, Where::kFirstEighth},
    {"iq4_nl", "attn_v", DType::kQ5_K, Where::kShared},
    {"iq4_nl", "ffn_down", DType::kQ5_K, Where::kFirstEighth},
};

// "blk.3.attn_v.weight" -> layer 3 and "attn_v"; experts' matrices go by their dense names.
struct Place {
  uint64_t layer = 0;
  std::string_view kind;
};
Place PlaceOf(std::string_view name) {
  Place p;
  if (!name.starts_with("blk.")) return p;
  name.remove_prefix(4);
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), p.layer);
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  if (error != std::errc() || !name.starts_with('.')) return {};
  name.remove_prefix(1);
  p.kind = name.substr(0, name.find('.'));
  for (const std::string_view experts : {"_exps", "_shexp"})
    if (p.kind.ends_with(experts)) p.kind.remove_suffix(experts.size());
  return p;
}

bool Holds(Where where, uint64_t layer, uint64_t layers, bool shared) {
  switch (where) {
    case Where::kAll:
      return true;
    case Where::kFirstTwo:
      return layer < 2;
    case Where::kFirstFour:
      return layer < 4;
    case Where::kFirstSixteenth:
      return layer < layers / 16;
    case Where::kFirstEighth:
      return layer < layers / 8;
    case Where::kSensitive:  // the first and last eighth, and every third between them
      return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
    case Where::kShared:
      return shared;
  }
  return false;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

}  // namespace

std::vector<std::string> RecipeNames() {
  std::vector<std::string> names;
  for (const Mix& m : kMixes) names.emplace_back(m.name);
  for (uint32_t id = 0; id < 64; ++id) {
    const DTypeInfo* type = FindDType(id);
    if (type == nullptr || !CanQuantize(type->type)) continue;
    std::string name = Lower(type->name);
    if (std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
  }
  return names;
}

Result<Recipe> FindRecipe(std::string_view name) {
  const std::string lower = Lower(name);
  for (const Mix& m : kMixes)
    if (m.name == lower) return Recipe{lower, m.base, true};
  const auto type = ParseDType(lower);
  if (type && CanQuantize(*type)) return Recipe{lower, *type, false};
  return MakeError(Code::kUsage, fmt::format("'{}' is no type of weights", name),
                   fmt::format("one of {}", fmt::join(RecipeNames(), ", ")),
                   {{"value", std::string(name)}});
}

bool Quantizable(const TensorInfo& t) {
  constexpr std::string_view kKept[] = {
      "_norm.weight", "ffn_gate_inp", "ssm_conv1d",    "ssm_a",       "ssm_d",  "ssm_dt",
      "ssm_x",        "ssm_ba",       "position_embd", "token_types", "rope_f", "attn_sinks"};
  if (t.n_dims < 2 || !t.name.ends_with(".weight")) return false;
  return std::none_of(std::begin(kKept), std::end(kKept), [&](std::string_view part) {
    return t.name.find(part) != std::string::npos;
  });
}

DType FittingType(DType type, uint64_t cols) {
  if (cols % Info(type).block == 0) return type;
  switch (type) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kIQ4_XS:
    case DType::kTQ1_0:
    case DType::kTQ2_0:
      return FittingType(DType::kIQ4_NL, cols);
    case DType::kQ4_K:
      return FittingType(DType::kQ5_0, cols);
    case DType::kQ5_K:
      return FittingType(DType::kQ5_1, cols);
    case DType::kQ6_K:
      return FittingType(DType::kQ8_0, cols);
    default:
      return DType::kF16;
  }
}

DType RecipeType(const Recipe& recipe, const ModelFile& file, const TensorInfo& tensor) {
  if (!Quantizable(tensor)) return tensor.type;
  const bool head = tensor.name == "output.weight" ||
                    (tensor.name == "token_embd.weight" && file.Find("output.weight") == nullptr);
  if (recipe.mixed && head) return FittingType(DType::kQ6_K, tensor.cols());
  if (!recipe.mixed) return FittingType(recipe.base, tensor.cols());
  const std::string arch = file.GetString("general.architecture").value_or("");
  const uint64_t layers = file.GetUint(arch + ".block_count").value_or(1);
  const uint64_t heads = file.GetUint(arch + ".attention.head_count").value_or(1);
  const uint64_t kv_heads = file.GetUint(arch + ".attention.head_count_kv").value_or(heads);
  const bool shared = kv_heads != 0 && heads / kv_heads >= 4;
  const bool experts = file.GetUint(arch + ".expert_count").value_or(0) > 1;
  const Place place = PlaceOf(tensor.name);
  // Next to the experts, keys and values cost next to nothing.
  if (experts && (place.kind == "attn_k" || place.kind == "attn_v"))
    return FittingType(DType::kQ8_0, tensor.cols());
  for (const Rule& r : kRules) {
    if (r.mix == recipe.name && r.tensor == place.kind &&
        Holds(r.where, place.layer, layers, shared))
      return FittingType(r.type, tensor.cols());
  }
  return FittingType(recipe.base, tensor.cols());
}

Status QuantizeOnLoad(ModelFile& file, const Recipe& recipe) {
  const auto is_float = [](const TensorInfo& t) {
    return Quantizable(t) &&
           (t.type == DType::kF32 || t.type == DType::kF16 || t.type == DType::kBF16);
  };
  if (std::none_of(file.tensors().begin(), file.tensors().end(), is_float)) {
    return MakeError(Code::kUsage,
                     fmt::format("{}: --weights {} quantizes weights of F32, F16 or BF16, and this "
                                 "model has none",
                                 file.path(), recipe.name),
                     "leave --weights out to run it as it is");
  }
  file.Retype(
      [&](const TensorInfo& t) { return is_float(t) ? RecipeType(recipe, file, t) : t.type; });
  return {};
}

}  // namespace snug
