// Any model file as a GGUF file: what each tensor becomes, and the writing of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/threads.h"
#include "format/gguf_write.h"
#include "format/model_file.h"
#include "format/recipe.h"
#include "format/reencode.h"
#include "format/tensor_writer.h"

namespace snug {

// Importance of the columns of each matrix, by tensor name: [cols], or [experts, cols].
using Importance = std::map<std::string, std::vector<float>, std::less<>>;

struct GgufPlan {
  GgufHeader header;
  std::vector<GgufTensorSpec> specs;
  std::vector<Reencoding> work;     // of each spec
  std::deque<TensorInfo> reshaped;  // tensors of the work that the file has in another shape
};

// Chooses every tensor's type: `type_of(tensor)` for those that are Quantizable. The others, and
// all of one dimension, become float32 where a folder has fewer bits. `importance` may be null and
// has to outlive the plan. Tensors of architectures whose GGUF files interleave rotary rows are
// joined that way where they come from a folder. Fills the header with the file's metadata but the
// tokenizer's arrays, which a folder keeps elsewhere: `add_tokenizer` adds them, and may be null.
// Errors: kBadFile for an importance that does not fit its tensor.
Result<GgufPlan> PlanGguf(const ModelFile& file,
                          const std::function<DType(const TensorInfo&)>& type_of,
                          uint32_t file_type, const Importance* importance,
                          const std::function<Status(GgufHeader&)>& add_tokenizer);

// How the rows of a matrix or bias of queries or keys are written where rotary pairs are to become
// neighbours (`join`), as in GGUF files of the Llama family, or come apart again, as in folders;
// other tensors as they are. A bias is reshaped, and put in `reshaped`. kBadFile where rows are no
// whole heads.
Result<Reencoding> RotaryRows(const ModelFile& file, const std::string& arch, const TensorInfo& t,
                              bool join, std::deque<TensorInfo>* reshaped);

// llama.cpp's number for files of a recipe (general.file_type), or of mixed types.
uint32_t FileTypeOf(const Recipe& recipe);
inline constexpr uint32_t kMixedFileType = 1024;  // "guessed", as llama.cpp calls it

// Writes the plan to `path`, going on where an earlier run with the same sources and `options` was
// interrupted. `progress` and `cancel` may be null. Errors: kIo, kDoesNotFit, kCancelled.
Status WriteGguf(const ModelFile& file, const GgufPlan& plan, const std::string& path,
                 const std::string& options, Ledger& ledger, ThreadPool& pool,
                 const std::function<void(const WriteProgress&)>& progress,
                 const std::atomic<bool>* cancel);

}  // namespace snug
