// Dynamic Hierarchical Sparse Attention (arXiv 2510.24606), version 2, which needs no trained
// predictor: blocks of 128 queries read blocks of 32 keys, under each query head its own. Which,
// the attention of the prompt's last queries says (vs: whose columns and diagonals are heaviest),
// or products of the blocks' means (topk).
#include <fmt/format.h>

#include <algorithm>

#include "kv/read/registry.h"

namespace snug {
namespace {

enum Mode { kLines, kTop };
constexpr std::string_view kModes[] = {"vs", "topk"};

constexpr auto kParameters = WithBlockBudget({
    {"mode",
     "blocks by the last queries' attention, its columns and diagonals (vs), or by means (topk)",
     "vs", 0, 1, true, kModes},
});

// Vertical and slash lines. A digest is, for each block of keys, the sum of the chosen columns in
// it, and for each distance the sum of the chosen ones before it.
class VerticalSlash final : public BlockMethod {
 public:
  explicit VerticalSlash(const BlockBudget& budget) : BlockMethod(budget) {}

  bool by_lines() const override { return true; }
  size_t DigestBytes(uint32_t tokens) const override {
    return (SlashAt(tokens) + (size_t{tokens} + 1) * sizeof(double) + 63) / 64 * 64;
  }
  void Digest(const AttentionLines& lines, float* room, uint32_t* numbers,
              uint8_t* digest) const override {
    const uint32_t n = lines.tokens;
    const auto count = static_cast<uint32_t>(
        std::min<uint64_t>(n, uint64_t{budget().Blocks(n)} * budget().keys / 2));
    auto* vertical = reinterpret_cast<float*>(digest);
    std::fill_n(vertical, budget().KeyBlocks(n), 0.0f);
    ChooseLargest({lines.columns, n}, count, room, numbers);
    for (uint32_t i = 0; i < count; ++i) {
      vertical[numbers[i] / budget().keys] += lines.columns[numbers[i]];
    }
    auto* slash = reinterpret_cast<double*>(digest + SlashAt(n));
    ChooseLargest({lines.distances, n}, count, room, numbers);
    double sum = 0;
    for (uint32_t d = 0, i = 0; d < n; ++d) {
      slash[d] = sum;
      if (i < count && numbers[i] == d) sum += lines.distances[numbers[i++]];
    }
    slash[n] = sum;
  }
  void Score(const PromptHead& head, uint32_t row, uint32_t first, uint32_t last,
             float* scores) const override {
    const int64_t queries = budget().queries, keys = budget().keys, n = head.tokens;
    const auto* vertical = reinterpret_cast<const float*>(head.digest);
    const auto* slash = reinterpret_cast<const double*>(head.digest + SlashAt(head.tokens));
    for (uint32_t b = first; b < last; ++b) {
      // Distances from a query of the block to a key of this one.
      const int64_t nearest = row * queries - (b * keys + keys - 1);
      const int64_t farthest = row * queries + queries - 1 - b * keys;
      const double crossing = slash[std::clamp<int64_t>(farthest + 1, 0, n)] -
                              slash[std::clamp<int64_t>(nearest, 0, n)];
      scores[b - first] = vertical[b] + static_cast<float>(crossing);
    }
  }

 private:
  size_t SlashAt(uint32_t tokens) const {
    return (budget().KeyBlocks(tokens) * sizeof(float) + 63) / 64 * 64;
  }
};

class TopBlocks final : public BlockMethod {
 public:
  explicit TopBlocks(const BlockBudget& budget) : BlockMethod(budget) {}
  bool sees_future() const override { return true; }
  void Score(const PromptHead& head, uint32_t row, uint32_t first, uint32_t last,
             float* scores) const override {
    ScoreMeans(head, row, first, last, scores);
  }
};

}  // namespace

const ReadEntry kReadDhsa = {
    "dhsa",
    "2025, arXiv 2510.24606 (version 2)",
    "of a prompt, the blocks of keys that its last queries' attention, or means, point at",
    "nothing; of a prompt the columns and diagonals of its last queries' attention, or means",
    kParameters,
    [](std::span<const double> values) -> Result<std::shared_ptr<ReadMethod>> {
      SNUG_ASSIGN(const BlockBudget budget, BlockBudgetOf(values, "dhsa"));
      if (static_cast<Mode>(values[kOwnBlockValues]) == kTop) {
        return std::shared_ptr<ReadMethod>(std::make_shared<TopBlocks>(budget));
      }
      return std::shared_ptr<ReadMethod>(std::make_shared<VerticalSlash>(budget));
    },
};

}  // namespace snug
