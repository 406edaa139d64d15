// What Hugging Face and GGUF call the same things, as tables: one entry per architecture.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "format/model_file.h"

namespace snug {

class HfFolder;

// A key of config.json and the GGUF key, without the architecture's prefix, that it becomes.
struct HfKey {
  enum class Kind : uint8_t { kUint, kFloat, kBool };
  std::string_view json, key;
  Kind kind = Kind::kUint;
  bool needed = false;
};

// A key of config.json that has to be absent, null, or one of these JSON texts, separated by '|',
// because the layer graph knows no other.
struct HfFixed {
  std::string_view json, values;
};

// Some rows of a tensor, in runs.
struct HfRows {
  struct Run {
    uint64_t first = 0, count = 0;
  };
  uint64_t of = 0;  // the tensor's rows
  std::vector<Run> runs{};
};

// How a tensor of the folder becomes one of GGUF's.
struct HfView {
  TensorSource::Value value = TensorSource::Value::kAsStored;
  bool transposed = false;      // the folder has [.., inputs, outputs]
  bool column = false;          // a vector that GGUF has as a column
  uint8_t part = 0, parts = 1;  // every parts-th value of the last dimension, from `part` on
  // The rows that it takes, in GGUF's order, where that is not all of them in the folder's. The
  // hyper-parameters are set by then.
  Result<HfRows> (*rows)(const HfFolder&) = nullptr;
};

// Numbers in names are '#': the layer, then the expert. Experts of a layer become one tensor of
// three dimensions.
struct HfTensor {
  std::string_view name, gguf;
  HfView view = {};
};

struct HfArchitecture {
  std::string_view model_type;  // in config.json
  std::string_view class_name;  // of transformers, in its "architectures"
  std::string_view gguf;        // general.architecture
  std::array<std::span<const HfTensor>, 3> tensors;
  std::span<const HfKey> keys = {};  // beside those that all share
  std::span<const HfFixed> fixed = {};
  // What transformers takes for keys that config.json leaves out, as JSON.
  std::string_view defaults = "{}";
  // Whether GGUF has the rows of attn_q and attn_k permuted so that rotary pairs are neighbours,
  // where the folder has their halves apart.
  bool interleaved = false;
  // Sets what the tables cannot say.
  Status (*finish)(HfFolder&, const Json& config) = nullptr;
};

std::span<const HfArchitecture> HfArchitectures();
const HfArchitecture* FindHfArchitecture(std::string_view model_type);
// Keys that every architecture's config.json may have.
std::span<const HfKey> HfSharedKeys();
// A tensor's name with its numbers replaced by '#', and the numbers.
struct HfPattern {
  std::string text;
  std::vector<uint64_t> numbers;
};
HfPattern MakeHfPattern(std::string_view name);
// Whether a tensor is none of the language model's: vision, buffers that files of old versions
// hold, heads for several tokens.
bool HfIgnores(std::string_view tensor);

}  // namespace snug
