// KIVI (Liu et al. 2024, arXiv 2402.02750): keys in groups of tokens within a channel, values in
// groups of channels within a token, each group by its minimum and range; the newest tokens stay
// exact. Keys are coded `residual` tokens at once, values token by token.
#include <fmt/format.h>

#include <algorithm>

#include "kernel/affine_codec.h"
#include "kv/codec/registry.h"

namespace snug {
namespace {

constexpr uint32_t kLeastGroup = 16;  // what a pass of the kernel covers

constexpr SpecParameter kParameters[] = {
    {"bits", "of a code, 2 or 4", "2", 2, 4, true},
    {"group", "elements that share a scale and a zero: 16, 32 or 64", "32", kLeastGroup,
     kTileTokens, true},
    {"residual", "newest tokens that stay exact, a multiple of group", "128", kLeastGroup, 65536,
     true},
    {"key-bits", "of keys' codes (0: bits)", "0", 0, 4, true},
    {"value-bits", "of values' codes (0: bits)", "0", 0, 4, true},
};

constexpr std::string_view kSteps[] = {"bits=4", "bits=2"};

class Kivi final : public KvCodec {
 public:
  Kivi(const AffineFormat& format, uint32_t residual) : format_(format), residual_(residual) {}

  uint32_t CodedKeys(uint32_t tokens) const override { return tokens / residual_ * residual_; }
  uint32_t CodedValues(uint32_t tokens) const override {
    return tokens - std::min(tokens, residual_);
  }
  uint32_t MostExact() const override { return residual_ + 1; }
  Result<std::shared_ptr<const TileCodec>> Tiles(uint32_t /*kv_heads*/, uint32_t head_dim,
                                                 uint32_t /*layer*/) const override {
    AffineFormat format = format_;
    format.head_dim = head_dim;
    if (head_dim % format.group != 0) {
      return MakeError(Code::kUsage,
                       fmt::format("--kv {}: groups of {} channels do not divide heads of {}",
                                   spec(), format.group, head_dim),
                       head_dim % kLeastGroup == 0 ? "group=16" : "--kv q8_0, or f16",
                       {{"option", "--kv"},
                        {"parameter", "group"},
                        {"value", std::to_string(format.group)},
                        {"head_dim", std::to_string(head_dim)}});
    }
    return std::shared_ptr<const TileCodec>(std::make_shared<AffineCodec>(format));
  }

 private:
  const AffineFormat format_;
  const uint32_t residual_;
};

Result<std::shared_ptr<KvCodec>> Make(std::span<const double> values) {
  const auto whole = [&](size_t i) { return static_cast<uint32_t>(values[i]); };
  const auto refuse = [&](size_t i, const std::string& why, const std::string& next) {
    const std::string_view name = kParameters[i].name;
    return MakeError(Code::kUsage, fmt::format("--kv kivi: {}={} {}", name, whole(i), why), next,
                     {{"option", "--kv"},
                      {"parameter", std::string(name)},
                      {"value", std::to_string(whole(i))}});
  };
  uint32_t bits[2];
  for (const size_t i : {0, 3, 4}) {
    if (whole(i) == 0) continue;
    if (whole(i) != 2 && whole(i) != 4) return refuse(i, "is neither 2 nor 4", "2 or 4");
  }
  for (const size_t i : {3, 4}) bits[i - 3] = whole(i) != 0 ? whole(i) : whole(0);
  const uint32_t group = whole(1), residual = whole(2);
  if (kTileTokens % group != 0) {
    return refuse(1, fmt::format("does not divide the {} tokens of a page", kTileTokens),
                  "16, 32 or 64");
  }
  if (residual % group != 0) {
    return refuse(
        2, fmt::format("is no multiple of group={}, and keys are coded by groups", group),
        fmt::format("for example residual={}", std::max(group, residual / group * group)));
  }
  return std::shared_ptr<KvCodec>(
      std::make_shared<Kivi>(AffineFormat{0, group, bits[0], bits[1]}, residual));
}

}  // namespace

const CodecEntry kCodecKivi = {
    "kivi",
    "Liu et al. 2024, arXiv 2402.02750",
    "keys in 2 or 4 bits by channel, values by token, the newest tokens exact",
    "nothing",
    kParameters,
    Make,
    kSteps,
};

}  // namespace snug
