// RotateKV (arXiv 2501.16383): keys as they were before rotary embedding and values, each spread by
// a Walsh-Hadamard transform, in codes of 2 or 4 bits for groups of channels of a token; the tokens
// of the largest elements of a layer's input stay exact.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "kernel/rotated_codec.h"
#include "kv/codec/key_basis.h"
#include "kv/codec/registry.h"

namespace snug {
namespace {

constexpr uint32_t kLeastGroup = 16;  // what a pass of the kernel covers
constexpr std::string_view kModes[] = {"toward-zero", "centre"};
constexpr std::string_view kSort[] = {"off", "on"};

enum Parameter { kBits, kClip, kClipMode, kGroup, kHeads, kResidual, kSinks, kSorted };

constexpr SpecParameter kParameters[] = {
    {"bits", "of a code, 2 or 4", "2", 2, 4, true},
    {"clip", "share of a group's extremes that codes reach (0: 0.8 with 2 bits, 1 with 4)", "0", 0,
     1},
    {"clip-mode", "toward what extremes are clipped", "toward-zero", 0, 0, false, kModes},
    {"group", "channels that share a scale at most, a power of two", "128", kLeastGroup, 1024,
     true},
    {"heads", "KV heads that a transform of keys covers (0: 4, or as many as divide them)", "0", 0,
     64, true},
    {"residual", "newest tokens that stay exact", "0", 0, 65536, true},
    {"sinks", "largest elements of a layer's input whose tokens stay exact", "20", 0, 1024, true},
    {"sort", "whether key channels lie in a calibrated order", "on", 0, 0, false, kSort},
};

constexpr std::string_view kSteps[] = {"bits=4", "bits=2"};

class RotateKv final : public KvCodec {
 public:
  explicit RotateKv(std::span<const double> values)
      : bits_(Whole(values, kBits)),
        clip_(static_cast<float>(values[kClip])),
        centre_(values[kClipMode] != 0),
        group_(Whole(values, kGroup)),
        heads_(Whole(values, kHeads)),
        residual_(Whole(values, kResidual)),
        sinks_(Whole(values, kSinks)),
        sort_(values[kSorted] != 0) {
    if (clip_ == 0) clip_ = bits_ == 2 ? 0.8f : 1.0f;
  }

  uint32_t CodedKeys(uint32_t tokens) const override {
    return tokens - std::min(tokens, residual_);
  }
  uint32_t CodedValues(uint32_t tokens) const override { return CodedKeys(tokens); }
  uint32_t MostExact() const override { return residual_ + 1; }
  uint32_t Extremes() const override { return sinks_; }

  Result<std::shared_ptr<const TileCodec>> Tiles(uint32_t kv_heads, uint32_t head_dim,
                                                 uint32_t layer) const override {
    const auto refuse = [&](const std::string& why, std::string_view parameter, uint32_t value,
                            const std::string& next) {
      return MakeError(Code::kUsage, fmt::format("--kv {}: {}", spec(), why), next,
                       {{"option", "--kv"},
                        {"parameter", std::string(parameter)},
                        {"value", std::to_string(value)},
                        {"head_dim", std::to_string(head_dim)},
                        {"kv_heads", std::to_string(kv_heads)}});
    };
    if (!std::has_single_bit(head_dim) || head_dim < kLeastGroup || head_dim > kMaxHeadDim) {
      return refuse(fmt::format("heads of {} channels have no Walsh-Hadamard transform, which "
                                "needs a power of two from {} to {}",
                                head_dim, kLeastGroup, kMaxHeadDim),
                    "head_dim", head_dim, "--kv kivi, or q8_0");
    }
    const uint32_t heads = heads_ != 0 ? heads_ : TransformHeads(kv_heads);
    if (!std::has_single_bit(heads) || kv_heads % heads != 0) {
      return refuse(fmt::format("transforms of {} KV heads do not cover {}, or are no power of two",
                                heads, kv_heads),
                    "heads", heads, fmt::format("heads={}", TransformHeads(kv_heads)));
    }
    const uint64_t width = uint64_t{kv_heads} * head_dim;
    const auto key_group = static_cast<uint32_t>(std::min<uint64_t>(group_, width));
    if (width > kMaxKeyWidth || width % key_group != 0 || width / key_group > kMaxKeyGroups) {
      return refuse(fmt::format("groups of {} do not divide a token's {} key channels into at "
                                "most {}",
                                key_group, width, kMaxKeyGroups),
                    "group", key_group, "another group=, or --kv kivi");
    }
    const RotatedFormat format{head_dim, kv_heads, heads,  key_group, std::min(group_, head_dim),
                               bits_,    clip_,    centre_};
    return std::shared_ptr<const TileCodec>(std::make_shared<RotatedCodec>(
        format, basis_ == nullptr ? RotatedBasis{} : basis_->OfLayer(layer)));
  }

  bool needs_basis() const override { return true; }
  bool needs_order() const override { return sort_; }
  Status CheckOrder(const KeyOrder& order, uint32_t kv_heads) const override {
    const uint32_t heads = heads_ != 0 ? heads_ : TransformHeads(kv_heads);
    if (order.heads == heads) return {};
    return MakeError(
        Code::kUsage,
        fmt::format("--kv {}: transforms cover {} KV heads, and the permutation is of those of {}",
                    spec(), heads, order.heads),
        fmt::format("heads={}, or another one: snug calibrate MODEL --text TEXT --permutation "
                    "--heads {} -o FILE",
                    order.heads, heads),
        {{"option", "--kv"}, {"parameter", "heads"}, {"value", std::to_string(heads)}});
  }
  std::shared_ptr<const KvCodec> WithBasis(std::shared_ptr<const KeyBasis> basis) const override {
    auto copy = std::make_shared<RotateKv>(*this);
    copy->basis_ = std::move(basis);
    return copy;
  }

 private:
  static uint32_t Whole(std::span<const double> values, Parameter p) {
    return static_cast<uint32_t>(values[p]);
  }

  const uint32_t bits_;
  float clip_;
  const bool centre_;
  const uint32_t group_, heads_, residual_, sinks_;
  const bool sort_;
  std::shared_ptr<const KeyBasis> basis_;
};

Result<std::shared_ptr<KvCodec>> Make(std::span<const double> values) {
  const auto refuse = [&](Parameter p, const std::string& why, const std::string& next) {
    const std::string name(kParameters[p].name), value = fmt::format("{}", values[p]);
    return MakeError(Code::kUsage, fmt::format("--kv rotatekv: {}={} {}", name, value, why), next,
                     {{"option", "--kv"}, {"parameter", name}, {"value", value}});
  };
  if (values[kBits] == 3) return refuse(kBits, "is neither 2 nor 4", "2 or 4");
  if (!std::has_single_bit(static_cast<uint32_t>(values[kGroup]))) {
    return refuse(kGroup, "is no power of two", "16, 32, 64, 128, ...");
  }
  return std::shared_ptr<KvCodec>(std::make_shared<RotateKv>(values));
}

}  // namespace

const CodecEntry kCodecRotateKv = {
    "rotatekv",
    "Su et al. 2025, arXiv 2501.16383",
    "keys before rotary embedding and values, transformed so that outliers spread, in 2 or 4 bits",
    "a permutation of the model's key channels; observes the extremes of layers' inputs",
    kParameters,
    Make,
    kSteps,
};

}  // namespace snug
