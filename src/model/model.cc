#include "model/model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/blocks.h"
#include "model/registry.h"

namespace snug {
namespace {

struct Architecture {
  std::string_view name;
  Result<std::unique_ptr<Model>> (*open)(const ModelFile&);
};
constexpr Architecture kArchitectures[] = {
    {"bert", OpenBert},       {"gemma2", OpenGemma2},     {"gemma3", OpenGemma3},
    {"gpt-oss", OpenGptOss},  {"granite", OpenGranite},   {"llama", OpenLlama},
    {"mamba", OpenMamba},     {"mamba2", OpenMamba2},     {"olmo2", OpenOlmo2},
    {"olmoe", OpenOlmoe},     {"phi3", OpenPhi3},         {"qwen2", OpenQwen2},
    {"qwen3", OpenQwen3},     {"qwen3moe", OpenQwen3Moe}, {"qwen3next", OpenQwen3Next},
    {"smollm3", OpenSmolLm3},
};

}  // namespace

std::vector<std::string_view> Model::Architectures() {
  std::vector<std::string_view> names;
  for (const Architecture& a : kArchitectures) names.push_back(a.name);
  return names;
}

LayerTensors Model::Globals() const {
  return {Vector(Role::kOutputNorm, "output_norm.weight", config_.dim),
          Optional(Vector(Role::kRopeDivisors, "rope_freqs.weight", config_.rope.dim / 2))};
}

void Model::Keys(Blocks& b, uint32_t layer, const LayerWeights& w) const {
  b.Norm(w.vec(Role::kAttnNorm));
  b.ProjectQkv(w);
  b.RotateAndStore(layer, w);
}

Result<std::unique_ptr<Model>> Model::Open(const ModelFile& file) {
  SNUG_ASSIGN(const std::string arch, file.NeedString("general.architecture"));
  for (const Architecture& a : kArchitectures) {
    if (a.name == arch) return a.open(file);
  }
  return MakeError(
      Code::kBadFile, fmt::format("{}: architecture '{}' is not supported", file.path(), arch),
      fmt::format("supported: {}", fmt::join(Architectures(), ", ")), {{"architecture", arch}});
}

}  // namespace snug
