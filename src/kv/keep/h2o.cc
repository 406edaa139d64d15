// H2O (Zhang et al. 2023, arXiv 2306.14048): the last tokens, and those that got the most attention
// from all queries so far. Sums of dropped tokens are forgotten, those of others go on.
#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {
    BudgetParameter("0.2"),
    kLeastParameter,
    RecentParameter("0.5"),
};

class H2o final : public KeepMethod {
 public:
  explicit H2o(std::span<const double> values) : budget_(ReadBudget(values)), recent_(values[2]) {}

  Observations observes() const override { return {kAllQueries, true, true, {}}; }
  uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens);
  }
  uint32_t Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
                KeepRoom room) const override {
    return DropLeastAttended(layer, head, recent_, dropped, room);
  }

 private:
  const KeepBudget budget_;
  const double recent_;
};

}  // namespace

const KeepEntry kKeepH2o = {
    "h2o",
    "Zhang et al. 2023, arXiv 2306.14048",
    "the last tokens and those that got the most attention",
    "column sums over all queries",
    kParameters,
    MakeMethod<KeepMethod, H2o>,
};

}  // namespace snug
