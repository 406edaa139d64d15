// A baseline: the first tokens, the last ones, and of the rest a sample that is the same whenever
// the same sequence is read.
#include "base/random.h"

#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {
    BudgetParameter("0.2"),
    kLeastParameter,
    {"sinks", "first tokens that stay", "4", 0, 1e6, true},
    RecentParameter("0.5"),
    {"seed", "of the sample", "0", 0, 1e9, true},
};

class Random final : public KeepMethod {
 public:
  explicit Random(std::span<const double> values)
      : budget_(ReadBudget(values)),
        sinks_(static_cast<uint32_t>(values[2])),
        recent_(values[3]),
        seed_(static_cast<uint64_t>(values[4])) {}

  uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens);
  }
  uint32_t Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
                KeepRoom room) const override {
    const uint32_t* positions = layer.Positions(head);
    const uint64_t key = Mix64(Mix64(seed_) + (uint64_t{layer.layer} << 32) + head);
    return DropLeast(layer, head, {sinks_, ShareOf(recent_, layer.stay)}, dropped, room,
                     [&](uint32_t r) { return Mix64(key ^ Mix64(positions[r])); });
  }

 private:
  const KeepBudget budget_;
  const uint32_t sinks_;
  const double recent_;
  const uint64_t seed_;
};

}  // namespace

const KeepEntry kKeepRandom = {
    "random",  "a baseline", "the first tokens, the last ones, and a random sample of the rest",
    "nothing", kParameters,  MakeMethod<KeepMethod, Random>,
};

}  // namespace snug
