// Which type each weight gets when a model is quantized: one type for all, or one of the mixes that
// llama.cpp's users know by name (q4_k_m, ...), which spend more bits where they matter most.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/model_file.h"

namespace snug {

struct Recipe {
  std::string name;           // "q4_k_m"
  DType base = DType::kQ4_K;  // of matrices that no rule names
  bool mixed = false;         // whether rules apply
};
// Recipes go by their names, and every stored type by its own. kUsage lists them.
Result<Recipe> FindRecipe(std::string_view name);
std::vector<std::string> RecipeNames();

// Whether a tensor is a matrix of products whose weights may be quantized: not norms, biases,
// routers, convolutions, nor what a state space reads value by value.
bool Quantizable(const TensorInfo& tensor);
// The type a tensor of the model gets: its own where it is not Quantizable; the nearest with a
// smaller block where its rows are no multiple of the block.
DType RecipeType(const Recipe& recipe, const ModelFile& file, const TensorInfo& tensor);
DType FittingType(DType type, uint64_t cols);

// Has every quantizable tensor that is stored as floats read in the recipe's type. kUsage where the
// model has none.
Status QuantizeOnLoad(ModelFile& file, const Recipe& recipe);

}  // namespace snug
