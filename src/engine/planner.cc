#include "engine/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "engine/cache_rules.h"
#include "engine/calibrate.h"
#include "engine/channel_statistics.h"
#include "engine/codebook_training.h"
#include "engine/key_order_statistics.h"
#include "engine/kv_budget.h"
#include "engine/lookup.h"
#include "engine/reduce.h"
#include "engine/split_head.h"
#include "engine/weight_probe.h"
#include "format/recipe.h"
#include "kv/cache.h"
#include "kv/codec/codebooks.h"
#include "kv/codec/key_basis.h"
#include "model/blocks.h"
#include "text/tokenizer.h"

namespace snug {
namespace {

// Heap, stacks and code pages that a run touches after the plan is made, beyond what the process
// holds then.
constexpr uint64_t kBaseGrowth = 8 * kMiB;
constexpr uint32_t kResidentChunks[] = {512, 256, 128, 64, 32};
constexpr uint32_t kStreamChunks[] = {256, 128, 64, 32};
constexpr uint32_t kDefaultContext = 4096;
constexpr uint32_t kDefaultPrompt = 16384;
// Snapshots of a sequence's states: enough for a system prompt, two turns and what a draft goes
// back to. Where memory is short, and beside streamed weights, one or none.
constexpr int32_t kSnapshots = 4;
constexpr uint64_t kMaxBudgetMiB = uint64_t{1} << 30;
// Texts that a step of an encoder takes at most: sentences fill the largest chunk with fewer.
constexpr uint32_t kEncoderTexts = 32;
// Experts in memory at least: one at work, one on its way.
constexpr uint32_t kLeastSlots = 2;

using Owners = std::array<uint64_t, kOwners>;
uint64_t& At(Owners& o, Owner w) { return o[static_cast<size_t>(w)]; }
uint64_t Sum(const Owners& o) {
  uint64_t sum = 0;
  for (uint64_t b : o) sum += b;
  return sum;
}

struct Context {
  const ModelFile& file;
  const Model& model;
  const WeightLayout& layout;
  const EngineOptions& options;
  uint64_t base, vocab;
  int threads;
  uint64_t codebooks;
};

void Total(MemoryPlan& plan) {
  plan.peak = Sum(plan.at_load) > Sum(plan.at_context) ? plan.at_load : plan.at_context;
  plan.peak_total = Sum(plan.peak);
  plan.fits = plan.peak_total <= plan.budget;
}

// Rows of a layer and head that stay at most at full context, on average over layers.
uint32_t MostRows(const KeptLayout& kept) {
  uint64_t rows = 0;
  for (uint32_t l = 0; l < kept.layers; ++l) rows += kept.MostRows(l);
  return kept.layers == 0 ? kept.context : static_cast<uint32_t>(rows / kept.layers);
}

// The plan of everything but the weights.
MemoryPlan PlanRest(const Context& x, uint32_t chunk) {
  const ModelConfig& c = x.model.config();
  MemoryPlan plan;
  plan.budget = x.options.budget.bytes;
  plan.threads = x.threads;
  plan.context = x.options.context;
  plan.chunk = c.encoder ? chunk : std::min(chunk, x.options.context);
  plan.logit_rows = c.encoder ? 0 : std::min(std::max(1u, x.options.logit_rows), plan.chunk);
  const KvLayout kv = MakeKvLayout(c, x.options, plan.chunk);
  const BlocksLayout blocks =
      MakeBlocksLayout(c, x.options, plan.chunk, plan.logit_rows, x.threads);
  // Page tables and the tokens themselves are on the heap.
  plan.base_bytes =
      Buffer::Reserved(x.base + KvCache::TableBytes(kv) +
                           (uint64_t{x.options.sequences} + 1) * x.options.context * sizeof(Token),
                       Pages::kNormal);
  plan.vocab_bytes = x.vocab;
  plan.kv_tile_bytes = kv.tile_bytes();
  plan.kv_rows = kv.keep == nullptr ? x.options.context : MostRows(kv.kept());
  plan.kv_exact_rows =
      kv.codec == nullptr ? plan.kv_rows : std::min(plan.kv_rows, kv.codec->MostExact());
  plan.kv_pairs = static_cast<uint32_t>(kv.pairs.size());
  plan.kv_state_bytes = kv.states.slot_bytes();
  plan.snapshots = kv.states.snapshots;
  plan.codebook_bytes = x.codebooks;
  plan.kv_bytes = KvCache::PoolBytes(kv) + x.codebooks;
  plan.kv_disk_bytes = kv.placed().file_bytes();
  plan.hidden_bytes = Buffer::Reserved(HiddenBytes(c, x.options), Pages::kNormal);
  plan.activation_bytes =
      Buffer::Reserved(blocks.activation_bytes(), Pages::kNormal) + plan.hidden_bytes;
  plan.scratch_bytes = Buffer::Reserved(blocks.scratch_bytes(), Pages::kNormal) +
                       Buffer::Reserved(blocks.reader.bytes(), Pages::kNormal) +
                       Buffer::Reserved(blocks.block_reader.bytes(), Pages::kNormal);
  if (x.options.reduce != nullptr) {
    const KvLayout scan = MakeScanLayout(c, x.options, plan.chunk);
    plan.prompt = x.options.prompt;
    plan.prompt_read = static_cast<uint32_t>(x.options.Read(plan.prompt));
    plan.reduce_layer = x.options.reduce->Layer(c);
    // The tokens of the prompt, and the numbers of those that are read.
    plan.base_bytes = Buffer::Reserved(
        plan.base_bytes + KvCache::TableBytes(scan) + uint64_t{plan.prompt} * 2 * sizeof(Token),
        Pages::kNormal);
    plan.kv_bytes += KvCache::PoolBytes(scan);
    plan.scratch_bytes += Buffer::Reserved(ScanRoomBytes(c, x.options), Pages::kNormal);
  }
  if (x.options.lookup) plan.scratch_bytes += Lookup::Bytes(x.options.context);
  if (x.options.observe == Observation::kCalibrate)
    plan.scratch_bytes += Calibration::Bytes(x.layout);
  if (x.options.observe == Observation::kProbe)
    plan.scratch_bytes += WeightProbe::Bytes(x.layout, c.vocab, x.threads);
  if (x.options.observe == Observation::kChannels)
    plan.scratch_bytes += ChannelStatistics::Bytes(c);
  if (x.options.observe == Observation::kCodebooks)
    plan.scratch_bytes += CodebookTraining::Bytes(c, x.options.training, x.threads);
  if (x.options.observe == Observation::kKeyOrder)
    plan.scratch_bytes += KeyOrderStatistics::Bytes(c, x.options.context);
  plan.kv_bytes_per_token_at_context = kv.BytesRead(plan.context);
  constexpr uint32_t kSamples = 16;
  for (uint32_t i = 0; i < kSamples; ++i) {
    const auto depth = static_cast<uint32_t>(uint64_t{plan.context} * (2 * i + 1) / (2 * kSamples));
    plan.kv_bytes_per_token_mean += kv.BytesRead(depth) / kSamples;
  }
  for (size_t i = 1; i < x.layout.parts.size(); ++i) {
    plan.weight_bytes_per_token += x.layout.parts[i].bytes;
  }
  for (const Part& p : x.layout.experts) plan.weight_bytes_per_token += c.router.used * p.bytes;
  plan.experts = TotalExperts(x.layout);
  return plan;
}

void FillOwners(MemoryPlan& plan, uint64_t io_at_load, uint64_t io_after) {
  Owners loaded{};
  At(loaded, Owner::kBase) = plan.base_bytes;
  At(loaded, Owner::kVocab) = plan.vocab_bytes;
  At(loaded, Owner::kWeights) = plan.weight_bytes;
  plan.at_load = loaded;
  At(plan.at_load, Owner::kWeights) = plan.weight_bytes_at_load;
  At(plan.at_load, Owner::kIo) = io_at_load;
  At(plan.at_load, Owner::kScratch) = plan.head_scratch_bytes;
  plan.at_start = loaded;
  At(plan.at_start, Owner::kIo) = io_after;
  At(plan.at_start, Owner::kActivations) = plan.activation_bytes;
  At(plan.at_start, Owner::kScratch) = plan.scratch_bytes;
  At(plan.at_start, Owner::kKv) = plan.codebook_bytes;
  plan.at_context = plan.at_start;
  At(plan.at_context, Owner::kKv) = plan.kv_bytes;
  plan.io_bytes = std::max(io_at_load, io_after);
  Total(plan);
}

std::vector<uint32_t> Chunks(const Context& x, std::span<const uint32_t> defaults) {
  const EngineOptions& o = x.options;
  uint32_t least = std::max(o.logit_rows, o.sequences);
  if (x.model.config().encoder) least = std::max(least, o.context);  // a text runs in one step
  if (o.chunk != 0) return {x.model.config().encoder ? std::max(o.chunk, least) : o.chunk};
  std::vector<uint32_t> chunks;
  for (uint32_t c : defaults) {
    if (c >= least || c == defaults.front()) chunks.push_back(std::max(c, least));
  }
  return chunks;
}

// Everything but experts in memory; `plan` is without owners yet.
void PlanResidentParts(const Context& x, MemoryPlan& plan) {
  plan.resident = true;
  const EngineOptions& o = x.options;
  if (plan.logit_rows == 1 && o.plane_head && !o.exact) {
    const TensorInfo& head = *x.layout.parts[x.layout.first_head].tensors[0].info;
    plan.plane_head = SplitHead::Supports(head.type, head.cols());
  }
  if (plan.plane_head) {
    const TensorInfo& head = *x.layout.parts[x.layout.first_head].tensors[0].info;
    WeightLayout body = x.layout;
    body.parts.resize(body.first_head);
    plan.weight_bytes = ResidentBytes(body) + SplitHead::WeightBytes(head.rows(), head.cols());
    plan.scratch_bytes += SplitHead::ScratchBytes(head.rows());
    plan.head_scratch_bytes = SplitHead::ScratchBytes(head.rows());
    const uint64_t search = SplitHead::SearchBytes(head.rows(), head.cols());
    uint64_t whole = 0;
    for (size_t i = x.layout.first_head; i < x.layout.parts.size(); ++i)
      whole += x.layout.parts[i].bytes;
    plan.head_share = static_cast<double>(search) / static_cast<double>(whole);
    plan.weight_bytes_per_token -= whole - search;
  } else {
    plan.weight_bytes = ResidentBytes(x.layout);
  }
  plan.weight_bytes_at_load = plan.weight_bytes;
}

// Bytes of the budget that `plan` leaves for more weights and their bounce buffers.
uint64_t Left(const MemoryPlan& plan) {
  const uint64_t total = Sum(plan.at_context);
  return plan.budget > total ? plan.budget - total : 0;
}

MemoryPlan PlanResident(const Context& x, uint32_t chunk) {
  MemoryPlan plan = PlanRest(x, chunk);
  PlanResidentParts(x, plan);
  if (plan.experts != 0) plan.weight_bytes += ResidentExpertBytes(x.layout);
  plan.weight_bytes_at_load = plan.weight_bytes;
  FillOwners(plan, LoadBytes(x.threads), 0);
  return plan;
}

// Adds a cache of experts to what is planned: `slots` of them, or as many as the budget leaves room
// for, `least` at least. Returns its bounce buffers.
uint64_t AddExpertCache(const Context& x, uint32_t slots, uint32_t least, MemoryPlan& plan) {
  if (slots == 0) slots = std::max(least, ExpertSlotsWithin(x.layout, Left(plan)));
  plan.expert_slots = std::min(slots, plan.experts);
  plan.weight_bytes += ExpertCacheBytes(x.layout, plan.expert_slots);
  // As if every expert were wanted as often as any other, and a chunk wanted all.
  double one_each = 0;
  for (const Part& p : x.layout.experts) one_each += static_cast<double>(p.file_bytes);
  const RouterConfig& router = x.model.config().router;
  const double missed = one_each * (1 - static_cast<double>(plan.expert_slots) / plan.experts);
  plan.disk_bytes_per_token += static_cast<uint64_t>(router.used * missed);
  plan.disk_bytes_per_chunk += static_cast<uint64_t>(router.experts * missed);
  return ExpertIoBytes(x.layout);
}

// The rest of the weights in memory, experts in a cache.
MemoryPlan PlanExpertCache(const Context& x, uint32_t chunk, uint32_t least) {
  MemoryPlan plan = PlanRest(x, chunk);
  PlanResidentParts(x, plan);
  FillOwners(plan, LoadBytes(x.threads), 0);
  const uint64_t io = AddExpertCache(x, x.options.experts.slots, least, plan);
  FillOwners(plan, LoadBytes(x.threads), io);
  return plan;
}

MemoryPlan PlanStream(const Context& x, uint32_t chunk) {
  MemoryPlan plan = PlanRest(x, chunk);
  plan.resident = false;
  plan.weight_bytes = 0;
  FillOwners(plan, 0, 0);
  uint64_t io = 0;
  if (plan.experts != 0) {
    io = AddExpertCache(x, std::max(kLeastSlots, x.options.experts.slots), 1, plan);
  }
  FillOwners(plan, io, io);
  const StreamChoice choice = ChooseStream(x.layout, x.options.stream, Left(plan));
  plan.stream = choice.options;
  plan.weight_bytes += choice.weight_bytes;
  plan.weight_bytes_at_load = choice.weight_bytes;
  plan.disk_bytes_per_token += choice.pass_bytes;
  plan.disk_bytes_per_chunk += choice.pass_bytes;
  io += choice.io_bytes;
  FillOwners(plan, choice.io_bytes, io);
  return plan;
}

MemoryPlan BestOfPlaces(const Context& x) {
  MemoryPlan best;
  bool have = false;
  auto consider = [&](MemoryPlan plan) {
    if (!have || plan.fits || plan.peak_total < best.peak_total) best = std::move(plan);
    have = true;
    return best.fits;
  };
  if (x.options.place != PlaceChoice::kStream && x.options.experts.slots == 0) {
    for (uint32_t chunk : Chunks(x, kResidentChunks)) {
      if (consider(PlanResident(x, chunk))) return best;
    }
  }
  if (x.options.place != PlaceChoice::kResident) {
    // Rather a smaller chunk than a cache that a token's experts of two layers do not fit.
    const uint32_t ample = 2 * x.model.config().router.used;
    for (const uint32_t least : {ample, std::min(ample, kLeastSlots)}) {
      for (uint32_t chunk : Chunks(x, kStreamChunks)) {
        if (ample != 0 && consider(PlanExpertCache(x, chunk, least))) return best;
      }
    }
    for (uint32_t chunk : Chunks(x, kStreamChunks)) {
      if (consider(PlanStream(x, chunk))) return best;
    }
  }
  return best;
}

// For models with states, the number of snapshots too: fewer before weights leave memory, and one
// beside those that do. Speculation goes back after every draft that fails, so it keeps the last.
MemoryPlan BestPlan(const Context& x) {
  if (x.model.config().recurrent_layers() == 0 || x.options.snapshots >= 0) return BestOfPlaces(x);
  const int32_t least = x.options.lookup ? 1 : 0;
  MemoryPlan best;
  EngineOptions o = x.options;
  const Context y{x.file, x.model, x.layout, o, x.base, x.vocab, x.threads, x.codebooks};
  const auto fits = [&] {
    MemoryPlan plan = BestOfPlaces(y);
    if (plan.fits || best.budget == 0 || plan.peak_total < best.peak_total) best = std::move(plan);
    return best.fits;
  };
  if (x.options.place != PlaceChoice::kStream) {
    o.place = PlaceChoice::kResident;
    for (const int32_t n : {kSnapshots, 1, 0}) {
      o.snapshots = n;
      if (n >= least && fits()) return best;
    }
  }
  if (x.options.place != PlaceChoice::kResident) {
    o.place = x.options.place;
    for (const int32_t n : {1, 0}) {
      o.snapshots = n;
      if (n >= least && fits()) return best;
    }
  }
  return best;
}

// The largest multiple of 64 up to `context` that fits, or 0.
uint32_t LargestContext(const Context& x) {
  uint32_t low = 0, high = x.options.context / kTileTokens;
  EngineOptions o = x.options;
  while (low < high) {
    const uint32_t mid = (low + high + 1) / 2;
    o.context = mid * kTileTokens;
    const Context y{x.file, x.model, x.layout, o, x.base, x.vocab, x.threads, x.codebooks};
    if (BestPlan(y).fits) {
      low = mid;
    } else {
      high = mid - 1;
    }
  }
  return low * kTileTokens;
}

// The least budget, in MiB, that serves these options, or 0 where no machine has as much.
uint64_t LeastBudget(const Context& x) {
  uint64_t low = x.options.budget.bytes / kMiB, high = low + 16;
  EngineOptions o = x.options;
  auto fits = [&](uint64_t mib) {
    o.budget.bytes = mib * kMiB;
    const Context y{x.file, x.model, x.layout, o, x.base, x.vocab, x.threads, x.codebooks};
    return BestPlan(y).fits;
  };
  while (!fits(high)) {
    if (high >= kMaxBudgetMiB) return 0;
    low = high;
    high *= 2;
  }
  while (low + 1 < high) {
    const uint64_t mid = low + (high - low) / 2;
    (fits(mid) ? high : low) = mid;
  }
  return high;
}

void Suggest(const Context& x, MemoryPlan& plan) {
  const uint64_t mib = LeastBudget(x);
  if (mib != 0) plan.suggestions.push_back({fmt::format("--memory {}MiB", mib), mib * kMiB});
  const uint32_t context = LargestContext(x);
  if (context > x.options.Read(x.options.prompt)) {
    plan.suggestions.push_back({fmt::format("--ctx-size {}", context), plan.budget});
  }
  if (!x.options.exact && !x.model.config().encoder && x.options.codec == nullptr &&
      x.options.share == nullptr && x.options.key_type != KvType::kQ8_0 &&
      KvTypeSupports(KvType::kQ8_0, x.model.config().head_dim)) {
    EngineOptions o = x.options;
    o.key_type = o.value_type = KvType::kQ8_0;
    const Context y{x.file, x.model, x.layout, o, x.base, x.vocab, x.threads, x.codebooks};
    if (const MemoryPlan p = BestPlan(y); p.fits) {
      plan.suggestions.push_back({"--kv q8_0", p.peak_total});
    }
  }
}

}  // namespace

EngineOptions Resolved(const ModelConfig& c, EngineOptions o) {
  if (c.encoder && o.context == 0) o.context = kTrainedContext;
  if (o.context == 0) o.context = std::min(kDefaultContext, c.trained_context);
  if (o.context == kTrainedContext) o.context = c.trained_context;
  if (o.reduce != nullptr && o.prompt == 0)
    o.prompt = std::min(std::max(kDefaultPrompt, o.context), c.trained_context);
  if (c.encoder) o.sequences = std::max(o.sequences, kEncoderTexts);
  return o;
}

KvLayout MakeKvLayout(const ModelConfig& c, const EngineOptions& o, uint32_t chunk) {
  KvLayout kv;
  kv.key_type = o.exact ? KvType::kF32 : o.key_type;
  kv.value_type = o.exact ? KvType::kF32 : o.value_type;
  kv.layers = c.layers;
  if (c.encoder) {
    // One step's pages, the same for every layer: nothing is kept, so nothing is encoded.
    kv.key_type = kv.value_type = KvType::kF32;
    kv.layers = 1;
    kv.one_step = true;
  }
  kv.kv_heads = c.kv_heads;
  kv.head_dim = c.head_dim;
  kv.query_heads = c.kv_heads == 0 ? 0 : c.heads / c.kv_heads;
  kv.window = c.window;
  for (uint32_t l = 0; l < c.layers; ++l) {
    kv.attends.push_back(!c.recurrent[l]);
    kv.states.floats.push_back(c.recurrent[l] ? c.state.floats() : 0);
  }
  kv.states.sequences = o.sequences;
  if (c.recurrent_layers() > 0)
    kv.states.snapshots = static_cast<uint32_t>(std::max(0, o.snapshots));
  kv.context = o.context;
  kv.sequences = o.sequences;
  kv.chunk = chunk;
  kv.keep = o.keep;
  if (o.rolling) kv.rolling = KeyRotation{c.rope.dim, c.rope.interleaved, c.no_rope, {}};
  kv.codec = o.codec;
  kv.encode_delay = o.encode_delay;
  kv.read = AsRows(o.read);
  kv.share = o.share;
  kv.place = o.kv_place;
  kv.folder = o.kv_folder;
  if (o.share != nullptr) {
    // CheckCache has seen to it that a pair's layers are alike.
    const auto pairs = o.share->Pairs(c.layers);
    for (const uint32_t l : pairs.ok() ? *pairs : std::vector<uint32_t>()) {
      if (c.window[l] == 0) kv.pairs.push_back(l);
    }
  }
  return kv;
}

KvLayout MakeScanLayout(const ModelConfig& c, const EngineOptions& o, uint32_t chunk) {
  EngineOptions plain;
  plain.exact = o.exact;
  plain.context = o.prompt;
  KvLayout kv = MakeKvLayout(c, plain, chunk);
  kv.one_layer = true;
  return kv;
}

uint64_t ScanRoomBytes(const ModelConfig& c, const EngineOptions& o) {
  return uint64_t{o.prompt} * (c.heads + 2) * sizeof(float);
}

BlocksLayout MakeBlocksLayout(const ModelConfig& c, const EngineOptions& o, uint32_t chunk,
                              uint32_t logit_rows, int threads) {
  Observations observes;
  if (o.keep != nullptr) observes = o.keep->observes();
  if (o.codec != nullptr) observes = o.codec->observes();
  const uint32_t log_sums = (observes.any() ? 1 : 0) + (observes.noise.on ? 1 : 0);
  RowReaderLayout rows;
  BlockReaderLayout blocks;
  const auto set = [&](auto* reader, auto method) {
    if (method == nullptr) return;
    const KvLayout kv = MakeKvLayout(c, o, chunk);
    *reader = {method,     kv.key_type, kv.value_type, c.heads,
               c.kv_heads, c.head_dim,  o.context,     threads};
  };
  set(&rows, AsRows(o.read));
  set(&blocks, AsBlocks(o.read));
  uint32_t longest = std::max(o.context, o.longest_prompt());
  if (o.rolling) longest = std::max(longest, MakeKvLayout(c, o, chunk).reach());
  return {&c, chunk, logit_rows, longest, o.sequences, threads, log_sums, rows, blocks};
}

uint64_t HiddenBytes(const ModelConfig& c, const EngineOptions& o) {
  uint64_t rows = o.by_layer() ? o.context : 0;
  if (o.reduce != nullptr) rows = std::max<uint64_t>(rows, o.prompt);
  return rows * c.dim * sizeof(float);
}

namespace {

// How the cache is held, as options would ask for it.
std::string CacheWords(const EngineOptions& o) {
  const std::string k(KvTypeName(o.key_type)), v(KvTypeName(o.value_type));
  std::string words = o.codec != nullptr ? o.codec->spec() : k == v ? k : "k=" + k + ",v=" + v;
  if (o.exact) words = KvTypeName(KvType::kF32);
  if (o.keep != nullptr) words += " --kv-keep " + o.keep->spec();
  if (o.rolling) words += " --kv-positions rolling";
  if (o.read != nullptr) words += " --kv-read " + o.read->spec();
  if (o.share != nullptr) words += " --kv-share " + o.share->spec();
  if (o.kv_place != nullptr) words += " --kv-place " + o.kv_place->spec();
  if (o.reduce != nullptr) words += " --reduce " + o.reduce->spec();
  return "--kv " + words;
}

}  // namespace

Result<MemoryPlan> MakePlan(const ModelFile& file, const Model& model, const WeightLayout& layout,
                            const EngineOptions& options) {
  const ModelConfig& c = model.config();
  if (options.context < 1 || options.sequences < 1) {
    return MakeError(Code::kUsage,
                     fmt::format("a context of {} tokens and {} sequences cannot be planned",
                                 options.context, options.sequences),
                     "give --ctx-size and --parallel of 1 or more");
  }
  if (options.context > c.trained_context) {
    const char* beyond = options.rolling ? ": a text goes on past it"
                         : CanRoll(c)
                             ? ", or go on for ever: --kv-keep sink-window --kv-positions rolling"
                             : "";
    return MakeError(Code::kDoesNotFit,
                     fmt::format("context {} exceeds the {} tokens that {} was trained for",
                                 options.context, c.trained_context, c.name),
                     fmt::format("give --ctx-size {} or less{}", c.trained_context, beyond),
                     {{"context", std::to_string(options.context)},
                      {"trained_context", std::to_string(c.trained_context)}});
  }
  SNUG_TRY(CheckCache(c, options));
  SNUG_TRY(CheckReduce(c, options));
  uint64_t vocab = 0;
  if (options.tokenizer) {
    SNUG_ASSIGN(vocab, Tokenizer::PlannedBytes(file));
  }
  uint64_t codebooks = 0;
  if (options.codec != nullptr && options.codec->needs_codebooks()) {
    SNUG_ASSIGN(const CodebookFile books, CodebookFile::Open(options.codebooks, c));
    SNUG_TRY(options.codec->CheckCodebooks(books.shape()));
    codebooks = books.shape().bytes();
  }
  if (options.codec != nullptr && options.codec->needs_order()) {
    SNUG_ASSIGN(const KeyOrder order, ReadKeyOrder(options.permutation, c));
    SNUG_TRY(options.codec->CheckOrder(order, c.kv_heads));
  }
  if (options.codec != nullptr && options.codec->needs_basis()) {
    codebooks += KeyBasis::Bytes(c, options.context);
  }
  const uint64_t held =
      options.base_bytes != 0 ? options.base_bytes : ReadProcessMemory().rss + kBaseGrowth;
  const uint64_t base = (held + options.caller_bytes + kMiB - 1) / kMiB * kMiB;
  const Context x{file,
                  model,
                  layout,
                  options,
                  base,
                  vocab,
                  options.threads > 0 ? options.threads : UsableCpus().cpus,
                  codebooks};
  MemoryPlan plan = BestPlan(x);
  plan.cache = CacheWords(options);
  if (options.kv_bytes != 0 && plan.kv_bytes > options.kv_bytes) {
    return MakeError(Code::kDoesNotFit,
                     fmt::format("the cache takes {} of the {} that it may",
                                 FormatBytes(plan.kv_bytes), FormatBytes(options.kv_bytes)),
                     "give a larger --kv-budget or a smaller --ctx-size");
  }
  if (!plan.fits) {
    // The process that follows the advice may hold some pages more than this one.
    const uint64_t spare = options.base_bytes != 0 ? 0 : kMiB;
    Suggest({file, model, layout, options, base + spare, vocab, x.threads, codebooks}, plan);
  }
  return plan;
}

Error DoesNotFit(const MemoryPlan& plan) {
  std::string next;
  for (const auto& s : plan.suggestions) next += (next.empty() ? "" : ", or ") + s.change;
  return MakeError(
      Code::kDoesNotFit,
      fmt::format("the plan needs {} but the budget is {}: {} short", FormatBytes(plan.peak_total),
                  FormatBytes(plan.budget), FormatBytes(plan.peak_total - plan.budget)),
      next.empty() ? next : "these fit: " + next,
      {{"needed", std::to_string(plan.peak_total)}, {"budget", std::to_string(plan.budget)}});
}

Result<std::unique_ptr<ModelFile>> OpenModelFile(const EngineOptions& options) {
  SNUG_ASSIGN(std::unique_ptr<ModelFile> file, ModelFile::Open(options.model_path));
  if (options.weights.empty()) return file;
  SNUG_ASSIGN(const Recipe recipe, FindRecipe(options.weights));
  SNUG_TRY(QuantizeOnLoad(*file, recipe));
  return file;
}

Result<MemoryPlan> PlanFile(const EngineOptions& options) {
  SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, OpenModelFile(options));
  SNUG_ASSIGN(const std::unique_ptr<Model> model, Model::Open(*file));
  SNUG_ASSIGN(const WeightLayout layout, MakeLayout(*file, *model));
  EngineOptions resolved = Resolved(model->config(), options);
  if (resolved.kv_bytes != 0) {
    SNUG_ASSIGN(resolved, FitCache(*file, *model, layout, resolved));
  }
  return MakePlan(*file, *model, layout, resolved);
}

}  // namespace snug
