// Quest (Tang et al. 2024, arXiv 2406.10774): rows are read by pages. Beside each page lie the
// least and the largest value of every channel of its keys; no q.k of the page exceeds the sum over
// channels of max(q min, q max), and the pages with the largest bounds are read.
//
// Bounds are f16, rounded outwards, and hold for keys within f16's range. The page of the newest
// row is always read, so that the bounds of a page that is being filled are not asked for.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "format/dtype.h"
#include "kernel/read_scores.h"
#include "kv/read/registry.h"

namespace snug {
namespace {

constexpr auto kParameters = WithReadBudget({
    {"page", "rows of a page: 1, 2, 4, 8, 16, 32 or 64", "16", 1, kTileTokens, true},
});

// The least f16 that is not below v, of those that are finite.
uint16_t HalfAbove(float v) {
  v = std::clamp(v, -kMaxHalf, kMaxHalf);
  const uint16_t half = FloatToHalf(v);
  if (HalfToFloat(half) >= v) return half;
  if (half == 0x8000) return 1;
  return static_cast<uint16_t>((half & 0x8000) != 0 ? half - 1 : half + 1);
}
uint16_t HalfBelow(float v) { return HalfAbove(-v) ^ 0x8000; }

class Quest final : public RowMethod {
 public:
  Quest(const ReadBudget& budget, uint32_t page) : RowMethod(budget), page_(page) {}

  size_t IndexBytes(uint32_t head_dim) const override {
    return (kTileTokens / page_ * RowBytes(head_dim) + 63) / 64 * 64;
  }
  void Index(const KeyTile& keys, uint32_t /*layer*/, uint32_t /*head*/, uint32_t first,
             uint32_t last, uint8_t* index) const override {
    const uint32_t dim = keys.head_dim;
    assert(dim <= kMaxHeadDim);
    float key[kMaxHeadDim], least[kMaxHeadDim], most[kMaxHeadDim];
    for (uint32_t begin = first / page_ * page_; begin < last; begin += page_) {
      const uint32_t end = std::min(begin + page_, last);
      keys.Load(begin, least);
      std::copy_n(least, dim, most);
      for (uint32_t r = begin + 1; r < end; ++r) {
        keys.Load(r, key);
        for (uint32_t c = 0; c < dim; ++c) {
          least[c] = std::min(least[c], key[c]);
          most[c] = std::max(most[c], key[c]);
        }
      }
      auto* bounds = reinterpret_cast<uint16_t*>(index + begin / page_ * RowBytes(dim));
      for (uint32_t c = 0; c < dim; ++c) {
        bounds[c] = HalfBelow(least[c]);
        bounds[dim + c] = HalfAbove(most[c]);
      }
      std::fill_n(bounds + 2 * dim, IndexWidth(2 * dim) - 2 * dim, uint16_t{0});
    }
  }
  size_t QueryBytes(uint32_t heads, uint32_t head_dim) const override {
    return heads * IndexWidth(2 * head_dim) * sizeof(float);
  }
  void Prepare(const GroupQueries& queries, uint8_t* prepared) const override {
    const uint32_t dim = queries.head_dim;
    const size_t width = IndexWidth(2 * dim);
    auto* to = reinterpret_cast<float*>(prepared);
    for (uint32_t h = 0; h < queries.heads; ++h, to += width) {
      std::fill_n(to, width, 0.0f);
      for (uint32_t c = 0; c < dim; ++c) {
        const float q = queries.q[h * dim + c];
        to[q < 0 ? c : dim + c] = q;
      }
    }
  }
  void Score(const uint8_t* index, const uint8_t* prepared, uint32_t heads, uint32_t head_dim,
             float* scores, size_t stride) const override {
    ScoreHalves(reinterpret_cast<const uint16_t*>(index), kTileTokens / page_,
                IndexWidth(2 * head_dim), reinterpret_cast<const float*>(prepared), heads, scores,
                stride);
  }

 private:
  static size_t RowBytes(uint32_t head_dim) { return IndexWidth(2 * head_dim) * sizeof(uint16_t); }
  const uint32_t page_;
};

}  // namespace

const ReadEntry kReadQuest = {
    "quest",
    "Tang et al. 2024, arXiv 2406.10774",
    "the pages of rows whose keys' bounds allow the largest q.k",
    "least and largest value of each channel of a page's keys, in f16",
    kParameters,
    [](std::span<const double> values) -> Result<std::shared_ptr<ReadMethod>> {
      const auto page = static_cast<uint32_t>(values[kOwnValues]);
      if (kTileTokens % page != 0) {
        return MakeError(
            Code::kUsage,
            fmt::format("--kv-read quest: page={} does not divide {}", page, kTileTokens),
            "for example page=16", {{"option", "--kv-read"}, {"parameter", "page"}});
      }
      return std::shared_ptr<ReadMethod>(std::make_shared<Quest>(ReadBudgetOf(values, page), page));
    },
};

}  // namespace snug
