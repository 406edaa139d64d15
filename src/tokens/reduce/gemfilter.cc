// GemFilter (Shi et al. 2024, arXiv 2409.17422): an early layer already knows which tokens of a
// long prompt matter. The last token's query scores every key of a middle layer, by the sum over
// query heads of q.k, the scores are averaged over neighbours, and the tokens with the largest are
// read as a prompt of their own. The selection is that of the published code.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "kv/read/read.h"
#include "tokens/reduce/registry.h"

namespace snug {
namespace {

constexpr std::string_view kScores[] = {"raw", "softmax"};

constexpr SpecParameter kParameters[] = {
    {.name = "keep",
     .help = "tokens that are read",
     .standard = "1024",
     .least = 1,
     .most = 1e9,
     .whole = true},
    {.name = "layer",
     .help = "the layer whose keys are scored, the first being 0; auto: at 57 % of the depth",
     .standard = "auto",
     .most = 1e6,
     .whole = true,
     .automatic = true},
    {.name = "pool",
     .help = "neighbours over which scores are averaged: an odd number",
     .standard = "5",
     .least = 1,
     .most = 1023,
     .whole = true},
    {.name = "first",
     .help = "first tokens that are read whatever they score",
     .standard = "0",
     .most = 1e9,
     .whole = true},
    {.name = "last",
     .help = "last tokens that are read whatever they score",
     .standard = "0",
     .most = 1e9,
     .whole = true},
    {.name = "score",
     .help = "raw: the sum over heads of q.k; softmax: the mean attention weight",
     .standard = "raw",
     .names = kScores},
};

// The published layers lie at 41 % (Llama 3.1 8B), 48 % (Mistral Nemo 12B) and 59 % (Phi 3.5 mini)
// of the depth. A layer too late costs time, one too early what was asked for: Qwen 2.5 Coder 1.5B
// finds sentences from 57 % on (bench/filter_layers.cc).
constexpr double kDepth = 0.57;

class GemFilter final : public ReduceMethod {
 public:
  explicit GemFilter(std::span<const double> values)
      : keep_(static_cast<uint32_t>(values[0])),
        layer_(values[1]),
        pool_(static_cast<uint32_t>(values[2])),
        first_(static_cast<uint32_t>(values[3])),
        last_(static_cast<uint32_t>(values[4])),
        softmax_(values[5] == 1) {}

  Status Check() const {
    const auto refuse = [](const std::string& what, const std::string& next) {
      return MakeError(Code::kUsage, "--reduce gemfilter: " + what, next, {{"option", "--reduce"}});
    };
    if (pool_ % 2 == 0) {
      return refuse(fmt::format("pool={} has no middle", pool_), "an odd number, as pool=5");
    }
    if (uint64_t{first_} + last_ > keep_) {
      return refuse(fmt::format("first={} and last={} are more than keep={}", first_, last_, keep_),
                    fmt::format("keep={} or more", uint64_t{first_} + last_));
    }
    return {};
  }

  uint32_t Stay(uint32_t tokens) const override { return std::min(tokens, keep_); }

  uint32_t Layer(const ModelConfig& config) const override {
    if (layer_ >= 0) return static_cast<uint32_t>(layer_);
    // From there on the first layer that sees the whole prompt, or else the last one before.
    const auto wanted = static_cast<uint32_t>(std::lround(kDepth * config.layers));
    for (uint32_t l = wanted; l < config.layers; ++l) {
      if (config.window[l] == 0) return l;
    }
    for (uint32_t l = wanted; l-- > 0;) {
      if (config.window[l] == 0) return l;
    }
    return wanted;
  }

  Status Choose(const PromptScores& scores, std::span<float> room,
                std::span<uint32_t> chosen) const override {
    const uint32_t n = scores.tokens;
    assert(chosen.size() == Stay(n) && room.size() >= 2 * size_t{n});
    if (chosen.size() == n) {
      std::iota(chosen.begin(), chosen.end(), 0u);
      return {};
    }
    const std::span<float> sums = room.first(n), pooled = room.subspan(n, n);
    Sum(scores, sums);
    Pool(sums, pooled);
    for (const float s : pooled) {
      if (std::isfinite(s)) continue;
      return MakeError(Code::kBadFile, "the model's keys or queries are no finite numbers",
                       "is the model file sound? without --reduce it would answer with noise");
    }
    const auto found = static_cast<uint32_t>(chosen.size()) - first_ - last_;
    std::iota(chosen.begin(), chosen.begin() + first_, 0u);
    ChooseLargest(pooled.subspan(first_, n - first_ - last_), found, sums.data(),
                  chosen.data() + first_);
    for (uint32_t& t : chosen.subspan(first_, found)) t += first_;
    std::iota(chosen.end() - last_, chosen.end(), n - last_);
    return {};
  }

 private:
  void Sum(const PromptScores& scores, std::span<float> sums) const {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (uint32_t h = 0; h < scores.heads; ++h) {
      const float* dots = scores.dots + h * scores.stride;
      if (softmax_) {
        AddWeights(scores, dots, sums);
      } else {
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += dots[i];
      }
    }
  }

  // Adds a head's attention weights over the number of heads.
  static void AddWeights(const PromptScores& s, const float* dots, std::span<float> sums) {
    const auto score = [&](size_t i) {
      const double x = double{dots[i]} * s.scale;
      return s.softcap == 0 ? x : s.softcap * std::tanh(x / s.softcap);
    };
    double most = score(0), total = 0;
    for (size_t i = 1; i < sums.size(); ++i) most = std::max(most, score(i));
    for (size_t i = 0; i < sums.size(); ++i) total += std::exp(score(i) - most);
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] += static_cast<float>(std::exp(score(i) - most) / (total * s.heads));
    }
  }

  // Means over `pool_` neighbours; beyond the ends there are zeros.
  void Pool(std::span<const float> sums, std::span<float> pooled) const {
    const size_t n = sums.size(), side = pool_ / 2;
    for (size_t i = 0; i < n; ++i) {
      double sum = 0;
      for (size_t u = i < side ? 0 : i - side; u < std::min(n, i + side + 1); ++u) sum += sums[u];
      pooled[i] = static_cast<float>(sum / pool_);
    }
  }

  const uint32_t keep_;
  const double layer_;  // negative: chosen by depth
  const uint32_t pool_, first_, last_;
  const bool softmax_;
};

}  // namespace

const ReduceEntry kReduceGemFilter = {
    "gemfilter",
    "Shi et al. 2024, arXiv 2409.17422",
    "the tokens whose keys at an early layer the last token's query likes best",
    "q.k of the last token at one layer",
    kParameters,
    [](std::span<const double> values) -> Result<std::shared_ptr<ReduceMethod>> {
      auto method = std::make_shared<GemFilter>(values);
      SNUG_TRY(method->Check());
      return std::shared_ptr<ReduceMethod>(std::move(method));
    },
};

}  // namespace snug
