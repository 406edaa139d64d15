// Mixtures of experts: routing, grouping of tokens by expert, and the experts' products in batches.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "kernel/ops.h"
#include "model/blocks_internal.h"
#include "model/router.h"

namespace snug {
namespace {

// Rows up to which the next layer's router is asked; more take most experts anyway.
constexpr uint32_t kGuessRows = 8;
// Experts of a token up to which it is asked.
constexpr uint32_t kGuessUsed = 32;
// Choices per expert from which a layer is taken to use all of them.
constexpr uint32_t kCrowded = 3;

// Members that a batch holds: at least one expert with every row, and every expert of one row.
size_t BatchRows(const BlocksLayout& l) { return std::max(l.chunk, l.config->router.used); }

}  // namespace

ExpertBuffers CarveExperts(const BlocksLayout& l, Carver& carve) {
  const ModelConfig& c = *l.config;
  const size_t rows = l.chunk, batch = BatchRows(l), experts = c.router.experts;
  const size_t choices = rows * c.router.used;
  auto ints = [&](size_t n) { return reinterpret_cast<uint32_t*>(carve.Bytes(n * 4)); };
  ExpertBuffers b;
  b.router = carve.Floats(rows * experts);
  b.weights = carve.Floats(choices);
  b.chosen = ints(choices);
  b.members = ints(choices);
  b.first = ints(experts + 1);
  b.present = ints(experts);
  b.rows = carve.Floats(batch * c.dim);
  b.hidden = carve.Floats(batch * c.expert_ffn);
  // Each expert of a batch has its own blocks of four rows and its own lists.
  const size_t widest = std::max(c.dim, c.expert_ffn);
  b.acts = carve.Bytes(Activations::Bytes(batch + 3 * kMaxProducts, widest) + 128 * kMaxProducts);
  b.sum = carve.Floats(std::max<size_t>(rows, l.logit_rows) * c.dim);
  b.guess = carve.Floats(size_t{kGuessRows} * c.dim);
  b.expected = ints(experts);
  return b;
}

// An expert of a batch: its members, and their inputs.
struct Blocks::ExpertRun {
  uint32_t expert = 0;
  uint32_t first = 0, rows = 0;  // of the batch's rows
  LayerWeights w;
  Activations x;
};

void Blocks::UseExperts(ExpertPlace* place, std::span<const Part> parts) {
  expert_place_ = place;
  expert_parts_ = parts;
}

Status Blocks::TakeError() {
  if (!error_) return {};
  Error error = *std::move(error_);
  error_.reset();
  return error;
}

void Blocks::GroupByExpert() {
  const RouterConfig& r = config_.router;
  const ExpertBuffers& b = experts_;
  const uint32_t choices = rows_ * r.used;
  std::fill_n(b.first, r.experts + 1, 0);
  for (uint32_t i = 0; i < choices; ++i) ++b.first[b.chosen[i] + 1];
  present_ = 0;
  for (uint32_t e = 0; e < r.experts; ++e) {
    if (b.first[e + 1] != 0) b.present[present_++] = e;
    b.first[e + 1] += b.first[e];
  }
  // Filling moves each begin to its end, which is the next one's begin.
  for (uint32_t i = 0; i < choices; ++i) b.members[b.first[b.chosen[i]]++] = i;
  std::memmove(b.first + 1, b.first, r.experts * sizeof(uint32_t));
  b.first[0] = 0;
}

// Tells the place what the next layer will probably want: what its router says of the residual
// stream as it is now (Eliseev and Mazur 2023), or everything where there are many rows.
void Blocks::ExpectNext(uint32_t layer) {
  const RouterConfig& r = config_.router;
  if (next_layer_ == nullptr || expert_place_->slots() == 0) return;
  const LayerWeights& w = *next_layer_;
  if (w[Role::kRouter].data == nullptr || UsesInt8(w[Role::kRouter].type)) return;
  uint32_t* expected = experts_.expected;
  size_t n = 0;
  if (rows_ * r.used >= kCrowded * r.experts) {
    for (uint32_t e = 0; e < r.experts; ++e) expected[n++] = e;
  } else if (rows_ <= kGuessRows && r.used <= kGuessUsed) {
    for (uint32_t i = 0; i < rows_; ++i) {
      RmsNorm(x(i), w.vec(Role::kFfnNorm), config_.eps, config_.dim,
              experts_.guess + size_t{i} * config_.dim);
    }
    Activations in;
    in.Seal(experts_.guess, config_.dim, rows_, config_.dim);
    const Product products[] = {
        {w[Role::kRouter], w.vec(Role::kRouterBias), experts_.router, r.experts, &in}};
    Multiply(products);
    std::array<uint32_t, kGuessRows * kGuessUsed> chosen;
    std::array<float, kGuessUsed> weights;
    for (uint32_t i = 0; i < rows_; ++i) {
      Route(r, experts_.router + size_t{i} * r.experts, w.vec(Role::kRouterCorrection),
            chosen.data() + i * r.used, weights.data());
    }
    for (uint32_t rank = 0; rank < r.used; ++rank) {
      for (uint32_t i = 0; i < rows_; ++i) {
        const uint32_t e = chosen[i * r.used + rank];
        if (std::find(expected, expected + n, e) == expected + n) expected[n++] = e;
      }
    }
  }
  if (n != 0) expert_place_->Expect(layer + 1, {expected, n});
}

// sum = the shared expert's output, weighed by its own gate where it has one; 0 without it.
void Blocks::SharedFfn(const LayerWeights& w) {
  const size_t dim = config_.dim;
  if (w[Role::kSharedGate].data == nullptr) {
    std::memset(experts_.sum, 0, rows_ * dim * sizeof(float));
    return;
  }
  float* gates = experts_.router;
  if (w[Role::kSharedRouter].data != nullptr) {
    const Product products[] = {{w[Role::kSharedRouter], nullptr, gates, 1}};
    Multiply(products);
  }
  LayerWeights shared;
  shared[Role::kGate] = Seen(w[Role::kSharedGate], acts_);
  shared[Role::kUp] = Seen(w[Role::kSharedUp], acts_);
  pool_.For(GateTasks(shared), [&](size_t task, int thread) {
    GateTask(shared, acts_, task, thread, ffn_, config_.shared_ffn);
  });
  Prepare(ffn_, rows_, config_.shared_ffn);
  const Product products[] = {{w[Role::kSharedDown], nullptr, experts_.sum, dim}};
  Multiply(products);
  if (w[Role::kSharedRouter].data == nullptr) return;
  ForRows(rows_,
          [&](uint32_t r) { Scale(1 / (1 + std::exp(-gates[r])), dim, experts_.sum + r * dim); });
}

// One batch: y = down(act(gate) * up) for the members of each run, then sum += weight * y.
void Blocks::RunExperts(std::span<ExpertRun> runs) {
  const size_t dim = config_.dim, ffn = config_.expert_ffn, used = config_.router.used;
  const ExpertBuffers& b = experts_;
  uint32_t rows = 0;
  uint8_t* acts = b.acts;
  for (ExpertRun& run : runs) {
    run.first = rows;
    rows += run.rows;
    run.x.Bind(acts, run.rows, std::max(dim, ffn));
    acts += Activations::Bytes(run.rows, std::max(dim, ffn));
  }
  // Row `i` of the batch: its run, and its index there.
  auto locate = [&](uint32_t i) -> std::pair<ExpertRun*, uint32_t> {
    ExpertRun* run = &runs.back();
    while (i < run->first) --run;
    return {run, i - run->first};
  };
  const bool quantize_in = Quantizes(config_.dim), quantize_hidden = Quantizes(config_.expert_ffn);
  ForRows(rows, [&](uint32_t i) {
    const auto [run, r] = locate(i);
    const size_t row = b.members[b.first[run->expert] + r] / used;
    std::memcpy(b.rows + i * dim, h_ + row * dim, dim * sizeof(float));
    if (quantize_in) run->x.Quantize(b.rows + run->first * dim, dim, dim, r, r + 1);
  });
  std::array<size_t, kMaxProducts> first_task{};
  size_t tasks = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    ExpertRun& run = runs[i];
    run.x.Seal(b.rows + run.first * dim, dim, run.rows, dim);
    run.w[Role::kGate] = Seen(run.w[Role::kGate], run.x);
    run.w[Role::kUp] = Seen(run.w[Role::kUp], run.x);
    first_task[i] = tasks;
    tasks += GateTasks(runs[i].w);
  }
  pool_.For(tasks, [&](size_t task, int thread) {
    size_t i = runs.size() - 1;
    while (task < first_task[i]) --i;
    GateTask(runs[i].w, runs[i].x, task - first_task[i], thread, b.hidden + runs[i].first * ffn,
             ffn);
  });
  if (quantize_hidden) {
    ForRows(rows, [&](uint32_t i) {
      const auto [run, r] = locate(i);
      run->x.Quantize(b.hidden + run->first * ffn, ffn, ffn, r, r + 1);
    });
  }
  std::array<Product, kMaxProducts> products;
  for (size_t i = 0; i < runs.size(); ++i) {
    ExpertRun& run = runs[i];
    run.x.Seal(b.hidden + run.first * ffn, ffn, run.rows, ffn);
    products[i] = {run.w[Role::kDown], run.w.vec(Role::kDownBias), b.rows + run.first * dim, dim,
                   &run.x};
  }
  Multiply({products.data(), runs.size()});
  for (const ExpertRun& run : runs) {
    ForRows(run.rows, [&](uint32_t r) {
      const uint32_t member = b.members[b.first[run.expert] + r];
      AddScaled(b.weights[member], b.rows + (run.first + r) * dim, dim,
                b.sum + member / used * dim);
    });
  }
}

void Blocks::RoutedFfn(uint32_t layer, const LayerWeights& w) {
  if (stored_) return;
  const RouterConfig& r = config_.router;
  const ExpertBuffers& b = experts_;
  if (error_) return;
  const Product router[] = {{w[Role::kRouter], w.vec(Role::kRouterBias), b.router, r.experts}};
  Multiply(router);
  ForRows(rows_, [&](uint32_t i) {
    Route(r, b.router + size_t{i} * r.experts, w.vec(Role::kRouterCorrection),
          b.chosen + size_t{i} * r.used, b.weights + size_t{i} * r.used);
  });
  GroupByExpert();
  expert_place_->Announce(layer, {b.present, present_});
  ExpectNext(layer);
  SharedFfn(w);
  const size_t batch = BatchRows(layout_);
  const size_t most = observer_ == nullptr ? kMaxProducts : 1;  // it sees one part at a time
  for (size_t i = 0; i < present_;) {
    std::array<ExpertRun, kMaxProducts> runs;
    size_t n = 0, rows = 0;
    // More experts join while there is room for their members and nothing to wait for.
    for (; i < present_ && n < most; ++i) {
      const uint32_t e = b.present[i], members = b.first[e + 1] - b.first[e];
      if (n > 0 && (rows + members > batch || !expert_place_->Ready(layer, e))) break;
      auto base = expert_place_->Acquire(layer, e);
      if (!base.ok()) {
        for (size_t k = 0; k < n; ++k) expert_place_->Release(layer, runs[k].expert);
        error_ = std::move(base).error();
        return;
      }
      runs[n].expert = e;
      runs[n].rows = members;
      runs[n].w = ViewPart(expert_parts_[layer], *base);
      if (observer_ != nullptr) observer_->Enter(expert_parts_[layer], *base, e);
      rows += members;
      ++n;
      expert_bytes_ += expert_parts_[layer].bytes;
    }
    RunExperts({runs.data(), n});
    for (size_t k = 0; k < n; ++k) expert_place_->Release(layer, runs[k].expert);
  }
  std::swap(h_, experts_.sum);
}

}  // namespace snug
