#include "model/blocks.h"

#include <algorithm>
#include <cassert>

#include "kernel/ops.h"

namespace snug {
namespace {

constexpr size_t kAlign = 64;
// Rows up to which a loop over rows stays on the calling thread: a hand-over costs more than a few
// rows.
constexpr uint32_t kInlineRows = 2;
// Rows a task of a parallel loop over rows covers.
constexpr uint32_t kRowsPerTask = 8;
// Weight bytes of one task of a product: large enough to stream, small enough to balance.
constexpr size_t kTaskBytes = 64 << 10;
// Panels of gate and of up that one task multiplies before it joins them.
constexpr uint32_t kFfnPanels = 4;
// Split attention is used for at most this many rows at once; more run in groups.
constexpr uint32_t kSplitRows = kMaxSplitRows;

size_t Align(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

// Hands out aligned pieces of a buffer; with a null base it only measures.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  float* Floats(size_t n) { return reinterpret_cast<float*>(Bytes(n * sizeof(float))); }
  uint8_t* Bytes(size_t n) {
    uint8_t* p = base_ == nullptr ? nullptr : base_ + used_;
    used_ += Align(n);
    return p;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* base_;
  size_t used_ = 0;
};

struct Views {
  float *x, *h, *q, *k, *v, *attended, *ffn, *logits, *angles;
  uint8_t* acts;
};

size_t WidestInput(const ModelConfig& c) {
  return std::max({size_t{c.dim}, size_t{c.ffn}, size_t{c.heads} * c.head_dim});
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
  v.attended = carve.Floats(rows * c.heads * c.head_dim);
  v.ffn = carve.Floats(rows * c.ffn);
  v.angles = carve.Floats(rows * 2 * c.head_dim);
  v.acts = carve.Bytes(Activations::Bytes(rows, WidestInput(c)));
  v.logits = carve.Floats(size_t{l.logit_rows} * c.vocab);
  return v;
}

size_t FfnTile(const BlocksLayout& l) {
  return Align(size_t{l.chunk} * kFfnPanels * kPanelRows * sizeof(float));
}

size_t ThreadScratch(const BlocksLayout& l) {
  const ModelConfig& c = *l.config;
  return std::max(FfnTile(l), Align(AttentionScratchBytes(c.head_dim, c.heads / c.kv_heads)));
}

size_t PartialCount(const BlocksLayout& l) {
  return PartialFloats(std::min(kSplitRows, l.chunk), l.config->heads, l.config->head_dim,
                       l.context);
}

PackedMatrix Panels(const PackedMatrix& w, size_t first, size_t last) {
  const size_t rows = std::min<size_t>(w.rows, last * kPanelRows) - first * kPanelRows;
  return {w.data + first * PanelBytes(w.type, w.cols), w.type, static_cast<uint32_t>(rows), w.cols};
}

}  // namespace

uint64_t BlocksLayout::activation_bytes() const {
  Carver carve(nullptr);
  CarveActivations(*this, carve);
  return carve.used();
}

uint64_t BlocksLayout::scratch_bytes() const {
  return ThreadScratch(*this) * threads + Align(PartialCount(*this) * sizeof(float));
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
  Carver carve(b->activations_.data());
  const Views v = CarveActivations(layout, carve);
  b->x_ = v.x;
  b->h_ = v.h;
  b->q_ = v.q;
  b->k_ = v.k;
  b->v_ = v.v;
  b->attended_ = v.attended;
  b->ffn_ = v.ffn;
  b->angles_ = v.angles;
  b->logits_ = v.logits;
  b->acts_.Bind(v.acts, layout.chunk, WidestInput(*layout.config));
  b->thread_scratch_ = b->scratch_.data();
  b->thread_scratch_bytes_ = ThreadScratch(layout);
  b->partial_ =
      reinterpret_cast<float*>(b->scratch_.data() + b->thread_scratch_bytes_ * layout.threads);
  b->spans_.reserve(layout.sequences);
  b->args_.reserve(layout.sequences);
  return b;
}

template <class F>
void Blocks::ForRows(uint32_t rows, F&& fn) {
  if (rows <= kInlineRows) {
    for (uint32_t r = 0; r < rows; ++r) fn(r);
    return;
  }
  const uint32_t per_task = rows <= 4 * kRowsPerTask ? 1 : kRowsPerTask;
  pool_.For((rows + per_task - 1) / per_task, [&](size_t task, int) {
    const auto first = static_cast<uint32_t>(task) * per_task;
    for (uint32_t r = first; r < std::min(rows, first + per_task); ++r) fn(r);
  });
}

void Blocks::Begin(std::span<const RowSpan> spans) {
  spans_.assign(spans.begin(), spans.end());
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

void Blocks::Prepare(const float* src, uint32_t rows, uint32_t cols) {
  if (Quantizes(cols))
    ForRows(rows, [&](uint32_t r) { acts_.Quantize(src, cols, cols, r, r + 1); });
  acts_.Seal(src, cols, rows, cols);
}

void Blocks::Norm(const float* weight) {
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
  std::array<size_t, 4> per_task{}, first_task{};
  size_t tasks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const PackedMatrix& w = products[i].w;
    per_task[i] = std::max<size_t>(1, kTaskBytes / PanelBytes(w.type, w.cols));
    first_task[i] = tasks;
    tasks += (w.panels() + per_task[i] - 1) / per_task[i];
  }
  pool_.For(tasks, [&](size_t task, int) {
    size_t i = products.size() - 1;
    while (task < first_task[i]) --i;
    const Product& p = products[i];
    const size_t first = (task - first_task[i]) * per_task[i];
    MatMul(p.w, acts_, first, std::min(first + per_task[i], p.w.panels()), exact_, p.out, p.stride);
  });
}

void Blocks::ProjectQkv(const LayerWeights& w) {
  const size_t q = size_t{config_.heads} * config_.head_dim;
  const size_t kv = size_t{config_.kv_heads} * config_.head_dim;
  const Product products[] = {{w[Role::kQ], q_, q}, {w[Role::kK], k_, kv}, {w[Role::kV], v_, kv}};
  Multiply(products);
}

void Blocks::RotateAndStore(uint32_t layer, const LayerWeights& w) {
  const ModelConfig& c = config_;
  const uint32_t d = c.head_dim;
  const bool local = c.window[layer] != 0;
  const RopeConfig& rope = local ? c.local_rope : c.rope;
  auto rotate = [&](float* head, const float* norm, const float* angles) {
    if (norm != nullptr) RmsNorm(head, norm, c.eps, d, head);
    (rope.interleaved ? RopeInterleaved : RopeNeox)(angles, rope.dim, head);
  };
  const KvLayout& kv = cache_.layout();
  auto row_of = [&](const RowSpan& s, uint32_t pos) {
    const uint32_t r = s.first_row + (pos - s.first_pos);
    const float* angles = angles_ + r * 2 * size_t{d} + (local ? d : 0);
    float* q = q_ + size_t{r} * c.heads * d;
    float* k = k_ + size_t{r} * c.kv_heads * d;
    float* v = v_ + size_t{r} * c.kv_heads * d;
    if (const float* bias = w.vec(Role::kQBias)) {
      AddTo(bias, size_t{c.heads} * d, q);
      AddTo(w.vec(Role::kKBias), size_t{c.kv_heads} * d, k);
      AddTo(w.vec(Role::kVBias), size_t{c.kv_heads} * d, v);
    }
    for (uint32_t h = 0; h < c.heads; ++h) rotate(q + h * d, w.vec(Role::kQNorm), angles);
    uint8_t* page = cache_.page(s.sequence, layer, pos / kTileTokens);
    uint8_t* values = page + c.kv_heads * cache_.key_tile_bytes();
    for (uint32_t h = 0; h < c.kv_heads; ++h) {
      rotate(k + h * d, w.vec(Role::kKNorm), angles);
      StoreKey(kv.key_type, k + h * d, d, pos % kTileTokens, page + h * cache_.key_tile_bytes());
      StoreValue(kv.value_type, v + h * d, d, pos % kTileTokens,
                 values + h * cache_.value_tile_bytes());
    }
  };
  for (const RowSpan& s : spans_) {
    // A task is one tile, so that no two threads encode into the same tile.
    const uint32_t first = s.first_pos / kTileTokens;
    const uint32_t last = (s.first_pos + s.rows - 1) / kTileTokens;
    auto tile = [&](size_t t, int) {
      const auto begin = std::max<uint32_t>(s.first_pos, (first + t) * kTileTokens);
      const auto end = std::min<uint32_t>(s.first_pos + s.rows, (first + t + 1) * kTileTokens);
      for (uint32_t pos = begin; pos < end; ++pos) row_of(s, pos);
    };
    if (first == last) {
      tile(0, 0);
    } else {
      pool_.For(last - first + 1, tile);
    }
  }
}

void Blocks::AttendGroup(std::span<const AttentionArgs> group) {
  constexpr size_t kMaxGroup = 64;
  assert(group.size() <= kMaxGroup);
  std::array<AttentionPlan, kMaxGroup> plans;
  std::array<uint32_t, kMaxGroup> first_task{};
  std::array<size_t, kMaxGroup> first_partial{};
  uint32_t tasks = 0;
  size_t partials = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    plans[i] = PlanAttention(group[i], pool_.size());
    first_task[i] = tasks;
    first_partial[i] = partials;
    tasks += plans[i].tasks;
    if (plans[i].split) {
      partials += PartialFloats(group[i].tokens, config_.heads, config_.head_dim,
                                group[i].first_pos + group[i].tokens);
    }
  }
  pool_.For(tasks, [&](size_t task, int thread) {
    size_t i = group.size() - 1;
    while (task < first_task[i]) --i;
    AttendTask(group[i], plans[i], static_cast<uint32_t>(task) - first_task[i],
               thread_scratch_ + thread * thread_scratch_bytes_, partial_ + first_partial[i]);
  });
  for (size_t i = 0; i < group.size(); ++i) {
    if (!plans[i].split) continue;
    ForRows(group[i].tokens, [&](uint32_t r) {
      for (uint32_t h = 0; h < config_.heads; ++h) {
        CombinePartials(group[i], plans[i], partial_ + first_partial[i], r, h);
      }
    });
  }
}

void Blocks::Attend(uint32_t layer) {
  const ModelConfig& c = config_;
  const size_t width = size_t{c.heads} * c.head_dim;
  args_.clear();
  for (const RowSpan& s : spans_) {
    AttentionArgs a;
    a.key_type = cache_.layout().key_type;
    a.value_type = cache_.layout().value_type;
    a.heads = c.heads;
    a.kv_heads = c.kv_heads;
    a.head_dim = c.head_dim;
    a.window = c.window[layer];
    a.scale = c.attention_scale;
    a.softcap = c.attention_softcap;
    a.exact = exact_;
    a.q = q_ + s.first_row * width;
    a.q_stride = width;
    a.tokens = s.rows;
    a.first_pos = s.first_pos;
    a.tiles = cache_.tiles(s.sequence, layer);
    a.out = attended_ + s.first_row * width;
    a.out_stride = width;
    args_.push_back(a);
    const uint32_t seen = s.first_pos + s.rows;
    const uint32_t read = a.window == 0 ? seen : std::min(seen, a.window + s.rows);
    kv_bytes_ += (read + kTileTokens - 1) / kTileTokens * cache_.layout().page_bytes();
  }
  // Groups whose split rows fit the partials.
  size_t first = 0;
  while (first < args_.size()) {
    size_t last = first;
    uint32_t rows = 0;
    while (last < args_.size() && last - first < 64 &&
           (last == first || rows + std::min(args_[last].tokens, kSplitRows) <= kSplitRows)) {
      rows += std::min(args_[last].tokens, kSplitRows);
      ++last;
    }
    AttendGroup({args_.data() + first, last - first});
    first = last;
  }
}

void Blocks::ProjectOut(const LayerWeights& w) {
  Prepare(attended_, rows_, config_.heads * config_.head_dim);
  const Product products[] = {{w[Role::kO], h_, config_.dim}};
  Multiply(products);
}

void Blocks::GatedFfn(const LayerWeights& w) {
  const PackedMatrix& gate = w[Role::kGate];
  const PackedMatrix& up = w[Role::kUp];
  const size_t ffn = config_.ffn;
  const size_t tasks = (gate.panels() + kFfnPanels - 1) / kFfnPanels;
  const auto join = config_.activation == Activation::kSilu ? SiluMul : GeluMul;
  pool_.For(tasks, [&](size_t task, int thread) {
    const size_t first = task * kFfnPanels;
    const size_t last = std::min(first + kFfnPanels, gate.panels());
    const PackedMatrix g = Panels(gate, first, last), u = Panels(up, first, last);
    float* out = ffn_ + first * kPanelRows;  // [rows, ffn], these columns
    auto* tile = reinterpret_cast<float*>(thread_scratch_ + thread * thread_scratch_bytes_);
    constexpr size_t kTileCols = kFfnPanels * kPanelRows;
    MatMul(g, acts_, 0, last - first, exact_, out, ffn);
    MatMul(u, acts_, 0, last - first, exact_, tile, kTileCols);
    for (size_t r = 0; r < rows_; ++r) {
      join(out + r * ffn, tile + r * kTileCols, g.rows, out + r * ffn);
    }
  });
  Prepare(ffn_, rows_, config_.ffn);
  const Product products[] = {{w[Role::kDown], h_, config_.dim}};
  Multiply(products);
}

void Blocks::AddResidual(const float* norm) {
  const uint32_t dim = config_.dim;
  ForRows(rows_, [&](uint32_t r) {
    float* out = h_ + size_t{r} * dim;
    if (norm != nullptr) RmsNorm(out, norm, config_.eps, dim, out);
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
  const Product products[] = {{w, logits_ + first_row, config_.vocab}};
  Multiply(products);
}

void Blocks::FinishHead() {
  if (config_.logit_softcap <= 0) return;
  ForRows(head_rows_,
          [&](uint32_t i) { SoftCap(config_.logit_softcap, config_.vocab, logits(i)); });
}

}  // namespace snug
