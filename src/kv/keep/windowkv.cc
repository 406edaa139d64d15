// WindowKV (2025, arXiv 2503.17922): at the end of a prompt, its last tokens, and of the others
// whole windows of neighbours, those that the last queries attended to most. How a window is judged
// depends on what is asked; groups of layers keep the same windows, later groups fewer. The
// answer's tokens all stay, up to a number that bounds the cache.
#include <fmt/format.h>

#include <cctype>
#include <functional>
#include <string>

#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

enum Strategy { kMax, kAverage, kAuto };
constexpr std::string_view kStrategies[] = {"max", "average", "auto"};
constexpr double kMostWindow = 1024;
// Of a prompt, what `auto` reads.
constexpr uint32_t kEndTokens = 256;

constexpr SpecParameter kParameters[] = {
    BudgetParameter("0.2"),
    kLeastParameter,
    {"window", "tokens that stay or go together", "8", 1, kMostWindow, true},
    {"group", "layers that keep the same windows", "8", 1, 1e4, true},
    {"beta", "how budgets fall: the last group's is group/beta of the mean", "14", 1, 1e6},
    {"strategy",
     "windows by their largest weights (max), by their mean, or as the prompt's end asks", "auto",
     0, 2, true, kStrategies},
    {"suffix", "last queries of the prompt that judge, and stay; 0: 32 for max, 16 for average",
     "0", 0, 1e6, true},
    kAnswerParameter,
};

class WindowKv final : public KeepMethod {
 public:
  WindowKv(std::span<const double> values, Strategy strategy)
      : budget_(ReadBudget(values)),
        window_(static_cast<uint32_t>(values[2])),
        group_(static_cast<uint32_t>(values[3])),
        beta_(values[4]),
        strategy_(strategy),
        suffix_(static_cast<uint32_t>(values[6])),
        answer_(static_cast<uint32_t>(values[7])) {
    if (suffix_ == 0) suffix_ = strategy == kAverage ? 16 : 32;
    if (strategy != kAuto) {
      set_spec(fmt::format("windowkv:strategy={}", kStrategies[strategy]));
      return;
    }
    max_ = std::make_unique<WindowKv>(values, kMax);
    average_ = std::make_unique<WindowKv>(values, kAverage);
  }

  Status Check(uint32_t layers) const override {
    if (layers >= 2 * group_ || beta_ == group_) return {};
    return MakeError(
        Code::kUsage,
        fmt::format("--kv-keep {}: {} layers are less than two groups of {}, from one of which to "
                    "the next budgets could fall",
                    spec(), layers, group_),
        layers >= 2 ? fmt::format("group={} or less, or group={},beta={} for equal budgets",
                                  layers / 2, layers, layers)
                    : "group=1,beta=1",
        {{"layers", std::to_string(layers)}, {"group", std::to_string(group_)}});
  }

  Observations observes() const override { return {suffix_, false, false, {}, true}; }
  uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace place) const override {
    return GroupBudget(tokens, place) + suffix_;
  }
  uint32_t RowsAtMost(uint32_t tokens, KeepPlace place) const override {
    if (strategy_ == kAuto) {
      return std::max(max_->RowsAtMost(tokens, place), average_->RowsAtMost(tokens, place));
    }
    // The last window may have one row within the budget and the others beyond it.
    return MostOfGroup(tokens, place) + window_ - 1 + suffix_ + answer_;
  }
  bool FollowsLayerBefore(KeepPlace place) const override {
    return place.index != 0 &&
           GroupOf(place).index == GroupOf({place.index - 1, place.layers}).index;
  }

  uint32_t Drop(const KeepLayer& layer, uint32_t head, std::span<uint32_t> dropped,
                KeepRoom room) const override {
    if (room.order.empty()) return DropFromAnswer(layer, head, answer_, dropped);
    OrderByPosition(layer, head, room.order);
    const uint32_t judged = layer.rows - std::min(layer.rows, suffix_);
    const uint32_t windows = (judged + window_ - 1) / window_;
    const uint32_t over = layer.rows - layer.stay;
    const uint32_t count = std::min(windows, (over + window_ - 1) / window_);
    for (uint32_t w = 0; w < windows; ++w) {
      const uint32_t first = w * window_, last = std::min(judged, first + window_);
      room.scores[w] = Score(layer, room.order.subspan(first, last - first));
    }
    // The least; of equal windows the younger.
    const auto begin = dropped.begin(), end = begin + windows;
    for (uint32_t w = 0; w < windows; ++w) dropped[w] = w;
    std::nth_element(begin, begin + count, end, [&](uint32_t a, uint32_t b) {
      const float left = room.scores[a], right = room.scores[b];
      return left != right ? left < right : a > b;
    });
    for (uint32_t i = 0; i < count; ++i) room.scores[dropped[i]] = -1;
    uint32_t n = 0;
    for (uint32_t w = 0; w < windows; ++w) {
      if (room.scores[w] >= 0) continue;
      const uint32_t last = std::min(judged, (w + 1) * window_);
      for (uint32_t i = w * window_; i < last; ++i) dropped[n++] = room.order[i];
    }
    std::sort(begin, begin + n);
    return n;
  }

  uint32_t reads_end() const override { return strategy_ == kAuto ? kEndTokens : 0; }
  const KeepMethod& ForPrompt(std::string_view text) const override {
    if (strategy_ != kAuto) return *this;
    return Asks(text) ? *max_ : *average_;
  }

 private:
  struct Group {
    uint32_t index = 0, count = 1;
  };
  // The layers that do not fill a group belong to the last one.
  Group GroupOf(KeepPlace place) const {
    const uint32_t count = std::max(1u, place.layers / group_);
    return {std::min(place.index / group_, count - 1), count};
  }
  // Rows beside the suffix that a layer of the group is to keep: of a mean of `cap` over groups the
  // last one has cap * group / beta, the first one as much more as that is less, and those between
  // fall in equal steps.
  uint32_t GroupBudget(uint32_t tokens, KeepPlace place) const {
    const uint32_t rows = budget_.Rows(tokens);
    const int64_t cap = rows - std::min(rows, suffix_);
    const auto [index, count] = GroupOf(place);
    const auto last = static_cast<int64_t>(std::floor(static_cast<double>(cap) * group_ / beta_));
    if (count == 1) return static_cast<uint32_t>(cap);
    if (index + 1 == count) return static_cast<uint32_t>(last);
    const int64_t first = 2 * cap - last;
    return static_cast<uint32_t>(first - index * ((first - last) / (count - 1)));
  }
  // No less than GroupBudget for as many tokens or fewer: rounding lets the budget of a group
  // between the first and the last one fall where the mean rises.
  uint32_t MostOfGroup(uint32_t tokens, KeepPlace place) const {
    const auto [index, count] = GroupOf(place);
    if (index == 0 || index + 1 == count) return GroupBudget(tokens, place);
    const uint32_t rows = budget_.Rows(tokens);
    const double cap = rows - std::min(rows, suffix_), last = cap * group_ / beta_;
    const double exact = 2 * cap - last - index * (2 * cap - 2 * last) / (count - 1);
    return static_cast<uint32_t>(exact) + index + 2;
  }

  float Score(const KeepLayer& layer, std::span<const uint32_t> window) const {
    const uint32_t heads = layer.heads * layer.query_heads;
    const auto size = static_cast<uint32_t>(window.size());
    const uint32_t top = strategy_ == kMax ? std::min(size, std::max(1u, window_ / 2)) : size;
    float sum = 0;
    for (uint32_t h = 0; h < heads; ++h) {
      const float* sums = layer.Sums(h);
      std::array<float, static_cast<size_t>(kMostWindow)> weights;
      for (uint32_t i = 0; i < size; ++i) weights[i] = sums[window[i]];
      if (top < size) {
        std::partial_sort(weights.begin(), weights.begin() + top, weights.begin() + size,
                          std::greater<>());
      }
      float own = 0;
      for (uint32_t i = 0; i < top; ++i) own += weights[i];
      sum += own;
    }
    return sum / static_cast<float>(heads * top);
  }

  // Whether a text asks for something that stands somewhere, rather than for what all of it says.
  static bool Asks(std::string_view text) {
    std::string lower(text);
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return lower.find('?') != std::string::npos || lower.find("question:") != std::string::npos;
  }

  const KeepBudget budget_;
  const uint32_t window_, group_;
  const double beta_;
  const Strategy strategy_;
  uint32_t suffix_;
  const uint32_t answer_;
  std::unique_ptr<WindowKv> max_, average_;  // of kAuto
};

Result<std::shared_ptr<KeepMethod>> MakeWindowKv(std::span<const double> values) {
  if (values[3] > values[4]) {
    return MakeError(
        Code::kUsage,
        fmt::format("--kv-keep windowkv: beta={} is less than group={}, by which later "
                    "groups would keep more than the first",
                    values[4], values[3]),
        fmt::format("beta={} or more", values[3]),
        {{"option", "--kv-keep"}, {"parameter", "beta"}});
  }
  return std::shared_ptr<KeepMethod>(
      std::make_shared<WindowKv>(values, static_cast<Strategy>(static_cast<int>(values[5]))));
}

}  // namespace

const KeepEntry kKeepWindowKv = {
    "windowkv",
    "Zuo et al. 2025, arXiv 2503.17922",
    "the prompt's last tokens, whole windows that they attend to most, and the answer's last "
    "tokens",
    "column sums over the last queries of the prompt, by query head",
    kParameters,
    MakeWindowKv,
};

}  // namespace snug
