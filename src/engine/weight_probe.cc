#include "engine/weight_probe.h"

#include <algorithm>

#include "format/quantize.h"
#include "format/recipe.h"

namespace snug {
namespace {

constexpr char kEmbedding[] = "token_embd.weight";

}  // namespace

struct WeightProbe::Sizes {
  uint64_t packed = 0, per_thread = 0;
};

WeightProbe::Sizes WeightProbe::SizesOf(const WeightLayout& layout, int) {
  Sizes s;
  const auto add = [&](const Part& part) {
    for (const PartTensor& t : part.tensors) {
      if (!t.packed) continue;
      const uint64_t cols = t.info->cols();
      const DType type = FittingType(kType, cols);
      s.packed = std::max<uint64_t>(s.packed, PackedBytes(type, t.rows, cols));
      s.per_thread = std::max(s.per_thread, AlignBytes(kPanelRows * RowBytes(type, cols)) +
                                                AlignBytes(cols * sizeof(float)));
    }
  };
  for (size_t p = 1; p < layout.parts.size(); ++p) add(layout.parts[p]);
  for (const Part& part : layout.experts) add(part);
  return s;
}

uint64_t WeightProbe::Bytes(const WeightLayout& layout, uint32_t vocab, int threads) {
  const Sizes s = SizesOf(layout, threads);
  return Buffer::Reserved(s.packed, Pages::kNormal) +
         Buffer::Reserved(s.per_thread * static_cast<uint64_t>(threads), Pages::kNormal) +
         Buffer::Reserved(uint64_t{kRows} * vocab * sizeof(float), Pages::kNormal);
}

Result<std::unique_ptr<WeightProbe>> WeightProbe::Create(const WeightLayout& layout, uint32_t vocab,
                                                         Ledger& ledger, ThreadPool& pool) {
  std::unique_ptr<WeightProbe> p(new WeightProbe(pool));
  const Sizes s = SizesOf(layout, pool.size());
  p->per_thread_ = s.per_thread;
  SNUG_ASSIGN(p->packed_, Buffer::Allocate(ledger, Owner::kScratch, s.packed, Pages::kNormal,
                                           "a matrix in few bits"));
  SNUG_ASSIGN(p->scratch_, Buffer::Allocate(ledger, Owner::kScratch,
                                            s.per_thread * static_cast<uint64_t>(pool.size()),
                                            Pages::kNormal, "rows of a matrix"));
  SNUG_ASSIGN(p->reference_,
              Buffer::Allocate(ledger, Owner::kScratch, uint64_t{kRows} * vocab * sizeof(float),
                               Pages::kNormal, "logits to compare with"));
  return p;
}

void WeightProbe::Choose(const std::vector<std::string>& tensors) {
  active_ = {tensors.begin(), tensors.end()};
}

void WeightProbe::Enter(const Part& part, const uint8_t* base, uint32_t) {
  part_ = &part;
  base_ = base;
}

PackedMatrix WeightProbe::See(const PackedMatrix& w, const Activations&) {
  if (active_.empty() || part_ == nullptr) return w;
  const SeenTensor seen = FindTensor(*part_, base_, w);
  if (seen.tensor == nullptr || !active_.contains(seen.tensor->info->name)) return w;
  const DType type = FittingType(kType, w.cols);
  const uint64_t row_bytes = RowBytes(type, w.cols), panel_bytes = PanelBytes(type, w.cols);
  pool_.For(w.panels(), [&](size_t panel, int thread) {
    uint8_t* rows = scratch_.data() + per_thread_ * static_cast<uint64_t>(thread);
    auto* values = reinterpret_cast<float*>(rows + AlignBytes(kPanelRows * row_bytes));
    const size_t first = panel * kPanelRows;
    const size_t n = std::min<size_t>(kPanelRows, w.rows - first);
    for (size_t r = 0; r < n; ++r) {
      UnpackRow(w, first + r, values);
      Quantize(type, values, w.cols, nullptr, rows + r * row_bytes);
    }
    PackPanels(type, rows, n, w.cols, packed_.data() + panel * panel_bytes);
  });
  return {packed_.data(), type, w.rows, w.cols};
}

void WeightProbe::Embedded(float* row, size_t n) {
  if (!active_.contains(kEmbedding)) return;
  const DType type = FittingType(kType, n);
  Quantize(type, row, n, nullptr, scratch_.data());
  Dequantize(type, scratch_.data(), n, row);
}

}  // namespace snug
