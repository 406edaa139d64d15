// Double Sparsity (Yang et al. 2024, arXiv 2408.07092): q.k is guessed from a few channels that
// matter most, found once for each head (channels.h). Beside the keys lie the labels: a key's
// values on those channels, in 4 bits between its own least and largest one. The rows with the
// largest guesses are read.
//
// Labels of a tile, 4 bits: codes [channels / 8][64 rows][4 bytes], byte j of row t having channel
// 8 i + j in its low nibble and 8 i + 4 + j in its high one; then f16 steps [64] and f16 least
// values [64]. 16 bits: f16 [64 rows][channels, whole vectors].
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>

#include "format/dtype.h"
#include "kernel/read_scores.h"
#include "kv/read/channels.h"
#include "kv/read/registry.h"

namespace snug {
namespace {

constexpr auto kParameters = WithReadBudget({
    {"channels", "channels of a label: up to 1 a share of the head's, above 1 so many", "1/4", 1e-4,
     kMaxHeadDim},
    {"label-bits", "bits of a label's values: 4, or 16 for f16", "4", 4, 16, true},
});

float Half(float v) { return HalfToFloat(FloatToHalf(std::clamp(v, -kMaxHalf, kMaxHalf))); }

class DoubleSparsity final : public RowMethod {
 public:
  DoubleSparsity(const ReadBudget& budget, double channels, bool coded)
      : RowMethod(budget), channels_(channels), coded_(coded) {}

  bool needs_channels() const override { return true; }
  bool key_rows() const override { return true; }
  std::shared_ptr<const ReadMethod> WithChannels(
      std::shared_ptr<const ChannelRanking> ranking) const override {
    auto copy = std::make_shared<DoubleSparsity>(*this);
    copy->ranking_ = std::move(ranking);
    return copy;
  }
  Status Check(uint32_t head_dim) const override {
    if (channels_ <= head_dim) return {};
    return MakeError(
        Code::kUsage,
        fmt::format("--kv-read {}: channels={} of heads that have {}", spec(), channels_, head_dim),
        "for example channels=1/4", {{"option", "--kv-read"}, {"parameter", "channels"}});
  }

  size_t IndexBytes(uint32_t head_dim) const override {
    const size_t n = Channels(head_dim);
    if (!coded_) return kTileTokens * IndexWidth(n) * sizeof(uint16_t);
    return NibbleLabelBytes(n);
  }
  void Index(const KeyTile& keys, uint32_t layer, uint32_t head, uint32_t first, uint32_t last,
             uint8_t* index) const override {
    const uint32_t n = Channels(keys.head_dim);
    const uint16_t* best = ranking_->Head(layer, head);
    assert(keys.head_dim <= kMaxHeadDim);
    std::array<float, kMaxHeadDim> key, label;
    for (uint32_t r = first; r < last; ++r) {
      keys.Load(r, key.data());
      for (uint32_t c = 0; c < n; ++c) label[c] = key[best[c]];
      if (coded_) {
        StoreNibbleLabel(label.data(), n, r, index);
        continue;
      }
      auto* to = reinterpret_cast<uint16_t*>(index) + r * IndexWidth(n);
      for (uint32_t c = 0; c < n; ++c) to[c] = FloatToHalf(Half(label[c]));
      std::fill_n(to + n, IndexWidth(n) - n, uint16_t{0});
    }
  }
  size_t QueryBytes(uint32_t heads, uint32_t head_dim) const override {
    const size_t n = Channels(head_dim);
    const size_t one = coded_ ? NibbleQueryBytes(n) : IndexWidth(n) * sizeof(float);
    return (heads * one + 63) / 64 * 64;
  }
  void Prepare(const GroupQueries& queries, uint8_t* prepared) const override {
    const uint32_t dim = queries.head_dim, n = Channels(dim);
    const uint16_t* best = ranking_->Head(queries.layer, queries.kv_head);
    std::array<float, kMaxHeadDim> q;
    for (uint32_t h = 0; h < queries.heads; ++h) {
      for (uint32_t c = 0; c < n; ++c) q[c] = queries.q[h * dim + best[c]];
      if (coded_) {
        PrepareNibbleQuery(q.data(), n, prepared + h * NibbleQueryBytes(n));
        continue;
      }
      auto* to = reinterpret_cast<float*>(prepared) + h * IndexWidth(n);
      std::copy_n(q.data(), n, to);
      std::fill_n(to + n, IndexWidth(n) - n, 0.0f);
    }
  }
  void Score(const uint8_t* index, const uint8_t* prepared, uint32_t heads, uint32_t head_dim,
             float* scores, size_t stride) const override {
    const size_t n = Channels(head_dim);
    if (coded_) {
      ScoreNibbles(index, n, prepared, heads, scores, stride);
    } else {
      ScoreHalves(reinterpret_cast<const uint16_t*>(index), kTileTokens, IndexWidth(n),
                  reinterpret_cast<const float*>(prepared), heads, scores, stride);
    }
  }

 private:
  uint32_t Channels(uint32_t head_dim) const {
    const double n = channels_ > 1 ? channels_ : std::round(channels_ * head_dim);
    return static_cast<uint32_t>(std::clamp<double>(n, 1, head_dim));
  }
  const double channels_;
  const bool coded_;
  std::shared_ptr<const ChannelRanking> ranking_;
};

}  // namespace

const ReadEntry kReadDoubleSparsity = {
    "double-sparsity",
    "Yang et al. 2024, arXiv 2408.07092",
    "the rows whose q.k looks largest on the channels that matter most",
    "each key's values on those channels, in 4 bits",
    kParameters,
    [](std::span<const double> values) -> Result<std::shared_ptr<ReadMethod>> {
      if (values[kOwnValues + 1] != 4 && values[kOwnValues + 1] != 16) {
        return MakeError(Code::kUsage,
                         fmt::format("--kv-read double-sparsity: label-bits={} is neither 4 nor 16",
                                     values[kOwnValues + 1]),
                         "for example label-bits=4",
                         {{"option", "--kv-read"}, {"parameter", "label-bits"}});
      }
      return std::shared_ptr<ReadMethod>(std::make_shared<DoubleSparsity>(
          ReadBudgetOf(values, 1), values[kOwnValues], values[kOwnValues + 1] == 4));
    },
};

}  // namespace snug
