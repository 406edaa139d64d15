// The blocks of encoders (Devlin et al. 2019), whose norms follow the sums.
#include <algorithm>

#include "kernel/ops.h"
#include "model/blocks_internal.h"

namespace snug {

void Blocks::EmbedPositions(const LayerWeights& globals) {
  const uint32_t dim = config_.dim;
  const float* positions = globals.vec(Role::kPositions);
  const float* type = globals.vec(Role::kTokenTypes);
  const bool quantize = Quantizes(dim);
  pool_.For(spans_.size(), [&](size_t i, int) {
    const RowSpan& s = spans_[i];
    for (uint32_t r = s.first_row; r < s.first_row + s.rows; ++r) {
      AddTo(positions + size_t{s.first_pos + r - s.first_row} * dim, dim, x(r));
      AddTo(type, dim, x(r));
      LayerNorm(x(r), globals.vec(Role::kInputNorm), globals.vec(Role::kInputNormBias), config_.eps,
                dim, x(r));
      if (quantize) acts_.Quantize(x_, dim, dim, r, r + 1);
    }
  });
  acts_.Seal(x_, dim, rows_, dim);
}

void Blocks::Ffn(const LayerWeights& w) {
  const PackedMatrix& up = w[Role::kUp];
  const float* bias = w.vec(Role::kUpBias);
  const size_t ffn = config_.ffn;
  pool_.For((up.panels() + kFfnPanels - 1) / kFfnPanels, [&](size_t task, int) {
    const size_t first = task * kFfnPanels;
    const size_t last = std::min<size_t>(first + kFfnPanels, up.panels());
    const size_t column = first * kPanelRows, columns = Panels(up, first, last).rows;
    MatMul(up, acts_, first, last, exact_, ffn_, ffn);
    for (size_t r = 0; r < rows_; ++r) {
      float* out = ffn_ + r * ffn + column;
      AddTo(bias + column, columns, out);
      GeluErf(columns, out);
    }
  });
  Prepare(ffn_, rows_, config_.ffn);
  const Product products[] = {{w[Role::kDown], w.vec(Role::kDownBias), h_, config_.dim}};
  Multiply(products);
}

void Blocks::AddNorm(const float* weight, const float* bias) {
  const uint32_t dim = config_.dim;
  const bool quantize = Quantizes(dim);
  ForRows(rows_, [&](uint32_t r) {
    AddTo(h_ + size_t{r} * dim, dim, x(r));
    LayerNorm(x(r), weight, bias, config_.eps, dim, x(r));
    if (quantize) acts_.Quantize(x_, dim, dim, r, r + 1);
  });
  acts_.Seal(x_, dim, rows_, dim);
}

}  // namespace snug
