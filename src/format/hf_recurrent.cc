#include "format/hf_recurrent.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/hf_config.h"
#include "format/hf_folder.h"

namespace snug {
namespace {

// Bounds that keep products of two sizes small; models have far less.
constexpr uint64_t kMaxSize = 1 << 20, kMaxGroups = 1 << 12;

// What a folder of Mamba says in other words, and a context: nothing bounds it.
Status FinishMambaOf(HfFolder& folder, const Json& config, const std::string& arch) {
  SNUG_ASSIGN(const auto dim, HfUint(folder, config, "hidden_size"));
  SNUG_ASSIGN(const auto inner, HfUint(folder, config, "intermediate_size"));
  SNUG_ASSIGN(const auto expand, HfUint(folder, config, "expand"));
  if (expand.value_or(2) > 64) return folder.Bad("config.json", "expand is impossible");
  folder.SetUint(arch + ".ssm.inner_size", inner ? *inner : dim.value_or(0) * expand.value_or(2));
  folder.SetUint(arch + ".context_length", 1 << 20);
  return {};
}

// The rows that one group of in_proj_qkvz has of each kind.
struct DeltaGroups {
  uint64_t groups = 0, keys = 0, values = 0;  // values: of all value heads of the group
  uint64_t rows() const { return 2 * keys + 2 * values; }
};

Result<DeltaGroups> ReadDeltaGroups(const HfFolder& folder) {
  DeltaGroups g;
  g.groups = folder.GetUint("qwen3next.ssm.group_count").value_or(0);
  g.keys = folder.GetUint("qwen3next.ssm.state_size").value_or(0);
  const uint64_t inner = folder.GetUint("qwen3next.ssm.inner_size").value_or(0);
  if (g.groups < 1 || g.groups > kMaxGroups || g.keys < 1 || g.keys > kMaxSize || inner < 1 ||
      inner > kMaxSize || inner % g.groups != 0) {
    return folder.Bad("config.json", fmt::format("{} key heads of {} and {} channels of values do "
                                                 "not go together",
                                                 g.groups, g.keys, inner));
  }
  g.values = inner / g.groups;
  return g;
}

}  // namespace

Status FinishMamba(HfFolder& folder, const Json& config) {
  SNUG_TRY(FinishMambaOf(folder, config, "mamba"));
  const Json rank = config.value("time_step_rank", Json("auto"));
  if (rank == "auto") {
    SNUG_ASSIGN(const auto dim, HfUint(folder, config, "hidden_size"));
    folder.SetUint("mamba.ssm.time_step_rank", (dim.value_or(0) + 15) / 16);
    return {};
  }
  SNUG_ASSIGN(const auto value, HfUint(folder, config, "time_step_rank"));
  if (value) folder.SetUint("mamba.ssm.time_step_rank", *value);
  return {};
}

Status FinishFalconMamba(HfFolder& folder, const Json& config) {
  folder.SetBool("mamba.ssm.dt_b_c_rms", true);
  return FinishMamba(folder, config);
}

Status FinishMamba2(HfFolder& folder, const Json& config) {
  // Steps are clamped to these limits, where they limit anything.
  if (const auto limit = config.find("time_step_limit"); limit != config.end()) {
    const bool open = limit->is_array() && limit->size() == 2 && (*limit)[0].is_number() &&
                      (*limit)[0] <= 0 && !(*limit)[1].is_number();
    if (!open && !limit->is_null())
      return folder.Bad("config.json", "a time_step_limit is not supported");
  }
  return FinishMambaOf(folder, config, "mamba2");
}

Result<HfRows> DeltaQkvRows(const HfFolder& folder) {
  SNUG_ASSIGN(const DeltaGroups g, ReadDeltaGroups(folder));
  HfRows rows{g.groups * g.rows()};
  const HfRows::Run kinds[] = {{0, g.keys}, {g.keys, g.keys}, {2 * g.keys, g.values}};
  for (const HfRows::Run& kind : kinds)
    for (uint64_t i = 0; i < g.groups; ++i)
      rows.runs.push_back({i * g.rows() + kind.first, kind.count});
  return rows;
}

Result<HfRows> DeltaGateRows(const HfFolder& folder) {
  SNUG_ASSIGN(const DeltaGroups g, ReadDeltaGroups(folder));
  HfRows rows{g.groups * g.rows()};
  for (uint64_t i = 0; i < g.groups; ++i)
    rows.runs.push_back({i * g.rows() + 2 * g.keys + g.values, g.values});
  return rows;
}

Status FinishQwen3Next(HfFolder& folder, const Json& config) {
  SNUG_ASSIGN(const auto heads, HfUint(folder, config, "linear_num_value_heads"));
  SNUG_ASSIGN(const auto dim, HfUint(folder, config, "linear_value_head_dim"));
  if (!heads || !dim || *heads > kMaxSize || *dim > kMaxSize) {
    return folder.Bad("config.json",
                      "linear_num_value_heads and linear_value_head_dim are impossible");
  }
  folder.SetUint("qwen3next.ssm.inner_size", *heads * *dim);
  // Which layers have attention: each by its name, or every so many-th.
  const auto types = config.find("layer_types");
  if (types == config.end() || types->is_null()) {
    SNUG_ASSIGN(const auto interval, HfUint(folder, config, "full_attention_interval"));
    if (interval) folder.SetUint("qwen3next.full_attention_interval", *interval);
    return {};
  }
  if (types->size() != folder.GetUint("qwen3next.block_count")) {
    return folder.Bad("config.json",
                      fmt::format("layer_types has {} layers, num_hidden_layers is {}",
                                  types->size(), *folder.GetUint("qwen3next.block_count")));
  }
  std::vector<int32_t> recurrent;
  for (const Json& type : *types) {
    if (type != "linear_attention" && type != "full_attention") {
      return folder.Bad("config.json",
                        fmt::format("layer_types has {}", DumpJson(type).substr(0, 60)),
                        "supported: linear_attention, full_attention");
    }
    recurrent.push_back(type == "linear_attention" ? 1 : 0);
  }
  const auto first = std::find(recurrent.begin(), recurrent.end(), 0) - recurrent.begin() + 1;
  for (size_t l = 0; l < recurrent.size(); ++l) {
    if ((recurrent[l] == 0) == ((l + 1) % static_cast<size_t>(first) == 0)) continue;
    folder.SetInts("qwen3next.attention.recurrent_layers", std::move(recurrent));
    return {};
  }
  folder.SetUint("qwen3next.full_attention_interval", static_cast<uint64_t>(first));
  return {};
}

}  // namespace snug
