// The blocks that layer graphs are written in: one forward pass over the rows (tokens) of a step,
// with its activations and threads. Each block is a data-parallel loop or two; an architecture's
// Layer() calls them in the order of its paper.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ledger.h"
#include "base/threads.h"
#include "kernel/attention.h"
#include "kernel/matmul.h"
#include "kv/block_reader.h"
#include "kv/cache.h"
#include "kv/row_reader.h"
#include "model/config.h"
#include "model/model.h"
#include "model/observer.h"
#include "model/rope.h"
#include "weights/experts.h"

namespace snug {

// Sizes that a Blocks needs to know before it exists; plan and allocator use the same ones.
struct BlocksLayout {
  const ModelConfig* config = nullptr;
  uint32_t chunk = 0, logit_rows = 0, context = 0, sequences = 1;
  int threads = 1;
  // Softmaxes of each query whose sums are noted, for a cache that asks what attention its rows
  // get: attention's own, and a noisy one.
  uint32_t log_sums = 0;
  RowReaderLayout reader;             // where decoded tokens choose rows
  BlockReaderLayout block_reader;     // where a prompt's queries choose blocks of keys
  uint64_t activation_bytes() const;  // rows of the residual stream, projections, logits
  uint64_t scratch_bytes() const;     // per-thread tiles, attention partials
};

// A run of rows of one sequence within a step.
struct RowSpan {
  uint32_t sequence = 0;
  uint32_t first_row = 0, rows = 0;
  uint32_t first_pos = 0;
  bool prompt = false;  // reads every row, whatever the cache's read method
};

// Activations of RoutedFfn; views. A batch is some experts' members, expert by expert.
struct ExpertBuffers {
  float* router = nullptr;       // [chunk, experts] logits
  float* weights = nullptr;      // [chunk, used]
  uint32_t* chosen = nullptr;    // [chunk, used]
  uint32_t* members = nullptr;   // [chunk * used] row * used + rank, by expert, then by row
  uint32_t* first = nullptr;     // [experts + 1] where each expert's members begin
  uint32_t* present = nullptr;   // [experts] those with members, ascending
  float* rows = nullptr;         // [batch, dim] inputs of a batch, then its outputs
  float* hidden = nullptr;       // [batch, expert_ffn]
  uint8_t* acts = nullptr;       // int8 inputs of a batch
  float* sum = nullptr;          // as h: the weighted sums
  float* guess = nullptr;        // [kGuessRows, dim] inputs of the next layer's router
  uint32_t* expected = nullptr;  // [experts] what it chose
};

class Blocks {
 public:
  // Reserves activations and scratch as the layout says. `divisors`: see RopeTable.
  static Result<std::unique_ptr<Blocks>> Create(const BlocksLayout& layout, bool exact,
                                                const float* divisors, Ledger& ledger,
                                                ThreadPool& pool, KvCache& cache);

  // Before the first step of a model with experts: where they live, and their parts by layer. Both
  // must outlive the blocks.
  void UseExperts(ExpertPlace* place, std::span<const Part> parts);
  // Ahead of a layer: the weights of the one after it where they are in memory, or null; its router
  // then says which experts to load ahead.
  void set_next_layer(const LayerWeights* next) { next_layer_ = next; }
  // The first error since the last call, if any.
  Status TakeError();

  // --- a prompt whose queries choose blocks of keys: each layer's chunks are stepped twice
  // What a layer's graph does: all; only that keys and values are stored, x staying as it is; or
  // the rest, for which all of the prompt's keys are there.
  enum class Pass : uint8_t { kWhole, kStore, kRead };
  // Whether this layer's queries choose in a prompt of so many tokens that begins a sequence.
  bool ChoosesBlocks(uint32_t layer, uint32_t tokens) const {
    return config_.window[layer] == 0 && block_reader_.Chooses(tokens);
  }
  // Before a pass. Where it is kStore, `tokens` are what the prompt has.
  void BeginPass(Pass pass, uint32_t tokens = 0);

  // --- a step: rows, then their embeddings in x(), then layers, then the head.
  void Begin(std::span<const RowSpan> spans);
  uint32_t rows() const { return rows_; }
  float* x(uint32_t row) { return x_ + size_t{row} * config_.dim; }  // [rows, dim]

  // --- what layer graphs call
  // Products add the bias of their role where w has one.
  void Plain();                    // h = x, prepared for products
  void Norm(const float* weight);  // h = RMSNorm(x), prepared for products
  // q, k, v = h Wq, h Wk, h Wv; where attention is gated, h Wq has the gates too.
  void ProjectQkv(const LayerWeights& w);
  // Norms queries and keys where w has norms, rotates, and encodes keys and values into the cache.
  void RotateAndStore(uint32_t layer, const LayerWeights& w);
  // attended = softmax(q k') v over the encoded cache; `sinks`: see AttentionArgs.
  void Attend(uint32_t layer, const float* sinks = nullptr);
  void GateAttended();                     // attended *= sigmoid(gate)
  void ProjectOut(const LayerWeights& w);  // out = attended Wo
  void GatedFfn(const LayerWeights& w);    // out = (act(h Wgate) * h Wup) Wdown
  // out = sum of the chosen experts' gated products, weighed by the router (Shazeer et al. 2017),
  // and of the shared expert's where w has one. Tokens are grouped by expert, so a step reads each
  // expert once; a token's sum runs over its experts in ascending order. A failed read of an expert
  // leaves `out` undefined and shows in TakeError.
  void RoutedFfn(uint32_t layer, const LayerWeights& w);
  // x += out, or RMSNorm(out) where `norm` is given, times residual_scale.
  void AddResidual(const float* norm);

  // --- what encoders call: norms follow the sums, and products read x itself
  // x = LayerNorm(x + position + first token type), prepared for products.
  void EmbedPositions(const LayerWeights& globals);
  void Ffn(const LayerWeights& w);  // out = gelu(x Wup) Wdown
  // x = LayerNorm(x + out), prepared for products.
  void AddNorm(const float* weight, const float* bias);
  // --- what recurrent layers call (blocks_state.cc); their states are the cache's
  void ProjectState(const LayerWeights& w);  // projected = h Win
  void ProjectDelta(const LayerWeights& w);  // projected = q k v | z | gates
  // convolved = silu(causal convolution of projected's columns from `first` on)
  void Convolve(uint32_t layer, const LayerWeights& w, uint32_t first);
  void SelectiveScan(uint32_t layer, const LayerWeights& w);  // Mamba, from x | z to mixed
  void SsdScan(uint32_t layer, const LayerWeights& w);        // Mamba-2, from z | xBC | dt to mixed
  void DeltaRule(uint32_t layer, const LayerWeights& w);      // from q k v | z | gates to mixed
  void ProjectMixed(const LayerWeights& w);                   // out = mixed Wout

  // --- the head
  // Norms the listed rows for the head (at most logit_rows) and prepares them.
  void BeginHead(std::span<const uint32_t> rows, const float* weight);
  const Activations& head_input() const { return acts_; }
  // Logits of a block of the head's rows: columns [first_row, first_row + w.rows) of logits.
  void HeadBlock(const PackedMatrix& w, uint32_t first_row);
  void FinishHead();                                                   // soft cap
  float* logits(size_t row) { return logits_ + row * config_.vocab; }  // [logit_rows, vocab]

  uint64_t kv_bytes_read() const { return kv_bytes_; }
  uint64_t expert_bytes_used() const { return expert_bytes_; }
  // Sees every product from now on; null for none. Must outlive the blocks.
  void set_observer(ProductObserver* observer) { observer_ = observer; }

 private:
  struct Product {
    PackedMatrix w;
    const float* bias;  // [w.rows], or null
    float* out;
    size_t stride;
    const Activations* x = nullptr;  // null: acts_
  };
  struct ExpertRun;  // an expert of a batch

  Blocks(const BlocksLayout& layout, bool exact, const float* divisors, ThreadPool& pool,
         KvCache& cache);
  // Calls fn(row) for all rows: inline for few, else in parallel.
  template <class F>
  void ForRows(uint32_t rows, F&& fn);
  // Calls fn(span, task) for all spans of the step and tasks [0, tasks) of each, in parallel.
  template <class F>
  void ForSpans(size_t tasks, F&& fn);
  // Whether products over rows of `cols` may read int8: integer types have rows of whole blocks.
  bool Quantizes(uint32_t cols) const { return !exact_ && cols % kQBlock == 0; }
  // acts_ = rows of src [rows, cols], `stride` floats apart (0: cols).
  void Prepare(const float* src, uint32_t rows, uint32_t cols, size_t stride = 0);
  // The matrix to multiply x by: w, or what the observer puts in its place.
  PackedMatrix Seen(const PackedMatrix& w, const Activations& x) {
    return observer_ == nullptr ? w : observer_->See(w, x);
  }
  void Multiply(std::span<const Product> products);
  // y [n] = act(gate) * up
  void Gate(const float* gate, const float* up, size_t n, float* y) const;
  // One task (kFfnPanels panels) of hidden [rows, stride] = act(x Wgate) * x Wup.
  void GateTask(const LayerWeights& w, const Activations& x, size_t task, int thread, float* hidden,
                size_t stride);
  void GroupByExpert();
  void ExpectNext(uint32_t layer);
  void SharedFfn(const LayerWeights& w);
  void RunExperts(std::span<ExpertRun> runs);
  // A span's state behind what its convolution keeps: as committed (null for zeros), and to be.
  struct StateSpan {
    const float* from;
    float* to;
  };
  StateSpan RecurrentState(const RowSpan& s, uint32_t layer);
  void CountStates();
  void AttendGroup(std::span<const AttentionArgs> args);
  // Adds rows that read all they see to args_.
  void AddDense(const AttentionArgs& a);
  // Adds rows, some of which choose what they read, to args_ and choosing_.
  void Divide(const AttentionArgs& a, const PlacedLayer& placed);
  // Whether this pass needs the queries of its rows.
  bool wants_queries() const;
  // Attention of the rows whose queries choose what they read.
  void AttendChosenRows(uint32_t layer);
  // Has the cache's rows told what attention they got, as far as it asks (KvCache::Watch).
  void Observe(uint32_t layer);

  const ModelConfig& config_;
  const BlocksLayout layout_;
  const bool exact_;
  ThreadPool& pool_;
  KvCache& cache_;
  RopeTable rope_, local_rope_;
  Buffer activations_, scratch_;
  Activations acts_;
  float *x_ = nullptr, *h_ = nullptr, *q_ = nullptr, *k_ = nullptr, *v_ = nullptr;
  float *attended_ = nullptr, *ffn_ = nullptr, *logits_ = nullptr;
  ExpertBuffers experts_{};
  size_t present_ = 0;  // of experts_.present
  ExpertPlace* expert_place_ = nullptr;
  std::span<const Part> expert_parts_;
  const LayerWeights* next_layer_ = nullptr;
  std::optional<Error> error_;
  // Of recurrent layers; of layers with gated attention, queries and gates.
  float *projected_ = nullptr, *convolved_ = nullptr;
  float *steps_ = nullptr, *dt_ = nullptr;  // Mamba: dt | B | C, and dt of every channel
  float* mixed_ = nullptr;                  // what a recurrence gives: attended_
  float* angles_ = nullptr;                 // [chunk, 2 kinds, head_dim] cosines and sines
  float* partial_ = nullptr;                // split attention
  float* log_sums_ = nullptr;               // [log_sums, chunk, heads], or null
  uint8_t* thread_scratch_ = nullptr;
  size_t thread_scratch_bytes_ = 0;
  uint32_t rows_ = 0, head_rows_ = 0;
  std::vector<RowSpan> spans_;
  std::vector<AttentionArgs> args_;
  RowReader reader_;
  BlockReader block_reader_;
  Pass pass_ = Pass::kWhole;
  bool stored_ = false;  // in the pass kStore, these rows are: what follows does nothing
  // Rows that a reader does.
  struct Choosing {
    AttentionArgs args;
    PlacedLayer placed;
  };
  std::vector<Choosing> choosing_;
  uint64_t kv_bytes_ = 0, expert_bytes_ = 0;
  ProductObserver* observer_ = nullptr;
};

}  // namespace snug
