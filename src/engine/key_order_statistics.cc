#include "engine/key_order_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <numeric>

namespace snug {
namespace {

uint64_t SumBytes(const ModelConfig& m) {
  return uint64_t{m.layers} * m.kv_heads * m.head_dim * sizeof(double);
}

}  // namespace

uint64_t KeyOrderStatistics::Bytes(const ModelConfig& model, uint32_t context) {
  return KeyBasis::Bytes(model, context) + Buffer::Reserved(SumBytes(model), Pages::kNormal);
}

Result<std::unique_ptr<KeyOrderStatistics>> KeyOrderStatistics::Create(
    const ModelConfig& m, uint32_t heads, uint32_t context, const std::vector<float>& frequencies,
    Ledger& ledger) {
  if (heads == 0) heads = TransformHeads(m.kv_heads);
  if (std::count(m.window.begin(), m.window.end(), 0u) == m.recurrent_layers()) {
    return MakeError(Code::kUsage,
                     fmt::format("{} has no layer with attention over all rows", m.name),
                     "an order of key channels is of no use here: --kv f16 or q8_0");
  }
  const bool transforms = std::has_single_bit(heads) && m.kv_heads % heads == 0;
  if (!transforms || !std::has_single_bit(m.head_dim) ||
      uint64_t{m.kv_heads} * m.head_dim > kMaxKeyWidth) {
    return MakeError(
        Code::kUsage,
        fmt::format("{} KV heads of {} channels have no transforms over {} heads at a time: both "
                    "must be powers of two, and there are at most {} channels in all",
                    m.kv_heads, m.head_dim, heads, kMaxKeyWidth),
        "another --heads, or --kv kivi");
  }
  std::unique_ptr<KeyOrderStatistics> s(new KeyOrderStatistics(m));
  s->format_ = {m.head_dim, m.kv_heads, heads};
  SNUG_ASSIGN(s->basis_,
              KeyBasis::Create(m, frequencies, context, nullptr, Owner::kScratch, ledger));
  SNUG_ASSIGN(s->sums_, Buffer::Allocate(ledger, Owner::kScratch, SumBytes(m), Pages::kNormal,
                                         "sums of key channels"));
  s->row_.resize(s->format_.width());
  return s;
}

double* KeyOrderStatistics::Sums(uint32_t layer) const {
  return const_cast<Buffer&>(sums_).as<double>() + size_t{layer} * format_.width();
}

void KeyOrderStatistics::Rotated(uint32_t layer, const float* /*q*/, const float* k,
                                 const float* /*v*/, uint32_t rows, uint32_t first_pos) {
  if (model_.window[layer] != 0) return;
  const size_t width = format_.width();
  const KeyRotary rotary = basis_.OfLayer(layer).rotary;
  for (uint32_t r = 0; r < rows; ++r) {
    std::copy_n(k + r * width, width, row_.data());
    TransformKeys(format_, rotary, first_pos + r, row_.data());
    for (size_t i = 0; i < width; ++i) Sums(layer)[i] += row_[i];
  }
}

KeyOrder KeyOrderStatistics::Order() const {
  KeyOrder order;
  order.heads = static_cast<uint32_t>(format_.heads);
  order.layers.resize(model_.layers);
  for (uint32_t l = 0; l < model_.layers; ++l) {
    if (model_.window[l] != 0 || model_.recurrent[l]) continue;
    std::vector<uint16_t>& list = order.layers[l];
    list.resize(format_.width());
    std::iota(list.begin(), list.end(), uint16_t{0});
    const double* sums = Sums(l);
    std::stable_sort(list.begin(), list.end(),
                     [&](uint16_t a, uint16_t b) { return sums[a] < sums[b]; });
  }
  return order;
}

}  // namespace snug
