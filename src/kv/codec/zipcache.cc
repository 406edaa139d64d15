// ZipCache (He et al. 2024, arXiv 2405.14256): rows to which probe queries attend are coded in more
// bits than the others, keys by channel and values by token after a factor for each channel, all
// rows of a segment together. Segments are as many whole gaps of tokens as there are.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "kernel/mixed_codec.h"
#include "kv/codec/registry.h"

namespace snug {
namespace {

constexpr uint32_t kPassChannels = 16;  // what a pass of the kernel covers

enum Selection { kPerHead, kShared };
constexpr std::string_view kSelections[] = {"per-head", "shared"};

constexpr SpecParameter kParameters[] = {
    {"hi", "bits of rows that are attended to: 2, 4, 8, or 16 to leave them as f16", "4", 2, 16,
     true},
    {"lo", "bits of the other rows", "2", 2, 16, true},
    {"ratio", "share of rows that have the fewer bits", "0.4", 0, 1},
    {"gap", "tokens that are coded at once, while fewer stay exact", "100", 1, 65536, true},
    {"selection", "of rows: for each KV head, or the same for all of a layer", "per-head", 0, 1,
     true, kSelections},
    {"last", "share of tokens, the last ones, whose queries are probes", "0.05", 0, 1},
    {"random", "share of tokens before those whose queries are probes", "0.05", 0, 1},
    {"seed", "of that sample", "0", 0, 1e9, true},
    {"exact", "share of rows, those attended to most, that stay f16", "0", 0, 1},
    {"segment", "tokens of a prompt that are coded together at most, in whole gaps; 0: all of it",
     "300", 0, 1e6, true},
};

class ZipCache final : public KvCodec {
 public:
  explicit ZipCache(std::span<const double> values)
      : gap_(static_cast<uint32_t>(values[3])), shared_(static_cast<int>(values[4]) == kShared) {
    format_.high_bits = static_cast<size_t>(values[0]);
    format_.low_bits = static_cast<size_t>(values[1]);
    format_.low_share = values[2];
    format_.raw_share = values[8];
    const auto segment = static_cast<uint32_t>(values[9]);
    if (segment != 0) most_ = std::max(1u, segment / gap_) * gap_;
    observes_.decode = observes_.carried = true;
    observes_.probes = {values[5], values[6], static_cast<uint64_t>(values[7]), gap_};
  }

  uint32_t CodedKeys(uint32_t tokens) const override { return tokens / gap_ * gap_; }
  uint32_t CodedValues(uint32_t tokens) const override { return CodedKeys(tokens); }
  uint32_t MostExact() const override { return gap_; }
  uint32_t segment_unit() const override { return gap_; }
  uint32_t segment_most() const override { return most_; }
  Observations observes() const override { return observes_; }

  Result<std::shared_ptr<const SegmentCodec>> Segments(uint32_t head_dim) const override {
    if (head_dim % kPassChannels != 0) {
      return MakeError(Code::kUsage,
                       fmt::format("--kv {}: heads of {} are no multiple of {}", spec(), head_dim,
                                   kPassChannels),
                       "--kv f16", {{"option", "--kv"}, {"head_dim", std::to_string(head_dim)}});
    }
    MixedFormat format = format_;
    format.head_dim = head_dim;
    return std::shared_ptr<const SegmentCodec>(std::make_shared<MixedCodec>(format));
  }

  // Rows of fewer bits first, exact ones last, each class in the order of its tokens.
  void Order(const SegmentScores& s, uint32_t head, std::span<float> room,
             std::span<uint32_t> order) const override {
    const uint32_t first = shared_ ? 0 : head, last = shared_ ? s.heads : head + 1;
    for (uint32_t r = 0; r < s.rows; ++r) {
      float sum = 0;
      for (uint32_t h = first; h < last; ++h) sum += s.sums[h * s.stride + r];
      // Tokens that were seen by few probes have had less time to be attended to, not less weight.
      room[r] = sum / static_cast<float>(std::max(1u, s.probes[r]));
    }
    std::iota(order.begin(), order.end(), 0u);
    const auto middle = order.begin() + format_.LowRows(s.rows);
    const auto raw = order.end() - format_.RawRows(s.rows);
    const auto less = [&](uint32_t a, uint32_t b) {
      return room[a] != room[b] ? room[a] < room[b] : a < b;
    };
    if (middle != order.end()) std::nth_element(order.begin(), middle, order.end(), less);
    if (raw != order.end()) std::nth_element(middle, raw, order.end(), less);
    std::sort(order.begin(), middle);
    std::sort(middle, raw);
    std::sort(raw, order.end());
  }

 private:
  const uint32_t gap_;
  uint32_t most_ = UINT32_MAX;
  const bool shared_;
  MixedFormat format_;
  Observations observes_;
};

Result<std::shared_ptr<KvCodec>> Make(std::span<const double> values) {
  const auto refuse = [&](size_t i, const std::string& why, const std::string& next) {
    const std::string name(kParameters[i].name);
    return MakeError(
        Code::kUsage, fmt::format("--kv zipcache: {}={} {}", name, values[i], why), next,
        {{"option", "--kv"}, {"parameter", name}, {"value", fmt::format("{}", values[i])}});
  };
  for (const size_t i : {0, 1}) {
    const double bits = values[i];
    if (bits != 2 && bits != 4 && bits != 8 && bits != 16) {
      return refuse(i, "is none of 2, 4, 8 and 16", "2, 4, 8 or 16");
    }
  }
  if (values[1] > values[0]) {
    return refuse(1, fmt::format("is more than hi={}", values[0]), "the other way round");
  }
  return MakeMethod<KvCodec, ZipCache>(values);
}

}  // namespace

const CodecEntry kCodecZipCache = {
    "zipcache",
    "He et al. 2024, arXiv 2405.14256",
    "rows that probe queries attend to in 4 bits, the others in 2; the newest tokens exact",
    "nothing; observes a tenth of the queries",
    kParameters,
    Make,
};

}  // namespace snug
