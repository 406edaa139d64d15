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
    {"answer", "tokens after the prompt that stay", "512", 1, 1e9, true},
};

class SnapKv final : public KeepMethod {
 public:
  explicit SnapKv(std::span<const double> values)
      : budget_(ReadBudget(values)),
        window_(static_cast<uint32_t>(values[2])),
        half_(static_cast<uint32_t>(values[3]) / 2),
        answer_(static_cast<uint32_t>(values[4])) {}

  Observations observes() const override { return {window_, false, false, {}}; }
  uint32_t RowsAfterPrompt(uint32_t tokens) const override { return budget_.Rows(tokens); }
  uint32_t RowsAtMost(uint32_t tokens) const override { return budget_.Rows(tokens) + answer_; }
  void Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
            KeepRoom room) const override {
    const uint32_t* positions = layer.Positions(head);
    if (dropped.size() == 1) return DropFromAnswer(layer, positions, dropped);
    // Means over neighbours by position, of what lies before the window.
    const uint32_t rows = layer.rows;
    for (uint32_t r = 0; r < rows; ++r) room.order[r] = r;
    const auto by_position = [&](uint32_t a, uint32_t b) { return positions[a] < positions[b]; };
    if (!std::is_sorted(room.order.begin(), room.order.end(), by_position)) {
      std::sort(room.order.begin(), room.order.end(), by_position);
    }
    const float* sums = layer.Sums(head);
    const uint32_t judged = rows - std::min(rows, window_);
    for (uint32_t i = 0; i < rows; ++i) {
      float sum = 0;
      const uint32_t last = std::min(judged, i + half_ + 1);
      for (uint32_t n = i - std::min(i, half_); n < last; ++n) sum += sums[room.order[n]];
      room.scores[room.order[i]] = sum;
    }
    DropLeast(layer, head, {0, window_}, dropped, room, [&](uint32_t r) { return room.scores[r]; });
  }

 private:
  // The oldest of the last `answer` + 1 rows by position: rows after a prompt stay in order but for
  // those that filled a hole.
  void DropFromAnswer(const KeepLayer& layer, const uint32_t* positions,
                      std::span<uint32_t> dropped) const {
    uint32_t oldest = layer.rows - 1;
    for (uint32_t r = 0; r < layer.rows; ++r) {
      if (positions[r] + answer_ + 1 < layer.length) continue;
      if (positions[r] < positions[oldest]) oldest = r;
    }
    dropped[0] = oldest;
  }

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
