// The engine: one model, its sequences and their caches inside one budget. A step runs the tokens
// of one or several sequences through the model; generation (generate.h), evaluation and benchmarks
// are built on steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "engine/calibrate.h"
#include "engine/channel_statistics.h"
#include "engine/codebook_training.h"
#include "engine/key_order_statistics.h"
#include "engine/planner.h"
#include "engine/split_head.h"
#include "engine/weight_probe.h"
#include "format/model_file.h"
#include "kernel/attention.h"
#include "kv/cache.h"
#include "model/blocks.h"
#include "model/model.h"
#include "text/tokenizer.h"
#include "weights/experts.h"
#include "weights/place.h"

namespace snug {

// One sequence's part of a step.
struct StepItem {
  uint32_t sequence = 0;
  std::span<const Token>
      tokens;  // appended at the sequence's length; at most `chunk` over all items
  enum class Logits : uint8_t { kNone, kLast, kAll } logits = Logits::kLast;
};

struct TrafficStats {
  uint64_t weight_bytes = 0;  // weights read from memory by products since construction
  uint64_t kv_bytes = 0;      // cache bytes read by attention
};

class Engine {
 public:
  // Reads metadata, plans, reserves, loads. Errors: kDoesNotFit with the plan's suggestions,
  // kBadFile, kIo.
  static Result<std::unique_ptr<Engine>> Open(const EngineOptions& options);
  ~Engine();

  const ModelConfig& config() const { return model_->config(); }
  const ModelFile& file() const { return *file_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }  // where options() asked for it
  const EngineOptions& options() const { return options_; }
  const MemoryPlan& plan() const { return plan_; }
  Ledger& ledger() { return *ledger_; }
  ThreadPool& pool() { return *pool_; }
  const WeightPlace& place() const { return *place_; }
  const ExpertPlace* experts() const { return experts_.get(); }  // null: the model has none
  uint64_t disk_bytes_read() const;                              // weights read from the files
  const TrafficStats& traffic() const { return traffic_; }
  // What options().observe asked for; else null.
  Calibration* calibration() { return calibration_.get(); }
  ChannelStatistics* channel_statistics() { return channel_statistics_.get(); }
  CodebookTraining* codebook_training() { return codebook_training_.get(); }
  KeyOrderStatistics* key_order_statistics() { return key_order_statistics_.get(); }
  WeightProbe* weight_probe() { return weight_probe_.get(); }
  std::string ChatTemplateSource() const;  // tokenizer.chat_template, or empty
  uint64_t kv_bytes_held() const { return cache_->held_bytes(); }  // of the cache's reservation
  const KvCache& cache() const { return *cache_; }
  // What was fetched of rows that live elsewhere (options().kv_place).
  const PlacedStats& placed_stats() const { return cache_->placed_stats(); }

  // --- sequences: ids 0 .. options.sequences - 1; each holds up to options.context tokens,
  // or goes on for ever where positions roll (options.rolling), in rows of the context.
  uint32_t length(uint32_t sequence) const;
  // Empties a sequence.
  void Clear(uint32_t sequence);
  // Drops tokens past `length`. Where the cache no longer holds what a continuation from there
  // needs (a window has moved on, a state is kept only before), it goes back to what it holds and
  // runs the tokens from there again. Errors are those of Step; the sequence then ends earlier.
  // Where prompts go by layer (EngineOptions::by_layer), only to 0. Tokens that run again are read
  // as a prompt.
  Status Rollback(uint32_t sequence, uint32_t length);
  // Starts `sequence` (cleared first) with the longest prefix of `tokens` that some sequence's
  // cache holds and can go on from, itself included; whole pages and states are shared, not
  // copied. Returns the tokens reused, fewer than tokens.size(). Where decoded tokens choose what
  // they read (options().read), only what was read as a prompt serves.
  uint32_t ReusePrefix(uint32_t sequence, std::span<const Token> tokens);
  // `to` becomes what `from` is: both go on as if each were alone, whatever the cache. Unlike
  // ReusePrefix it copies. from != to. Errors: kUsage where rows are on disk.
  Status Fork(uint32_t from, uint32_t to);
  // Where positions roll, the first of them, as many as the context has.
  std::span<const Token> tokens(uint32_t sequence) const;

  // --- steps
  // Runs all items. Logits rows come in item order (then token order): logits(0) .. logits(n - 1).
  // Errors: kDoesNotFit past the context, kIo from streamed weights. A failed step leaves lengths
  // unchanged.
  Status Step(std::span<const StepItem> items);
  std::span<const float> logits(size_t row) const;  // [vocab]
  // What an encoder's last layer gave for a row of the last step, [dim]; rows come in item order.
  std::span<const float> hidden(uint32_t row) const { return {blocks_->x(row), config().dim}; }
  // Runs all of `tokens` in chunks; only the last token's logits are kept. `progress` may be null;
  // it returns false to cancel (kCancelled; what was done stays in the cache). Where prompts go
  // by layer (EngineOptions::by_layer), what ends early empties the sequence.
  Status Prefill(uint32_t sequence, std::span<const Token> tokens,
                 const std::function<bool(uint32_t done, uint32_t total)>& progress);

  // Has an empty sequence hold made-up rows of so many tokens, to measure what steps after them
  // cost; methods that observe prompts see nothing. Such a sequence answers nothing: clear it.
  // Takes 4036 bytes of heap for each channel of a head meanwhile, for the caller to count
  // (caller_bytes). Errors: those of Prefill, kUsage for encoders and models with recurrent layers.
  Status FillCache(uint32_t sequence, uint32_t tokens);

  // --- prompts of which not all tokens are read (options().reduce)
  using PromptProgress = std::function<bool(uint32_t done, uint32_t total)>;
  // The tokens of a prompt that are to be read, by number, ascending; all of them where there is no
  // method, or no more than it takes. The rest is left to the caller: what is given to Prefill is a
  // prompt of its own, and nothing of this pass stays. `progress` as in Prefill. Errors:
  // kDoesNotFit past options().prompt, kCancelled, kIo from streamed weights, kBadFile from the
  // method.
  Result<std::vector<uint32_t>> Reduce(std::span<const Token> tokens,
                                       const PromptProgress& progress);
  // What Reduce is made of: runs layers 0 .. `last` over a prompt, the last one up to its keys, and
  // has `scored` told what the last token's query makes of the keys of each layer from `first` on.
  // Those must see the whole prompt, and `last` must not lie before the layer that Reduce asks for
  // where weights are streamed. Only of engines with options().reduce, which have the memory.
  using LayerScored = std::function<Status(uint32_t layer, const PromptScores& scores)>;
  Status ScanPrompt(std::span<const Token> tokens, uint32_t first, uint32_t last,
                    const PromptProgress& progress, const LayerScored& scored);
  // Room that `scored` may choose in, 2 * options().prompt floats.
  std::span<float> scan_room();

  // What the next steps of one kLast row need: exact logits of at least the `top` best rows, the
  // others may be -infinity (0: all logits). Only a head in bit planes makes use of it.
  void SetTop(size_t top) { top_ = top <= kMaxPlaneK ? top : 0; }

  // Has `observer` see the products that follow, in the place of what EngineOptions::observe asked
  // for; null: nothing does.
  void Observe(ProductObserver* observer) {
    observer_ = observer;
    blocks_->set_observer(observer);
  }

 private:
  friend class StepProbe;
  Engine() = default;
  Status Load();
  Status LoadChannels();
  Status CheckCodebooks();
  Status CheckPermutation();
  // The codec that the cache is to use: options().codec, with its codebooks where it needs some, or
  // with how keys were rotated, and the order of their channels.
  Result<std::shared_ptr<const KvCodec>> LoadCodec(const float* divisors);
  Result<std::shared_ptr<const KeyBasis>> LoadBasis(const float* divisors);
  bool NeedsCodebooks() const {
    return options_.codec != nullptr && options_.codec->needs_codebooks();
  }
  // Of the weights as the file has them, whatever they are quantized to as they are loaded.
  Result<std::string> Fingerprint() const;
  Status Check(std::span<const StepItem> items) const;
  Status CheckRoom(uint32_t sequence, size_t tokens) const;
  // Notes what was read, as far as there is room.
  void Remember(uint32_t sequence, std::span<const Token> tokens);
  Status CheckTokens(uint32_t sequence, std::span<const Token> tokens) const;
  Status CheckVocabulary(std::span<const Token> tokens) const;
  // Prefill by layer (prompt.cc).
  Status PrefillByLayer(uint32_t sequence, std::span<const Token> tokens,
                        const PromptProgress& progress);
  // What of a prompt's text decides how its rows are kept.
  std::string EndOfPrompt(std::span<const Token> tokens) const;
  // `after_chunk` gets the tokens that are done.
  using AfterChunk = std::function<Status(uint32_t done)>;
  Status RunPromptLayer(uint32_t sequence, uint32_t layer, uint32_t tokens,
                        const AfterChunk& after_chunk);
  // Looks a prompt's embeddings up, to wait for the first layer.
  Status EmbedPrompt(uint32_t sequence, std::span<const Token> tokens);
  // A layer, or its keys alone, over a prompt's rows that wait for it, in chunks.
  enum class Extent : uint8_t { kLayer, kKeys };
  Status RunChunks(uint32_t sequence, uint32_t layer, uint32_t tokens, const LayerWeights& weights,
                   Extent extent, const AfterChunk& after_chunk);
  // The chunks of `layers` layers count as shares of the prompt's tokens.
  static AfterChunk ShareOfPrompt(const PromptProgress& progress, uint32_t total, uint32_t layer,
                                  uint32_t layers);
  // A pass that was announced is acquired to its end, from part `next` on.
  void AbandonPass(size_t next, size_t parts);
  // Goes back to what the cache holds of the sequence's first `length` tokens.
  void Truncate(uint32_t sequence, uint32_t length);
  Status Embed(std::span<const StepItem> items);
  Status RunLayers();
  Status RunHead(std::span<const uint32_t> rows);
  size_t PartsOf(bool head) const { return head ? layout_.parts.size() : layout_.first_head; }
  // Parts that the pass after this one reads for certain: it may be one that reduces a prompt.
  size_t NextParts(bool head) const {
    const size_t parts = PartsOf(head);
    return options_.reduce == nullptr ? parts : std::min<size_t>(parts, 2 + plan_.reduce_layer);
  }

  EngineOptions options_;
  MemoryPlan plan_;
  std::unique_ptr<Ledger> ledger_;
  Reservation base_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<Model> model_;
  WeightLayout layout_;
  uint32_t layers_ = 0;  // that a step runs: all, but where steps are measured
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<WeightPlace> place_;
  std::unique_ptr<ExpertPlace> experts_;
  std::unique_ptr<SplitHead> split_head_;  // in place of the head's parts
  size_t top_ = 0;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Blocks> blocks_;
  std::unique_ptr<Calibration> calibration_;
  std::unique_ptr<WeightProbe> weight_probe_;
  std::unique_ptr<ChannelStatistics> channel_statistics_;
  std::unique_ptr<CodebookTraining> codebook_training_;
  std::unique_ptr<KeyOrderStatistics> key_order_statistics_;
  ProductObserver* observer_ = nullptr;  // one of the five, or null
  LayerWeights globals_;
  const TensorInfo* embedding_ = nullptr;
  std::vector<uint8_t> embedding_row_;       // raw bytes of one row
  std::vector<std::vector<Token>> history_;  // [sequences], capacity: the context
  std::vector<uint32_t> prompt_length_;      // [sequences] tokens before the first decoded one
  bool prompt_ = false;                      // whether a step reads a prompt
  std::vector<Token> replay_;                // what Rollback runs again; capacity: the context
  std::vector<RowSpan> spans_;
  std::vector<uint32_t> logit_rows_;  // rows of this step that want logits
  bool next_head_ = true;             // whether the step after this one needs the head
  TrafficStats traffic_;
  Buffer hidden_;  // [tokens, dim] a prompt between two layers, where it goes by layer
  std::unique_ptr<KvCache> scan_cache_;  // of a layer of a prompt that is to be reduced
  Buffer scan_room_;                     // [heads, prompt] its scores, then room to choose
};

}  // namespace snug
