// Keyformer (Adnan et al. 2024, arXiv 2403.09054): as H2O, but what is summed are the weights of a
// softmax with Gumbel noise and a temperature that rises while the answer grows, which makes up for
// the share of dropped tokens. Attention itself knows neither.
#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {
    BudgetParameter("0.6"),
    kLeastParameter,
    RecentParameter("0.3"),
    {"noise", "1: Gumbel noise, 0: none", "1", 0, 1, true},
    {"first", "temperature in the prompt", "1", 1e-3, 1e3},
    {"last", "temperature at the end of the answer", "2", 1e-3, 1e3},
    {"answer", "tokens of answer over which the temperature changes", "512", 1, 1e9, true},
    {"seed", "of the noise", "0", 0, 1e9, true},
};

class Keyformer final : public KeepMethod {
 public:
  explicit Keyformer(std::span<const double> values)
      : budget_(ReadBudget(values)), recent_(values[2]) {
    observes_ = {kAllQueries, true, true, {}};
    observes_.noise = {true,      values[3] != 0, static_cast<uint64_t>(values[7]),
                       values[4], values[5],      static_cast<uint32_t>(values[6])};
  }

  Observations observes() const override { return observes_; }
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
  Observations observes_;
};

}  // namespace

const KeepEntry kKeepKeyformer = {
    "keyformer",
    "Adnan et al. 2024, arXiv 2403.09054",
    "the last tokens and those that got the most attention, noise and rising temperature apart",
    "column sums over all queries of a noisy, flattened softmax",
    kParameters,
    MakeMethod<KeepMethod, Keyformer>,
};

}  // namespace snug
