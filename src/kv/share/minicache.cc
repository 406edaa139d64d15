// MiniCache (Liu et al. 2024, arXiv 2405.14366): of two adjacent layers' rows of a token, one
// direction that lies between theirs on the sphere (SLERP), and each layer's own length. Tokens
// whose directions are far apart are kept as they are.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kv/read/read.h"
#include "kv/share/registry.h"

namespace snug {
namespace {

constexpr std::string_view kRetain[] = {"fraction", "range"};
constexpr std::string_view kUnits[] = {"token", "head"};
constexpr std::string_view kValues[] = {"own", "keys"};

constexpr SpecParameter kParameters[] = {
    {"start", "first layer of the pairs: up to 1 a share of the depth, above 1 a number", "1/2", 0,
     1e6},
    {"t", "weight of the upper layer's direction", "0.6", 0, 1},
    {"retain",
     "tokens kept apart: the gamma farthest (fraction), or those within gamma of the farthest, "
     "as a share of the distances' range",
     "fraction", 0, 1, true, kRetain},
    {"gamma", "see retain", "0.05", 0, 1},
    {"unit", "what has a length: a token's row, or each KV head's part of it", "token", 0, 1, true,
     kUnits},
    {"values", "are kept apart by their own distances, or where keys are", "own", 0, 1, true,
     kValues},
    {"residual", "newest tokens that stay exact, beside those of a page that is not full", "0", 0,
     65536, true},
    {"most", "share of the tokens that retain=range keeps apart at most", "0.2", 0, 1},
};

// Angles below which SLERP is the linear blend, and beyond which it has no direction.
constexpr double kNearlySame = 1e-4, kNearlyOpposite = std::numbers::pi - 1e-3;

double Angle(const RowDots& d) {
  if (d.xx == 0 || d.yy == 0) return 0;  // a row without direction takes the other's
  return std::acos(std::clamp(d.xy / std::sqrt(d.xx) / std::sqrt(d.yy), -1.0, 1.0));
}

class MiniCache final : public ShareMethod {
 public:
  explicit MiniCache(std::span<const double> v)
      : start_(v[0]),
        t_(v[1]),
        range_(v[2] != 0),
        gamma_(v[3]),
        by_head_(v[4] != 0),
        values_follow_(v[5] != 0),
        residual_(static_cast<uint32_t>(v[6])),
        most_(v[7]) {}

  Result<std::vector<uint32_t>> Pairs(uint32_t layers) const override {
    const double first = start_ > 1 ? start_ : start_ * layers;
    if (first > layers) {
      return MakeError(Code::kUsage,
                       fmt::format("--kv-share {}: the pairs would begin at layer {} of {}", spec(),
                                   first, layers),
                       fmt::format("start= a share of the depth, or a layer up to {}", layers),
                       {{"option", "--kv-share"},
                        {"parameter", "start"},
                        {"value", fmt::format("{}", start_)},
                        {"layers", std::to_string(layers)}});
    }
    std::vector<uint32_t> pairs;
    // What rounding took of a whole number is no reason to begin a layer lower.
    for (auto l = static_cast<uint32_t>(first + 1e-6); l + 1 < layers; l += 2) pairs.push_back(l);
    return pairs;
  }
  bool by_head() const override { return by_head_; }
  bool values_follow() const override { return values_follow_; }
  uint32_t residual() const override { return residual_; }

  double Distance(const RowDots& d) const override { return Angle(d) / std::numbers::pi; }

  RowBlend Blend(const RowDots& d) const override {
    const double x = d.xx > 0 ? 1 / std::sqrt(d.xx) : 0, y = d.yy > 0 ? 1 / std::sqrt(d.yy) : 0;
    if (x == 0 || y == 0) return {x, y};
    const double angle = Angle(d);
    if (angle > kNearlyOpposite) return t_ < 0.5 ? RowBlend{x, 0} : RowBlend{0, y};
    double a = 1 - t_, b = t_;
    if (angle < kNearlySame) {
      const double length = std::sqrt(a * a + b * b + 2 * a * b * std::cos(angle));
      return {a / length * x, b / length * y};
    }
    a = std::sin(a * angle) / std::sin(angle);
    b = std::sin(b * angle) / std::sin(angle);
    return {a * x, b * y};
  }

  uint32_t MostApart(uint32_t rows) const override {
    // What rounding added to a whole number is no reason to keep one more.
    return static_cast<uint32_t>(std::ceil((range_ ? most_ : gamma_) * rows - 1e-9 * rows));
  }

  uint32_t Choose(std::span<const float> distances, uint32_t rows, float* room, uint32_t* chosen,
                  ApartSoFar* so_far) const override {
    for (const float d : distances) {
      so_far->low = std::min(so_far->low, d);
      so_far->high = std::max(so_far->high, d);
    }
    const bool first = rows == distances.size();
    const float threshold =
        std::min(so_far->high - static_cast<float>(gamma_) * (so_far->high - so_far->low),
                 static_cast<float>(kNearlyOpposite / std::numbers::pi));
    const auto far = [&](float d) {
      if (range_) return d >= threshold;
      return gamma_ == 1 || first || so_far->count == 0 || d > so_far->least;
    };
    const auto wanted =
        static_cast<uint32_t>(std::count_if(distances.begin(), distances.end(), far));
    const uint32_t most = MostApart(rows);
    const uint32_t n = std::min(wanted, most - std::min(most, so_far->count));
    ChooseLargest(distances, n, room, chosen);
    for (uint32_t i = 0; i < n; ++i) so_far->least = std::min(so_far->least, distances[chosen[i]]);
    so_far->count += n;
    return n;
  }

 private:
  const double start_, t_;
  const bool range_;
  const double gamma_;
  const bool by_head_, values_follow_;
  const uint32_t residual_;
  const double most_;
};

}  // namespace

const ShareEntry kShareMiniCache = {
    "minicache",
    "Liu et al. 2024, arXiv 2405.14366",
    "one direction for two adjacent layers, and each one's lengths",
    "lengths, and both rows of tokens that differ most",
    kParameters,
    MakeMethod<ShareMethod, MiniCache>,
};

}  // namespace snug
