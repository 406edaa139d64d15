// TOVA (Oren et al. 2024, arXiv 2401.06104): after every token, the one goes that the last query
// attended to least, on average over the heads of the layer, which keep the same tokens.
#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {BudgetParameter("0.2"), kLeastParameter};

class Tova final : public KeepMethod {
 public:
  explicit Tova(std::span<const double> values) : budget_(ReadBudget(values)) {}

  Observations observes() const override { return {1, true, false, {}}; }
  uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens);
  }
  uint32_t Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
                KeepRoom room) const override {
    return DropLeast(layer, head, {0, 1}, dropped, room, [&](uint32_t r) {
      float sum = 0;
      for (uint32_t h = 0; h < layer.heads; ++h) sum += layer.Sums(h)[r];
      return sum;
    });
  }

 private:
  const KeepBudget budget_;
};

}  // namespace

const KeepEntry kKeepTova = {
    "tova",
    "Oren et al. 2024, arXiv 2401.06104",
    "what the last token attends to most, the same tokens in all heads of a layer",
    "column sums over the last query",
    kParameters,
    MakeMethod<KeepMethod, Tova>,
};

}  // namespace snug
