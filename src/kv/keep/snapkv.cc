// SnapKV (Li et al. 2024, arXiv 2404.14469): at the end of a prompt, its last tokens and those that
// the last queries attended to most, each judged together with its neighbours. The answer's tokens
// all stay, up to a number that bounds the cache; beyond it the answer's oldest go.
#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {
    BudgetParameter("0.2"),
    kLeastParameter,
    {"window", "last queries of the prompt that judge, and stay", "32", 1, 1e6, true},
    {"pool", "neighbours that are judged together (an odd number)", "5", 1, 1023, true},
    kAnswerParameter,
};

class SnapKv final : public KeepMethod {
 public:
  explicit SnapKv(std::span<const double> values)
      : budget_(ReadBudget(values)),
        window_(static_cast<uint32_t>(values[2])),
        half_(static_cast<uint32_t>(values[3]) / 2),
        answer_(static_cast<uint32_t>(values[4])) {}

  Observations observes() const override { return {window_, false, false, {}}; }
  uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens);
  }
  uint32_t RowsAtMost(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens) + answer_;
  }
  uint32_t Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
                KeepRoom room) const override {
    if (room.order.empty()) return DropFromAnswer(layer, head, answer_, dropped);
    // Means over neighbours by position, of what lies before the window.
    const uint32_t rows = layer.rows;
    OrderByPosition(layer, head, room.order);
    const float* sums = layer.Sums(head);
    const uint32_t judged = rows - std::min(rows, window_);
    for (uint32_t i = 0; i < rows; ++i) {
      float sum = 0;
      const uint32_t last = std::min(judged, i + half_ + 1);
      for (uint32_t n = i - std::min(i, half_); n < last; ++n) sum += sums[room.order[n]];
      room.scores[room.order[i]] = sum;
    }
    return DropLeast(layer, head, {0, window_}, dropped, room,
                     [&](uint32_t r) { return room.scores[r]; });
  }

 private:
  const KeepBudget budget_;
  const uint32_t window_, half_, answer_;
};

}  // namespace

const KeepEntry kKeepSnapKv = {
    "snapkv",
    "Li et al. 2024, arXiv 2404.14469",
    "the prompt's last tokens, those that they attend to most, and the answer's last tokens",
    "column sums over the last queries of the prompt",
    kParameters,
    MakeMethod<KeepMethod, SnapKv>,
};

}  // namespace snug
