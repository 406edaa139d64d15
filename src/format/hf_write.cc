#include "format/hf_write.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "format/gguf_convert.h"
#include "format/hf_architectures.h"
#include "format/hf_write_config.h"
#include "format/recipe.h"

namespace snug {
namespace {

// Tensors that become keys of config.json.
bool IsConfiguration(std::string_view name) {
  return name == "rope_freqs.weight" || name == "rope_factors_short.weight" ||
         name == "rope_factors_long.weight";
}

// x of what GGUF keeps as x + 1, and as -e^x.
float MinusOne(float x) { return x - 1; }
float LogOfMinus(float x) { return std::log(-x); }

// What a rule says of a GGUF tensor, undone.
class WrittenTensors {
 public:
  WrittenTensors(const ModelFile& file, const HfArchitecture& architecture, DType type,
                 HfPlan* plan)
      : file_(file), architecture_(architecture), type_(type), plan_(plan) {
    for (const auto& table : architecture.tensors)
      for (const HfTensor& rule : table) rules_.emplace(rule.gguf, &rule);
  }

  Status Add(const TensorInfo& t) {
    const HfPattern pattern = MakeHfPattern(t.name);
    const auto it = rules_.find(pattern.text);
    if (it == rules_.end()) {
      return MakeError(Code::kBadFile,
                       fmt::format("{}: tensor {} has no name in folders of {}", file_.path(),
                                   t.name, architecture_.model_type),
                       "keep the model as GGUF", {{"tensor", t.name}});
    }
    const HfTensor& rule = *it->second;
    Reencoding r{.tensor = &t, .rows = t.rows()};
    if (architecture_.interleaved) {
      SNUG_ASSIGN(r,
                  RotaryRows(file_, std::string(architecture_.gguf), t, false, &plan_->reshaped));
    }
    if (rule.view.value == TensorSource::Value::kPlusOne) r.value = MinusOne;
    if (rule.view.value == TensorSource::Value::kMinusExp) r.value = LogOfMinus;
    r.type = Quantizable(t) ? type_ : DType::kF32;
    if (Experts(rule)) return AddExperts(t, rule, pattern, r);
    std::vector<uint64_t> shape(t.dims.begin(), t.dims.begin() + t.n_dims);
    std::reverse(shape.begin(), shape.end());
    if (rule.view.column && shape.size() == 2 && shape[1] == 1) shape.pop_back();
    if (rule.gguf.ends_with("ssm_conv1d.weight")) shape.insert(shape.begin() + 1, 1);
    if (rule.gguf.ends_with("ssm_norm.weight")) shape = {t.rows() * t.cols()};
    Put({Name(rule, pattern.numbers), r.type, std::move(shape)}, r);
    return {};
  }

 private:
  static bool Experts(const HfTensor& rule) {
    return std::count(rule.name.begin(), rule.name.end(), '#') == 2;
  }

  // Each expert is a tensor of its own.
  Status AddExperts(const TensorInfo& t, const HfTensor& rule, const HfPattern& pattern,
                    Reencoding r) {
    r.rows = t.dims[1];
    for (uint64_t e = 0; e < t.dims[2]; ++e) {
      std::vector<uint64_t> numbers = pattern.numbers;
      numbers.push_back(e);
      r.first_row = e * r.rows;
      Put({Name(rule, numbers), r.type, {r.rows, t.cols()}}, r);
    }
    return {};
  }

  static std::string Name(const HfTensor& rule, const std::vector<uint64_t>& numbers) {
    std::string name;
    size_t n = 0;
    for (const char c : rule.name) {
      if (c != '#') {
        name += c;
      } else if (n < numbers.size()) {
        name += std::to_string(numbers[n++]);
      }
    }
    return name;
  }

  void Put(HfTensorSpec spec, const Reencoding& r) {
    plan_->specs.push_back(std::move(spec));
    plan_->work.push_back(r);
  }

  const ModelFile& file_;
  const HfArchitecture& architecture_;
  const DType type_;
  HfPlan* plan_;
  std::map<std::string_view, const HfTensor*> rules_;  // the first of a name
};

uint64_t BytesOf(const HfTensorSpec& s) {
  uint64_t n = Info(s.type).bytes;
  for (const uint64_t d : s.shape) n *= d;
  return n;
}

}  // namespace

Result<HfPlan> PlanHfFolder(const ModelFile& file, DType type, const std::vector<bool>& windowed) {
  HfPlan plan;
  SNUG_ASSIGN(const HfArchitecture* architecture, FolderArchitecture(file));
  SNUG_ASSIGN(plan.config, MakeHfConfig(file, *architecture, type, windowed));
  plan.generation = MakeHfGeneration(file);
  for (const auto& [key, value] : plan.generation.items()) plan.config[key] = value;
  WrittenTensors tensors(file, *architecture, type, &plan);
  for (const TensorInfo& t : file.tensors())
    if (!IsConfiguration(t.name)) SNUG_TRY(tensors.Add(t));
  return plan;
}

Status WriteSafetensors(const ModelFile& file, const HfPlan& plan, const std::string& path,
                        const std::string& options, Ledger& ledger, ThreadPool& pool,
                        const std::function<void(const WriteProgress&)>& progress,
                        const std::atomic<bool>* cancel) {
  // Readers expect the format's name among the metadata.
  Json json = {{"__metadata__", {{"format", "pt"}}}};
  std::vector<PlacedTensor> tensors;
  uint64_t at = 0;
  for (size_t i = 0; i < plan.specs.size(); ++i) {
    const HfTensorSpec& s = plan.specs[i];
    const uint64_t bytes = BytesOf(s);
    json[s.name] = {{"dtype", std::string(Info(s.type).name)},
                    {"shape", s.shape},
                    {"data_offsets", {at, at + bytes}}};
    tensors.push_back({plan.work[i], at, bytes});
    at += bytes;
  }
  std::string text = DumpJson(json);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto n = static_cast<uint64_t>(text.size());
  std::string header(reinterpret_cast<const char*>(&n), sizeof(n));
  header += text;
  return WriteTensors(file, header, tensors, at, path, options, ledger, pool, progress, cancel);
}

}  // namespace snug
