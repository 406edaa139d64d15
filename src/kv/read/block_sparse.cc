// Plain block-sparse attention, the baseline of methods that choose blocks: a block of queries
// reads, of the blocks of keys that it sees, the first, the newest, and those whose mean key has
// the largest product with its mean query, under each query head its own.
#include "kv/read/registry.h"

namespace snug {
namespace {

class BlockSparse final : public BlockMethod {
 public:
  explicit BlockSparse(const BlockBudget& budget) : BlockMethod(budget) {}
  void Score(const PromptHead& head, uint32_t row, uint32_t first, uint32_t last,
             float* scores) const override {
    ScoreMeans(head, row, first, last, scores);
  }
};

}  // namespace

const ReadEntry kReadBlockSparse = {
    "block-sparse",
    "a baseline",
    "of a prompt, the blocks of keys whose means look best to a block of queries",
    "nothing; of a prompt the means of its blocks",
    kBlockBudgetParameters,
    [](std::span<const double> values) -> Result<std::shared_ptr<ReadMethod>> {
      SNUG_ASSIGN(const BlockBudget budget, BlockBudgetOf(values, "block-sparse"));
      return std::shared_ptr<ReadMethod>(std::make_shared<BlockSparse>(budget));
    },
};

}  // namespace snug
