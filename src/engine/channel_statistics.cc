#include "engine/channel_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace snug {
namespace {

uint64_t SumBytes(const ModelConfig& m) {
  return uint64_t{m.layers} * m.kv_heads * m.head_dim * sizeof(double);
}

}  // namespace

uint64_t ChannelStatistics::Bytes(const ModelConfig& model) {
  return Buffer::Reserved(SumBytes(model), Pages::kNormal);
}

Result<std::unique_ptr<ChannelStatistics>> ChannelStatistics::Create(const ModelConfig& model,
                                                                     Ledger& ledger) {
  std::unique_ptr<ChannelStatistics> s(new ChannelStatistics(model));
  SNUG_ASSIGN(s->buffer_, Buffer::Allocate(ledger, Owner::kScratch, SumBytes(model), Pages::kNormal,
                                           "sums of channels"));
  return s;
}

double* ChannelStatistics::Sums(uint32_t layer, uint32_t kv_head) const {
  auto* sums = const_cast<Buffer&>(buffer_).as<double>();
  return sums + (size_t{layer} * model_.kv_heads + kv_head) * model_.head_dim;
}

void ChannelStatistics::Rotated(uint32_t layer, const float* q, const float* k, const float* /*v*/,
                                uint32_t rows, uint32_t /*first_pos*/) {
  const uint32_t dim = model_.head_dim, group = model_.heads / model_.kv_heads;
  seen_[layer] = true;
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t h = 0; h < model_.heads; ++h) {
      const float* query = q + (size_t{r} * model_.heads + h) * dim;
      const float* key = k + (size_t{r} * model_.kv_heads + h / group) * dim;
      double* sums = Sums(layer, h / group);
      for (uint32_t c = 0; c < dim; ++c) sums[c] += std::abs(double{query[c]} * key[c]);
    }
  }
}

ChannelRanking ChannelStatistics::Rank() const {
  ChannelRanking ranking{model_.kv_heads, model_.head_dim, {}};
  ranking.layers.resize(model_.layers);
  for (uint32_t l = 0; l < model_.layers; ++l) {
    for (uint32_t h = 0; seen_[l] && h < model_.kv_heads; ++h) {
      const double* sums = Sums(l, h);
      std::vector<uint16_t> order(model_.head_dim);
      std::iota(order.begin(), order.end(), uint16_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](uint16_t a, uint16_t b) { return sums[a] > sums[b]; });
      ranking.layers[l].insert(ranking.layers[l].end(), order.begin(), order.end());
    }
  }
  return ranking;
}

}  // namespace snug
