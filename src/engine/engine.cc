#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "base/scratch_file.h"
#include "engine/kv_budget.h"
#include "engine/probe.h"
#include "format/fingerprint.h"
#include "format/tensor_rows.h"
#include "kernel/ops.h"
#include "kernel/targets.h"
#include "kv/codec/codebooks.h"
#include "kv/codec/key_basis.h"
#include "kv/read/channels.h"

namespace snug {

Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::Open(const EngineOptions& options) {
  ChooseTarget();
  std::unique_ptr<Engine> engine(new Engine());
  engine->options_ = options;
  SNUG_TRY(engine->Load());
  return engine;
}

Status Engine::Load() {
  SNUG_ASSIGN(file_, OpenModelFile(options_));
  SNUG_ASSIGN(model_, Model::Open(*file_));
  if (config().encoder != options_.embed) {
    return MakeError(Code::kUsage,
                     fmt::format("{} ({}) {}", config().name, config().arch,
                                 options_.embed ? "generates text and embeds none"
                                                : "is an encoder and generates no text"),
                     options_.embed ? "see `snug run`" : "see `snug embed`",
                     {{"architecture", config().arch}});
  }
  options_ = Resolved(config(), std::move(options_));
  SNUG_ASSIGN(layout_, MakeLayout(*file_, *model_));
  if (options_.kv_bytes != 0) {
    SNUG_ASSIGN(options_, FitCache(*file_, *model_, layout_, options_));
  }
  // Before the plan, which takes what is held now for the program's base, and refuses what lacks
  // the file.
  if (options_.read != nullptr && options_.read->needs_channels() && !options_.channels.empty()) {
    SNUG_TRY(LoadChannels());
  }
  if (NeedsCodebooks() && !options_.codebooks.empty()) SNUG_TRY(CheckCodebooks());
  if (options_.codec != nullptr && options_.codec->needs_order() && !options_.permutation.empty()) {
    SNUG_TRY(CheckPermutation());
  }
  SNUG_ASSIGN(plan_, MakePlan(*file_, *model_, layout_, options_));
  if (!plan_.fits) return DoesNotFit(plan_);
  if (plan_.kv_disk_bytes != 0) {
    SNUG_TRY(ScratchFile::CheckRoom(options_.kv_folder, plan_.kv_disk_bytes));
  }
  options_.snapshots = static_cast<int32_t>(plan_.snapshots);

  ledger_ = std::make_unique<Ledger>(plan_.budget);
  ledger_->FailAfter(options_.fail_reservation);
  SNUG_ASSIGN(base_, ledger_->Reserve(Owner::kBase, plan_.base_bytes, "code, stacks and heap"));
  pool_ = std::make_unique<ThreadPool>(plan_.threads);
  if (pool_->size() < plan_.threads) {
    return MakeError(
        Code::kIo, fmt::format("the system gave {} of {} threads", pool_->size(), plan_.threads),
        fmt::format("give -t {}, or raise the limit (ulimit -u, -v)", pool_->size()),
        {{"threads", std::to_string(plan_.threads)}, {"given", std::to_string(pool_->size())}});
  }
  if (!plan_.resident || plan_.expert_slots != 0) pool_->set_wait(Wait::kSleep);
  layers_ = config().layers;
  if (options_.tokenizer) {
    SNUG_ASSIGN(tokenizer_, Tokenizer::Load(*file_, *ledger_));
  }
  if (options_.before_weights) SNUG_TRY(options_.before_weights(*this));
  const WeightLayout whole = layout_;
  if (plan_.plane_head) layout_.parts.resize(layout_.first_head);
  if (options_.probe) {
    SNUG_ASSIGN(place_, MakeProbePlace(layout_, *ledger_, *pool_));
  } else if (plan_.resident) {
    SNUG_ASSIGN(place_, MakeResidentPlace(*file_, layout_, *ledger_, *pool_, options_.on_load));
  } else {
    SNUG_ASSIGN(place_, MakeStreamPlace(*file_, layout_, *ledger_, plan_.stream, options_.on_load));
  }
  if (plan_.plane_head) {
    const std::span<const Part> parts(whole.parts);
    SNUG_ASSIGN(split_head_,
                SplitHead::Load(*file_, parts.subspan(whole.first_head), *ledger_, *pool_));
  }
  if (layout_.expert_count != 0 && options_.probe) {
    SNUG_ASSIGN(experts_, MakeProbeExperts(layout_, *ledger_, *pool_));
  } else if (layout_.expert_count != 0 && plan_.expert_slots == 0) {
    SNUG_ASSIGN(experts_, MakeResidentExperts(*file_, layout_, *ledger_, *pool_, options_.on_load));
  } else if (layout_.expert_count != 0) {
    ExpertCacheOptions cache = options_.experts;
    cache.slots = plan_.expert_slots;
    SNUG_ASSIGN(experts_, MakeExpertCache(*file_, layout_, *ledger_, cache));
  }
  SNUG_ASSIGN(const uint8_t* globals, place_->Acquire(0));
  globals_ = ViewPart(layout_.parts[0], globals);
  const float* divisors = RopeDivisors(config().rope, globals_, options_.context);
  embedding_ = file_->Find("token_embd.weight");
  embedding_row_.resize(RowBufferBytes(*embedding_));

  KvLayout kv = MakeKvLayout(config(), options_, plan_.chunk);
  SNUG_ASSIGN(kv.codec, LoadCodec(divisors));
  if (kv.rolling) kv.rolling->frequencies = RopeTable(config().rope, divisors).frequencies();
  SNUG_ASSIGN(KvCache cache, KvCache::Create(kv, *ledger_));
  cache_ = std::make_unique<KvCache>(std::move(cache));
  const BlocksLayout blocks =
      MakeBlocksLayout(config(), options_, plan_.chunk, plan_.logit_rows, plan_.threads);
  SNUG_ASSIGN(blocks_, Blocks::Create(blocks, options_.exact, divisors, *ledger_, *pool_, *cache_));
  if (options_.reduce != nullptr) {
    const KvLayout scan = MakeScanLayout(config(), options_, plan_.chunk);
    SNUG_ASSIGN(KvCache one_layer, KvCache::Create(scan, *ledger_));
    scan_cache_ = std::make_unique<KvCache>(std::move(one_layer));
    SNUG_ASSIGN(scan_room_,
                Buffer::Allocate(*ledger_, Owner::kScratch, ScanRoomBytes(config(), options_),
                                 Pages::kNormal, "scores of a prompt's tokens"));
  }
  if (HiddenBytes(config(), options_) != 0) {
    SNUG_ASSIGN(hidden_,
                Buffer::Allocate(*ledger_, Owner::kActivations, HiddenBytes(config(), options_),
                                 Pages::kNormal, "a prompt between two layers"));
  }
  if (options_.observe == Observation::kCalibrate) {
    SNUG_ASSIGN(calibration_, Calibration::Create(layout_, *ledger_));
    Observe(calibration_.get());
  } else if (options_.observe == Observation::kChannels) {
    SNUG_ASSIGN(channel_statistics_, ChannelStatistics::Create(config(), *ledger_));
    Observe(channel_statistics_.get());
  } else if (options_.observe == Observation::kCodebooks) {
    SNUG_ASSIGN(codebook_training_,
                CodebookTraining::Create(config(), options_.training, plan_.threads, *ledger_));
    Observe(codebook_training_.get());
  } else if (options_.observe == Observation::kKeyOrder) {
    const RopeTable rope(config().rope, divisors);
    SNUG_ASSIGN(key_order_statistics_,
                KeyOrderStatistics::Create(config(), options_.transform_heads, options_.context,
                                           rope.frequencies(), *ledger_));
    Observe(key_order_statistics_.get());
  } else if (options_.observe == Observation::kProbe) {
    SNUG_ASSIGN(weight_probe_, WeightProbe::Create(layout_, config().vocab, *ledger_, *pool_));
    Observe(weight_probe_.get());
  }
  blocks_->UseExperts(experts_.get(), layout_.experts);
  history_.resize(options_.sequences);
  prompt_length_.assign(options_.sequences, 0);
  for (auto& h : history_) h.reserve(options_.context);
  replay_.reserve(options_.context);
  spans_.reserve(options_.sequences);
  logit_rows_.reserve(plan_.chunk);
  return {};
}

Result<std::string> Engine::Fingerprint() const {
  SNUG_ASSIGN(const auto file, ModelFile::Open(options_.model_path));
  return WeightsFingerprint(*file);
}

Status Engine::CheckCodebooks() {
  SNUG_ASSIGN(const CodebookFile file, CodebookFile::Open(options_.codebooks, config()));
  SNUG_ASSIGN(const std::string weights, Fingerprint());
  return file.Check(config(), weights);
}

Status Engine::CheckPermutation() {
  SNUG_ASSIGN(const KeyOrder order, ReadKeyOrder(options_.permutation, config()));
  SNUG_ASSIGN(const std::string weights, Fingerprint());
  return CheckKeyOrder(options_.permutation, order, config(), weights);
}

Result<std::shared_ptr<const KeyBasis>> Engine::LoadBasis(const float* divisors) {
  KeyOrder order;
  const bool ordered = options_.codec->needs_order();
  if (ordered) {
    SNUG_ASSIGN(order, ReadKeyOrder(options_.permutation, config()));
  }
  const RopeTable rope(config().rope, divisors);
  SNUG_ASSIGN(KeyBasis basis, KeyBasis::Create(config(), rope.frequencies(), options_.context,
                                               ordered ? &order : nullptr, Owner::kKv, *ledger_));
  return std::make_shared<const KeyBasis>(std::move(basis));
}

Result<std::shared_ptr<const KvCodec>> Engine::LoadCodec(const float* divisors) {
  if (options_.codec != nullptr && options_.codec->needs_basis()) {
    SNUG_ASSIGN(auto basis, LoadBasis(divisors));
    return options_.codec->WithBasis(std::move(basis));
  }
  if (!NeedsCodebooks()) return options_.codec;
  SNUG_ASSIGN(const CodebookFile file, CodebookFile::Open(options_.codebooks, config()));
  SNUG_ASSIGN(auto books, file.Read(*ledger_));
  return options_.codec->WithCodebooks(std::move(books));
}

Status Engine::LoadChannels() {
  SNUG_ASSIGN(const std::string weights, Fingerprint());
  const RowMethod* rows = options_.read->rows();
  SNUG_ASSIGN(ChannelRanking ranking,
              ReadChannels(options_.channels, config(), weights,
                           rows == nullptr ? 0 : rows->budget().dense_layers));
  options_.read =
      options_.read->WithChannels(std::make_shared<const ChannelRanking>(std::move(ranking)));
  return {};
}

std::string Engine::ChatTemplateSource() const {
  return file_->GetString("tokenizer.chat_template").value_or("");
}

uint32_t Engine::length(uint32_t sequence) const { return cache_->length(sequence); }

uint64_t Engine::disk_bytes_read() const {
  return place_->stats().bytes_read + (experts_ ? experts_->stats().bytes_read : 0);
}

std::span<const Token> Engine::tokens(uint32_t sequence) const { return history_[sequence]; }

void Engine::Clear(uint32_t sequence) {
  cache_->Clear(sequence);
  history_[sequence].clear();
  prompt_length_[sequence] = 0;
}

void Engine::Truncate(uint32_t sequence, uint32_t length) {
  length = cache_->Truncate(sequence, length);
  history_[sequence].resize(length);
  prompt_length_[sequence] = std::min(prompt_length_[sequence], length);
}

Status Engine::Rollback(uint32_t sequence, uint32_t length) {
  if (length >= cache_->length(sequence)) return {};
  if (options_.gives_up_rows() && length != 0) {
    return MakeError(
        Code::kUsage,
        fmt::format("a sequence of {} tokens cannot go back to {}: the cache dropped, merged, "
                    "coded or moved its rows",
                    cache_->length(sequence), length),
        "clear it and give its tokens to Prefill");
  }
  replay_.assign(history_[sequence].begin(), history_[sequence].begin() + length);
  Truncate(sequence, length);
  const std::span<const Token> all(replay_);
  while (cache_->length(sequence) < length) {
    const uint32_t at = cache_->length(sequence);
    const StepItem item{sequence, all.subspan(at, std::min(plan_.chunk, length - at)),
                        StepItem::Logits::kNone};
    prompt_ = true;
    const Status status = Step({&item, 1});
    prompt_ = false;
    SNUG_TRY(status);
  }
  return {};
}

uint32_t Engine::ReusePrefix(uint32_t sequence, std::span<const Token> tokens) {
  uint32_t best = 0, source = sequence;
  for (uint32_t s = 0; s < history_.size(); ++s) {
    // At least one token must run, to give logits.
    const size_t held = options_.read == nullptr ? history_[s].size() : prompt_length_[s];
    const size_t limit = std::min(held, tokens.size() - 1);
    const auto end =
        std::mismatch(tokens.begin(), tokens.begin() + limit, history_[s].begin()).first;
    const uint32_t n = cache_->Held(s, static_cast<uint32_t>(end - tokens.begin()));
    if (n > best || (n == best && s == sequence)) {
      best = n;
      source = s;
    }
  }
  if (source == sequence) {
    Truncate(sequence, best);
    return best;
  }
  Clear(sequence);
  cache_->Share(source, sequence, best);
  history_[sequence].assign(tokens.begin(), tokens.begin() + best);
  prompt_length_[sequence] = best;
  return best;
}

Status Engine::Fork(uint32_t from, uint32_t to) {
  if (options_.kv_place != nullptr) {
    return MakeError(Code::kUsage,
                     fmt::format("--kv-place {}: sequences whose rows are there are not copied",
                                 options_.kv_place->spec()),
                     "--kv-place memory",
                     {{"option", "--kv-place"}, {"value", options_.kv_place->spec()}});
  }
  Clear(to);
  cache_->Copy(from, to);
  history_[to].assign(history_[from].begin(), history_[from].end());
  prompt_length_[to] = prompt_length_[from];
  return {};
}

Status Engine::CheckRoom(uint32_t sequence, size_t tokens) const {
  const uint32_t taken = cache_->Taken(sequence);
  const bool counts = uint64_t{cache_->length(sequence)} + tokens < UINT32_MAX;
  if (taken + tokens <= options_.context && counts) return {};
  return MakeError(Code::kDoesNotFit,
                   counts ? fmt::format("{} tokens held and {} new ones exceed the context of {}",
                                        taken, tokens, options_.context)
                          : fmt::format("a sequence ends after {} tokens", UINT32_MAX),
                   counts ? "give a larger --ctx-size" : "begin a new one");
}

void Engine::Remember(uint32_t sequence, std::span<const Token> tokens) {
  std::vector<Token>& history = history_[sequence];
  if (options_.rolling)
    tokens = tokens.first(std::min(tokens.size(), options_.context - history.size()));
  history.insert(history.end(), tokens.begin(), tokens.end());
}

Status Engine::CheckTokens(uint32_t sequence, std::span<const Token> tokens) const {
  SNUG_TRY(CheckRoom(sequence, tokens.size()));
  return CheckVocabulary(tokens);
}

Status Engine::CheckVocabulary(std::span<const Token> tokens) const {
  for (Token t : tokens) {
    if (t < 0 || static_cast<uint32_t>(t) >= config().vocab) {
      return MakeError(Code::kBadInput,
                       fmt::format("token {} is outside the vocabulary of {}", t, config().vocab));
    }
  }
  return {};
}

Status Engine::Check(std::span<const StepItem> items) const {
  size_t rows = 0, logit_rows = 0;
  for (const StepItem& item : items) {
    const size_t n = item.tokens.size();
    rows += n;
    if (item.logits == StepItem::Logits::kLast) logit_rows += 1;
    if (item.logits == StepItem::Logits::kAll) logit_rows += n;
    if (options_.gives_up_rows() && n != 1) {
      return MakeError(
          Code::kUsage,
          fmt::format(
              "a step of {} tokens: a cache that drops, merges, codes or moves rows takes one", n),
          "give prompts to Prefill");
    }
    SNUG_TRY(CheckTokens(item.sequence, item.tokens));
  }
  assert(rows > 0 && rows <= plan_.chunk && logit_rows <= plan_.logit_rows);
  return {};
}

Status Engine::Embed(std::span<const StepItem> items) {
  const uint32_t dim = config().dim;
  const bool from_head = config().tied && place_->resident();
  uint32_t row = 0;
  for (const StepItem& item : items) {
    for (Token t : item.tokens) {
      float* x = blocks_->x(row++);
      if (from_head && split_head_) {
        split_head_->UnpackRow(static_cast<size_t>(t), x);
      } else if (from_head) {
        const Part& first = layout_.parts[layout_.first_head];
        const uint32_t block = first.tensors[0].rows;
        const size_t part = layout_.first_head + static_cast<uint32_t>(t) / block;
        SNUG_ASSIGN(const uint8_t* base, place_->Acquire(part));
        UnpackRow({base, embedding_->type, layout_.parts[part].tensors[0].rows, dim},
                  static_cast<uint32_t>(t) % block, x);
        place_->Release(part);
      } else {
        SNUG_TRY(ReadRow(file_->files(), *embedding_, static_cast<uint32_t>(t), embedding_row_, x));
      }
      if (observer_ != nullptr) observer_->Embedded(x, dim);
      if (config().embedding_scale != 1) Scale(config().embedding_scale, dim, x);
    }
  }
  return {};
}

Status Engine::RunLayers() {
  const uint64_t experts_before = blocks_->expert_bytes_used();
  // Where layers stay in memory, a layer's router may look ahead to the next one's.
  const bool look_ahead = experts_ != nullptr && place_->resident();
  LayerWeights next;
  for (uint32_t l = 0; l < layers_; ++l) {
    const size_t part = 1 + l;
    SNUG_ASSIGN(const uint8_t* base, place_->Acquire(part));
    if (observer_ != nullptr) observer_->Enter(layout_.parts[part], base, 0);
    const bool has_next = look_ahead && l + 1 < config().layers;
    if (has_next) {
      SNUG_ASSIGN(const uint8_t* next_base, place_->Acquire(part + 1));
      next = ViewPart(layout_.parts[part + 1], next_base);
    }
    blocks_->set_next_layer(has_next ? &next : nullptr);
    model_->Layer(*blocks_, l, ViewPart(layout_.parts[part], base));
    place_->Release(part);
    if (Status status = blocks_->TakeError(); !status.ok()) {
      AbandonPass(part + 1, PartsOf(!logit_rows_.empty()));
      return status;
    }
    traffic_.weight_bytes += layout_.parts[part].bytes;
  }
  traffic_.weight_bytes += blocks_->expert_bytes_used() - experts_before;
  return {};
}

Status Engine::RunHead(std::span<const uint32_t> rows) {
  blocks_->BeginHead(rows, globals_.vec(Role::kOutputNorm));
  if (split_head_) {
    const Activations& x = blocks_->head_input();
    const bool found =
        top_ != 0 && rows.size() == 1 &&
        split_head_->Top(*pool_, x, top_, blocks_->logits(0), &traffic_.weight_bytes);
    if (!found) {
      split_head_->Full(*pool_, x, blocks_->logits(0));
      traffic_.weight_bytes += split_head_->bytes();
    }
  }
  for (size_t part = layout_.first_head; part < layout_.parts.size(); ++part) {
    const PartTensor& t = layout_.parts[part].tensors[0];
    SNUG_ASSIGN(const uint8_t* base, place_->Acquire(part));
    if (observer_ != nullptr) observer_->Enter(layout_.parts[part], base, 0);
    blocks_->HeadBlock({base, t.info->type, t.rows, config().dim}, t.first_row);
    place_->Release(part);
    traffic_.weight_bytes += layout_.parts[part].bytes;
  }
  blocks_->FinishHead();
  return {};
}

Status Engine::Step(std::span<const StepItem> items) {
  SNUG_TRY(Check(items));
  spans_.clear();
  logit_rows_.clear();
  uint32_t row = 0;
  for (const StepItem& item : items) {
    const auto n = static_cast<uint32_t>(item.tokens.size());
    spans_.push_back({item.sequence, row, n, cache_->length(item.sequence), prompt_});
    SNUG_TRY(cache_->PlaceRows(item.sequence));
    cache_->Extend(item.sequence, n);
    for (uint32_t i = 0; i < n; ++i) {
      if (item.logits == StepItem::Logits::kAll ||
          (item.logits == StepItem::Logits::kLast && i + 1 == n)) {
        logit_rows_.push_back(row + i);
      }
    }
    row += n;
  }
  place_->BeginPass(PartsOf(!logit_rows_.empty()), NextParts(next_head_));
  const uint64_t kv_before = blocks_->kv_bytes_read();
  blocks_->Begin(spans_);
  SNUG_TRY(Embed(items));
  model_->Input(*blocks_, globals_);
  SNUG_TRY(RunLayers());
  if (!logit_rows_.empty()) SNUG_TRY(RunHead(logit_rows_));
  for (const StepItem& item : items) {
    uint32_t& prompt_length = prompt_length_[item.sequence];
    if (prompt_ && prompt_length == cache_->length(item.sequence)) {
      prompt_length += static_cast<uint32_t>(item.tokens.size());
    }
    cache_->Commit(item.sequence, static_cast<uint32_t>(item.tokens.size()));
    Remember(item.sequence, item.tokens);
    if (options_.keep != nullptr) cache_->DropRows(item.sequence, *pool_);
    if (options_.codec != nullptr) cache_->EncodeRows(item.sequence, *pool_);
    if (options_.share != nullptr) cache_->ShareRows(item.sequence, *pool_);
  }
  traffic_.kv_bytes += blocks_->kv_bytes_read() - kv_before;
  return {};
}

std::span<const float> Engine::logits(size_t row) const {
  return {blocks_->logits(row), config().vocab};
}

Status Engine::Prefill(uint32_t sequence, std::span<const Token> tokens,
                       const std::function<bool(uint32_t done, uint32_t total)>& progress) {
  if (options_.by_layer()) return PrefillByLayer(sequence, tokens, progress);
  const auto total = static_cast<uint32_t>(tokens.size());
  uint32_t done = 0;
  while (done < total) {
    const uint32_t n = std::min(plan_.chunk, total - done);
    const bool last = done + n == total;
    next_head_ = last || total - done - n <= plan_.chunk;
    const StepItem item{sequence, tokens.subspan(done, n),
                        last ? StepItem::Logits::kLast : StepItem::Logits::kNone};
    prompt_ = true;
    const Status status = Step({&item, 1});
    prompt_ = false;
    next_head_ = true;
    SNUG_TRY(status);
    done += n;
    if (progress && !progress(done, total)) {
      return MakeError(Code::kCancelled,
                       fmt::format("cancelled after {} of {} prompt tokens", done, total));
    }
  }
  return {};
}

}  // namespace snug
