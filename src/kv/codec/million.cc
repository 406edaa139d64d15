// MILLION (Wang et al. 2025, arXiv 2504.03661): sub-vectors of keys and values as numbers of
// centroids that were learnt for the model; the newest tokens stay exact, and are coded `residual`
// at once, beside the steps of the `lag` tokens that follow.
#include <fmt/format.h>

#include <algorithm>

#include "kernel/product_codec.h"
#include "kv/codec/codebooks.h"
#include "kv/codec/registry.h"

namespace snug {
namespace {

constexpr uint32_t kPassChannels = 16;  // what a pass of the kernel covers

constexpr SpecParameter kParameters[] = {
    {"dims", "channels that share a code of 8 bits, 2 or 4", "2", 2, 4, true},
    {"residual", "newest tokens that stay exact at most, a multiple of 64", "128", kTileTokens,
     65536, true},
    {"lag",
     "tokens for which rows stay exact while they are coded on a thread beside the steps (0: coded "
     "between steps)",
     "32", 0, 65536, true},
};

class Million final : public KvCodec {
 public:
  Million(uint32_t dims, uint32_t residual, uint32_t lag)
      : dims_(dims), residual_(residual), lag_(lag) {}

  uint32_t CodedKeys(uint32_t tokens) const override {
    return tokens <= lag_ ? 0 : (tokens - lag_ - 1) / residual_ * residual_;
  }
  uint32_t CodedValues(uint32_t tokens) const override { return CodedKeys(tokens); }
  uint32_t MostExact() const override { return residual_ + lag_ + 1; }
  uint32_t lag() const override { return lag_; }
  Result<std::shared_ptr<const TileCodec>> Tiles(uint32_t /*kv_heads*/, uint32_t head_dim,
                                                 uint32_t layer) const override {
    if (head_dim % kPassChannels != 0) {
      return MakeError(Code::kUsage,
                       fmt::format("--kv {}: heads of {} are no multiple of {}", spec(), head_dim,
                                   kPassChannels),
                       "--kv f16", {{"option", "--kv"}, {"head_dim", std::to_string(head_dim)}});
    }
    return std::shared_ptr<const TileCodec>(std::make_shared<ProductCodec>(
        ProductFormat{head_dim, dims_}, books_ ? books_->OfLayer(layer) : ProductBooks{}));
  }

  bool needs_codebooks() const override { return true; }
  Status CheckCodebooks(const CodebookShape& shape) const override {
    if (shape.dims == dims_) return {};
    return MakeError(Code::kUsage,
                     fmt::format("--kv {}: dims={}, and the codebooks have sub-vectors of {}",
                                 spec(), dims_, shape.dims),
                     fmt::format("dims={}, or other codebooks: snug calibrate MODEL --text TEXT "
                                 "--codebooks --dims {} -o FILE",
                                 shape.dims, dims_),
                     {{"option", "--kv"}, {"parameter", "dims"}, {"value", std::to_string(dims_)}});
  }
  std::shared_ptr<const KvCodec> WithCodebooks(
      std::shared_ptr<const Codebooks> books) const override {
    auto copy = std::make_shared<Million>(*this);
    copy->books_ = std::move(books);
    return copy;
  }

 private:
  const uint32_t dims_, residual_, lag_;
  std::shared_ptr<const Codebooks> books_;
};

Result<std::shared_ptr<KvCodec>> Make(std::span<const double> values) {
  const auto refuse = [&](size_t i, const std::string& why, const std::string& next) {
    const std::string name(kParameters[i].name);
    return MakeError(
        Code::kUsage, fmt::format("--kv million: {}={} {}", name, values[i], why), next,
        {{"option", "--kv"}, {"parameter", name}, {"value", fmt::format("{}", values[i])}});
  };
  const auto dims = static_cast<uint32_t>(values[0]), residual = static_cast<uint32_t>(values[1]);
  if (dims == 3) return refuse(0, "is neither 2 nor 4", "2 or 4");
  if (residual % kTileTokens != 0) {
    return refuse(1, fmt::format("is no multiple of the {} tokens of a page", kTileTokens),
                  fmt::format("for example residual={}", residual / kTileTokens * kTileTokens));
  }
  return std::shared_ptr<KvCodec>(
      std::make_shared<Million>(dims, residual, static_cast<uint32_t>(values[2])));
}

}  // namespace

const CodecEntry kCodecMillion = {
    "million",
    "Wang et al. 2025, arXiv 2504.03661",
    "sub-vectors of keys and values as numbers of learnt centroids, the newest tokens exact",
    "codebooks of the model",
    kParameters,
    Make,
};

}  // namespace snug
