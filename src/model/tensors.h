// The tensors of a model by the role they play: what an architecture declares, and what its layer
// graph sees of a part in memory.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "kernel/matmul.h"
#include "model/config.h"
#include "weights/layout.h"

namespace snug {

enum class Role : uint8_t {
  // Of the model.
  kOutputNorm,
  kRopeDivisors,
  kLongRopeDivisors,
  kPositions,
  kTokenTypes,
  kInputNorm,
  kInputNormBias,
  // Attention.
  kAttnNorm,
  kQ,
  kK,
  kV,
  kO,
  kQBias,
  kKBias,
  kVBias,
  kOBias,
  kQNorm,
  kKNorm,
  kSinks,
  kPostAttnNorm,
  kPostAttnNormBias,
  // Feed-forward, also of one expert.
  kFfnNorm,
  kGate,
  kUp,
  kDown,
  kGateBias,
  kUpBias,
  kDownBias,
  kPostFfnNorm,
  kPostFfnNormBias,
  // Mixtures of experts.
  kRouter,
  kRouterBias,
  kRouterCorrection,
  kSharedRouter,
  kSharedGate,
  kSharedUp,
  kSharedDown,
  // Recurrent layers.
  kSsmIn,
  kSsmGate,
  kSsmGates,
  kConv,
  kConvBias,
  kSsmX,
  kSsmDt,
  kSsmDtBias,
  kSsmA,
  kSsmD,
  kSsmNorm,
  kSsmOut,
  kCount,
};
inline constexpr size_t kRoles = static_cast<size_t>(Role::kCount);

// A tensor of a layer: its role, its GGUF name after "blk.N.", and its shape. Made by the functions
// below.
struct LayerTensor {
  Role role;
  std::string_view name;
  uint32_t rows = 0, cols = 0;
  bool packed = true;     // a matrix of products; else float32 values as they lie (norms, biases)
  bool optional = false;  // absent in some files: its view is then null
  uint32_t first_row = 0, of_rows = 0;  // the rows of a fused tensor of so many; 0: all its rows
  uint32_t experts = 0;                 // stacked, one per expert: part of the experts' parts
};
using LayerTensors = std::vector<LayerTensor>;

LayerTensor Matrix(Role role, std::string_view name, uint32_t rows, uint32_t cols);
LayerTensor Vector(Role role, std::string_view name, uint32_t size);
// A matrix that is read value by value, as float32.
LayerTensor Values(Role role, std::string_view name, uint32_t rows, uint32_t cols);
// Rows [first_row, first_row + rows) of a fused matrix of `of_rows` rows.
LayerTensor Slice(Role role, std::string_view name, uint32_t first_row, uint32_t rows,
                  uint32_t of_rows, uint32_t cols);
LayerTensor Optional(LayerTensor tensor);
LayerTensor PerExpert(uint32_t experts, LayerTensor tensor);

// attn_q, attn_k, attn_v and attn_output, with biases where the file has them.
LayerTensors AttentionTensors(const ModelConfig& c);
// ffn_gate, ffn_up and ffn_down, with biases where the file has them.
LayerTensors GatedFfnTensors(const ModelConfig& c);
// The router, and its experts' gate, up and down, with biases where the file has them.
LayerTensors ExpertTensors(const ModelConfig& c);
// The expert that serves every token, and its own gate where the file has one.
LayerTensors SharedExpertTensors(const ModelConfig& c);
LayerTensors Join(std::initializer_list<LayerTensors> lists);

// A part's weights as the graph sees them: views into the memory that holds them.
struct LayerWeights {
  std::array<PackedMatrix, kRoles> matrix{};
  std::array<const float*, kRoles> vector{};
  const PackedMatrix& operator[](Role r) const { return matrix[static_cast<size_t>(r)]; }
  PackedMatrix& operator[](Role r) { return matrix[static_cast<size_t>(r)]; }
  const float* vec(Role r) const { return vector[static_cast<size_t>(r)]; }
};
// Views of the tensors of a part at `base`.
LayerWeights ViewPart(const Part& part, const uint8_t* base);

}  // namespace snug
