// StreamingLLM (Xiao et al. 2023, arXiv 2309.17453): the first tokens, which attention leans on
// whatever they say, and the last ones.
#include <algorithm>

#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {
    BudgetParameter("0.2"),
    kLeastParameter,
    {"sinks", "first tokens that stay", "4", 0, 1e6, true},
};

class SinkWindow final : public KeepMethod {
 public:
  explicit SinkWindow(std::span<const double> values)
      : budget_(ReadBudget(values)), sinks_(static_cast<uint32_t>(values[2])) {}

  uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens);
  }
  uint32_t RowsBeforeGaps(uint32_t rows) const override { return std::min(rows, sinks_); }
  uint32_t Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
                KeepRoom room) const override {
    const uint32_t* positions = layer.Positions(head);
    return DropLeast(layer, head, {sinks_, 1}, dropped, room,
                     [&](uint32_t r) { return positions[r]; });
  }

 private:
  const KeepBudget budget_;
  const uint32_t sinks_;
};

}  // namespace

const KeepEntry kKeepSinkWindow = {
    "sink-window",
    "Xiao et al. 2023, arXiv 2309.17453",
    "the first tokens and the last ones",
    "nothing",
    kParameters,
    MakeMethod<KeepMethod, SinkWindow>,
};

}  // namespace snug
