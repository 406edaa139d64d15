// A GGUF model as a Hugging Face folder: config.json and generation_config.json under transformers'
// keys, and its tensors under transformers' names in one safetensors file. What hf_architectures.cc
// says of reading, the other way round.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "format/model_file.h"
#include "format/reencode.h"
#include "format/tensor_writer.h"

namespace snug {

struct HfTensorSpec {
  std::string name;
  DType type = DType::kF32;     // F32, F16 or BF16
  std::vector<uint64_t> shape;  // outermost first
};

struct HfPlan {
  Json config, generation;
  std::vector<HfTensorSpec> specs;
  std::vector<Reencoding> work;     // of each spec
  std::deque<TensorInfo> reshaped;  // tensors of the work that the file has in another shape
};

// `type` (F32, F16, BF16) is what Quantizable tensors become; the others become float32. `windowed`
// says of each layer whether its attention has the window. Errors: kUsage for architectures that
// have no folder, or whose folders are not written; kBadFile for what a folder cannot say.
Result<HfPlan> PlanHfFolder(const ModelFile& file, DType type, const std::vector<bool>& windowed);

// The file's name in a folder.
inline constexpr char kSafetensorsName[] = "model.safetensors";
// Writes the plan's tensors to `path`, resumably; see WriteTensors.
Status WriteSafetensors(const ModelFile& file, const HfPlan& plan, const std::string& path,
                        const std::string& options, Ledger& ledger, ThreadPool& pool,
                        const std::function<void(const WriteProgress&)>& progress,
                        const std::atomic<bool>* cancel);

}  // namespace snug
