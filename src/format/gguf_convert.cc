#include "format/gguf_convert.h"

#include <fmt/format.h>

#include <algorithm>

namespace snug {
namespace {

constexpr uint32_t kQuantizationVersion = 2;  // of ggml's block formats

bool StartsWithAny(std::string_view text, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view p) { return text.starts_with(p); });
}

// Keys that the new file has its own values of, or no use for.
bool IsReplaced(const std::string& key) {
  return StartsWithAny(key, {"split.", "general.file_type", "general.quantization_version",
                             "general.alignment", "quantize.imatrix"}) ||
         key.ends_with(".rope.interleaved");
}

// Heads of the rows of a matrix or vector of queries or keys; 0 for others.
uint64_t RotaryHeads(const ModelFile& file, const std::string& arch, const std::string& name) {
  const uint64_t heads = file.GetUint(arch + ".attention.head_count").value_or(0);
  for (const std::string_view end : {".attn_q.weight", ".attn_q.bias"})
    if (name.ends_with(end)) return heads;
  for (const std::string_view end : {".attn_k.weight", ".attn_k.bias"})
    if (name.ends_with(end)) return file.GetUint(arch + ".attention.head_count_kv").value_or(heads);
  return 0;
}

bool IsFloat(DType t) { return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16; }

Status SetImportance(const ModelFile& file, const TensorInfo& t, const Importance* importance,
                     Reencoding* r) {
  if (importance == nullptr) return {};
  const auto it = importance->find(t.name);
  if (it == importance->end()) return {};
  const uint64_t slices = t.dims[2] * t.dims[3], values = it->second.size();
  if (values != t.cols() && values != t.cols() * slices) {
    return MakeError(Code::kBadFile,
                     fmt::format("importance of {} has {} values for {} columns of {}", t.name,
                                 values, t.cols(), file.path()),
                     "calibrate this very model", {{"tensor", t.name}});
  }
  r->importance = it->second.data();
  r->rows_per_slice = values == t.cols() ? t.rows() : t.dims[1];
  return {};
}

Result<Reencoding> PlanTensor(const ModelFile& file, const std::string& arch, const TensorInfo& t,
                              GgufPlan* plan) {
  const bool apart = !file.GetBool(arch + ".rope.interleaved").value_or(true);
  return apart ? RotaryRows(file, arch, t, true, &plan->reshaped)
               : Reencoding{.tensor = &t, .rows = t.rows()};
}

}  // namespace

Result<Reencoding> RotaryRows(const ModelFile& file, const std::string& arch, const TensorInfo& t,
                              bool join, std::deque<TensorInfo>* reshaped) {
  Reencoding r{.tensor = &t, .rows = t.rows()};
  const uint64_t heads = RotaryHeads(file, arch, t.name);
  if (heads == 0) return r;
  // A bias has its rows side by side.
  if (t.n_dims == 1) {
    TensorInfo column = t;
    std::swap(column.dims[0], column.dims[1]);
    if (column.source != nullptr) return r;
    r.tensor = &reshaped->emplace_back(std::move(column));
    r.rows = t.cols();
  }
  if (r.rows % (2 * heads) != 0) {
    return MakeError(Code::kBadFile, fmt::format("{}: {} has {} rows for {} heads", file.path(),
                                                 t.name, r.rows, heads));
  }
  r.half = r.rows / heads / 2;
  r.join = join;
  return r;
}

uint32_t FileTypeOf(const Recipe& recipe) {
  struct Number {
    std::string_view name;
    uint32_t number;
  };
  constexpr Number kNumbers[] = {
      {"f32", 0},     {"f16", 1},     {"q4_0", 2},    {"q4_1", 3},    {"q8_0", 7},
      {"q5_0", 8},    {"q5_1", 9},    {"q2_k", 10},   {"q3_k_s", 11}, {"q3_k_m", 12},
      {"q3_k", 12},   {"q3_k_l", 13}, {"q4_k_s", 14}, {"q4_k_m", 15}, {"q4_k", 15},
      {"q5_k_s", 16}, {"q5_k_m", 17}, {"q5_k", 17},   {"q6_k", 18},   {"iq4_nl", 25},
      {"iq4_xs", 30}, {"bf16", 32},   {"tq1_0", 36},  {"tq2_0", 37},  {"mxfp4", 38}};
  for (const Number& n : kNumbers)
    if (n.name == recipe.name) return n.number;
  return kMixedFileType;
}

Result<GgufPlan> PlanGguf(const ModelFile& file,
                          const std::function<DType(const TensorInfo&)>& type_of,
                          uint32_t file_type, const Importance* importance,
                          const std::function<Status(GgufHeader&)>& add_tokenizer) {
  GgufPlan plan;
  SNUG_ASSIGN(const std::string arch, file.NeedString("general.architecture"));
  if (arch == "qwen3next" && add_tokenizer != nullptr) {
    // Its folders have projections of several heads interleaved by groups, which are read as they
    // are but not written.
    return MakeError(
        Code::kUsage, fmt::format("{}: folders of {} are not converted", file.path(), arch),
        "run the folder itself; --weights quantizes it as it is loaded", {{"architecture", arch}});
  }
  for (const std::string& key : file.keys())
    if (!IsReplaced(key)) SNUG_TRY(plan.header.Copy(file, key));
  plan.header.AddUint("general.file_type", file_type);
  plan.header.AddUint("general.quantization_version", kQuantizationVersion);
  if (add_tokenizer != nullptr) SNUG_TRY(add_tokenizer(plan.header));
  for (const TensorInfo& t : file.tensors()) {
    SNUG_ASSIGN(Reencoding r, PlanTensor(file, arch, t, &plan));
    if (Quantizable(t)) {
      r.type = type_of(t);
      SNUG_TRY(SetImportance(file, t, importance, &r));
    } else {
      r.type = IsFloat(t.type) ? DType::kF32 : t.type;
    }
    GgufTensorSpec spec{t.name, r.type, t.dims, t.n_dims};
    // Mamba 2's norm over groups, a vector in folders.
    const uint64_t groups = file.GetUint(arch + ".ssm.group_count").value_or(0);
    if (t.name.ends_with(".ssm_norm.weight") && t.n_dims == 1 && groups != 0 &&
        t.cols() % groups == 0) {
      spec.dims = {t.cols() / groups, groups, 1, 1};
      spec.n_dims = 2;
    }
    plan.header.AddTensor(spec);
    plan.specs.push_back(std::move(spec));
    plan.work.push_back(r);
  }
  return plan;
}

Status WriteGguf(const ModelFile& file, const GgufPlan& plan, const std::string& path,
                 const std::string& options, Ledger& ledger, ThreadPool& pool,
                 const std::function<void(const WriteProgress&)>& progress,
                 const std::atomic<bool>* cancel) {
  std::vector<PlacedTensor> tensors;
  for (size_t i = 0; i < plan.work.size(); ++i)
    tensors.push_back({plan.work[i], plan.header.offset(i), plan.specs[i].bytes()});
  return WriteTensors(file, plan.header.Finish(), tensors, plan.header.data_bytes(), path, options,
                      ledger, pool, progress, cancel);
}

}  // namespace snug
