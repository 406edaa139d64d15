// The offload variant of Double Sparsity (Yang et al. 2024, arXiv 2408.07092) with a disk as the
// slow tier, without its guess of the next layer's query: rows are fetched once they are chosen.
#include <algorithm>
#include <cmath>

#include "kv/place/registry.h"

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {
    {"hot",
     "rows of each layer and KV head that stay in memory, those used last: up to 1 a share of the "
     "context, above 1 so many; never fewer than a token reads",
     "1/8", 0, 1e9},
    {"readers", "reads that are under way at once", "8", 1, 64, true},
};

class Disk final : public PlaceMethod {
 public:
  explicit Disk(std::span<const double> values)
      : hot_(values[0]), readers_(static_cast<uint32_t>(values[1])) {}
  uint32_t HotRows(uint32_t most, uint32_t context) const override {
    const double wanted = hot_ > 1 ? hot_ : std::ceil(hot_ * context);
    return std::max(most, static_cast<uint32_t>(std::min<double>(wanted, context)));
  }
  uint32_t readers() const override { return readers_; }

 private:
  const double hot_;
  const uint32_t readers_;
};

}  // namespace

const PlaceEntry kPlaceDisk = {
    "disk",
    "Yang et al. 2024, arXiv 2408.07092",
    "keys and values in a temporary file, of which a token reads the rows that it chose",
    "the index of --kv-read, the rows used last, 64 newest",
    kParameters,
    MakeMethod<PlaceMethod, Disk>,
};

}  // namespace snug
