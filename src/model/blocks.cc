#include "model/blocks.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernel/ops.h"
#include "model/blocks_internal.h"

namespace snug {
namespace {

// Weight bytes of one task of a product: large enough to stream, small enough to balance.
constexpr size_t kTaskBytes = 64 << 10;

struct Views {
  float *x, *h, *q, *k, *v, *attended, *ffn, *logits, *angles;
  float *projected, *convolved, *steps, *dt;
  uint8_t* acts;
  ExpertBuffers experts;
};

size_t FfnWidth(const ModelConfig& c) { return std::max(c.ffn, c.shared_ffn); }

size_t WidestInput(const ModelConfig& c) {
  return std::max({size_t{c.dim}, FfnWidth(c), size_t{c.heads} * c.head_dim, size_t{c.state.inner},
                   size_t{c.state.dt_rank}});
}

Views CarveActivations(const BlocksLayout& l, Carver& carve) {
  const ModelConfig& c = *l.config;
  const size_t rows = l.chunk;
  Views v;
  v.x = carve.Floats(rows * c.dim);
  v.h = carve.Floats(std::max<size_t>(rows, l.logit_rows) * c.dim);
  v.q = carve.Floats(rows * c.heads * c.head_dim);
  v.k = carve.Floats(rows * c.kv_heads * c.head_dim);
  v.v = carve.Floats(rows * c.kv_heads * c.head_dim);
  v.attended = carve.Floats(rows * std::max(c.heads * c.head_dim, c.state.inner));
  v.ffn = carve.Floats(rows * FfnWidth(c));
  v.angles = carve.Floats(rows * 2 * c.head_dim);
  const size_t gated = c.attention_gate ? 2 * size_t{c.heads} * c.head_dim : 0;
  v.projected = carve.Floats(rows * std::max<size_t>(c.state.projected(), gated));
  v.convolved = carve.Floats(rows * c.state.conv_channels());
  v.steps = carve.Floats(rows * c.state.steps());
  v.dt = carve.Floats(c.state.dt_rank == 0 ? 0 : rows * c.state.inner);
  v.acts = carve.Bytes(Activations::Bytes(rows, WidestInput(c)));
  v.logits = carve.Floats(size_t{l.logit_rows} * c.vocab);
  if (c.router.experts != 0) v.experts = CarveExperts(l, carve);
  return v;
}

size_t FfnTile(const BlocksLayout& l) {
  return AlignBytes(size_t{l.chunk} * kFfnPanels * kPanelRows * sizeof(float));
}

size_t ThreadScratch(const BlocksLayout& l) {
  const ModelConfig& c = *l.config;
  if (c.kv_heads == 0) return FfnTile(l);
  return std::max(FfnTile(l), AlignBytes(AttentionScratchBytes(c.head_dim, c.heads / c.kv_heads)));
}

size_t PartialCount(const BlocksLayout& l) {
  if (l.config->encoder) return 0;  // its attention is never split
  return PartialFloats(std::min(kSplitRows, l.chunk), l.config->heads, l.config->head_dim,
                       l.context);
}

}  // namespace

uint64_t BlocksLayout::activation_bytes() const {
  Carver carve(nullptr);
  CarveActivations(*this, carve);
  return carve.used();
}

uint64_t BlocksLayout::scratch_bytes() const {
  return ThreadScratch(*this) * threads + AlignBytes(PartialCount(*this) * sizeof(float)) +
         AlignBytes(size_t{log_sums} * chunk * config->heads * sizeof(float));
}

Blocks::Blocks(const BlocksLayout& layout, bool exact, const float* divisors, ThreadPool& pool,
               KvCache& cache)
    : config_(*layout.config),
      layout_(layout),
      exact_(exact),
      pool_(pool),
      cache_(cache),
      rope_(config_.rope, divisors),
      local_rope_(config_.local_rope, divisors) {}

Result<std::unique_ptr<Blocks>> Blocks::Create(const BlocksLayout& layout, bool exact,
                                               const float* divisors, Ledger& ledger,
                                               ThreadPool& pool, KvCache& cache) {
  std::unique_ptr<Blocks> b(new Blocks(layout, exact, divisors, pool, cache));
  SNUG_ASSIGN(b->activations_,
              Buffer::Allocate(ledger, Owner::kActivations, layout.activation_bytes(),
                               Pages::kNormal, "activations"));
  SNUG_ASSIGN(b->scratch_, Buffer::Allocate(ledger, Owner::kScratch, layout.scratch_bytes(),
                                            Pages::kNormal, "scratch"));
  SNUG_ASSIGN(b->reader_, RowReader::Create(layout.reader, ledger));
  SNUG_ASSIGN(b->block_reader_, BlockReader::Create(layout.block_reader, ledger));
  Carver carve(b->activations_.data());
  const Views v = CarveActivations(layout, carve);
  b->x_ = v.x;
  b->h_ = v.h;
  b->q_ = v.q;
  b->k_ = v.k;
  b->v_ = v.v;
  b->attended_ = v.attended;
  b->ffn_ = v.ffn;
  b->projected_ = v.projected;
  b->convolved_ = v.convolved;
  b->steps_ = v.steps;
  b->dt_ = v.dt;
  b->mixed_ = v.attended;
  b->angles_ = v.angles;
  b->logits_ = v.logits;
  b->experts_ = v.experts;
  b->acts_.Bind(v.acts, layout.chunk, WidestInput(*layout.config));
  b->thread_scratch_ = b->scratch_.data();
  b->thread_scratch_bytes_ = ThreadScratch(layout);
  b->partial_ =
      reinterpret_cast<float*>(b->scratch_.data() + b->thread_scratch_bytes_ * layout.threads);
  if (layout.log_sums > 0) {
    b->log_sums_ = b->partial_ + AlignBytes(PartialCount(layout) * sizeof(float)) / sizeof(float);
  }
  b->spans_.reserve(layout.sequences);
  b->args_.reserve(layout.sequences + 1);  // a block of queries that choose may lie between others
  b->choosing_.reserve(layout.sequences);
  return b;
}

void Blocks::Begin(std::span<const RowSpan> spans) {
  spans_.assign(spans.begin(), spans.end());
  stored_ = false;
  rows_ = 0;
  for (const RowSpan& s : spans_) rows_ += s.rows;
  assert(rows_ <= layout_.chunk);
  const size_t stride = 2 * size_t{config_.head_dim};
  for (const RowSpan& s : spans_) {
    ForRows(s.rows, [&](uint32_t r) {
      float* angles = angles_ + (s.first_row + r) * stride;
      rope_.Fill(s.first_pos + r, angles);
      if (config_.max_window() != 0) local_rope_.Fill(s.first_pos + r, angles + config_.head_dim);
    });
  }
}

void Blocks::Prepare(const float* src, uint32_t rows, uint32_t cols, size_t stride) {
  if (stride == 0) stride = cols;
  if (Quantizes(cols))
    ForRows(rows, [&](uint32_t r) { acts_.Quantize(src, stride, cols, r, r + 1); });
  acts_.Seal(src, stride, rows, cols);
}

void Blocks::Plain() {
  if (stored_) return;
  std::memcpy(h_, x_, size_t{rows_} * config_.dim * sizeof(float));
  Prepare(h_, rows_, config_.dim);
}

void Blocks::Norm(const float* weight) {
  if (stored_) return;
  const uint32_t dim = config_.dim;
  const bool quantize = Quantizes(dim);
  ForRows(rows_, [&](uint32_t r) {
    RmsNorm(x(r), weight, config_.eps, dim, h_ + size_t{r} * dim);
    if (quantize) acts_.Quantize(h_, dim, dim, r, r + 1);
  });
  acts_.Seal(h_, dim, rows_, dim);
}

void Blocks::Multiply(std::span<const Product> products) {
  // Tasks are runs of panels, in order over all products.
  std::array<PackedMatrix, kMaxProducts> matrix{};
  std::array<size_t, kMaxProducts> per_task{}, first_task{};
  assert(products.size() <= kMaxProducts);
  size_t tasks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const Activations& x = products[i].x == nullptr ? acts_ : *products[i].x;
    const PackedMatrix& w = matrix[i] = Seen(products[i].w, x);
    per_task[i] = std::max<size_t>(1, kTaskBytes / PanelBytes(w.type, w.cols));
    first_task[i] = tasks;
    tasks += (w.panels() + per_task[i] - 1) / per_task[i];
  }
  pool_.For(tasks, [&](size_t task, int) {
    size_t i = products.size() - 1;
    while (task < first_task[i]) --i;
    const Product& p = products[i];
    const Activations& x = p.x == nullptr ? acts_ : *p.x;
    const size_t first = (task - first_task[i]) * per_task[i];
    const size_t last = std::min(first + per_task[i], matrix[i].panels());
    MatMul(matrix[i], x, first, last, exact_, p.out, p.stride);
    if (p.bias == nullptr) return;
    const size_t column = first * kPanelRows, columns = Panels(matrix[i], first, last).rows;
    for (size_t r = 0; r < x.tokens; ++r) {
      AddTo(p.bias + column, columns, p.out + r * p.stride + column);
    }
  });
}

void Blocks::AddResidual(const float* norm) {
  if (stored_) return;
  const uint32_t dim = config_.dim;
  ForRows(rows_, [&](uint32_t r) {
    float* out = h_ + size_t{r} * dim;
    if (norm != nullptr) RmsNorm(out, norm, config_.eps, dim, out);
    if (config_.residual_scale != 1) Scale(config_.residual_scale, dim, out);
    AddTo(out, dim, x(r));
  });
}

void Blocks::BeginHead(std::span<const uint32_t> rows, const float* weight) {
  assert(rows.size() <= layout_.logit_rows);
  const uint32_t dim = config_.dim;
  head_rows_ = static_cast<uint32_t>(rows.size());
  const bool quantize = Quantizes(dim);
  ForRows(head_rows_, [&](uint32_t i) {
    RmsNorm(x(rows[i]), weight, config_.eps, dim, h_ + size_t{i} * dim);
    if (quantize) acts_.Quantize(h_, dim, dim, i, i + 1);
  });
  acts_.Seal(h_, dim, head_rows_, dim);
}

void Blocks::HeadBlock(const PackedMatrix& w, uint32_t first_row) {
  const Product products[] = {{w, nullptr, logits_ + first_row, config_.vocab}};
  Multiply(products);
}

void Blocks::FinishHead() {
  const ModelConfig& c = config_;
  if (c.logit_scale == 1 && c.logit_softcap <= 0) return;
  ForRows(head_rows_, [&](uint32_t i) {
    if (c.logit_scale != 1) Scale(c.logit_scale, c.vocab, logits(i));
    if (c.logit_softcap > 0) SoftCap(c.logit_softcap, c.vocab, logits(i));
  });
}

}  // namespace snug
