#include "engine/probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "base/clock.h"
#include "engine/engine.h"

namespace snug {
namespace {

constexpr uint64_t kRing = 96 * kMiB;  // three times the last-level cache of today's servers
constexpr uint64_t kFillTask = 2 * kMiB;
// Read as a half float, a bfloat16 or a float, this byte repeated is a number of ordinary size.
constexpr int kFill = 0x3c;
constexpr uint32_t kPromptTokens = 128;  // measured at once
constexpr uint32_t kDepth = 1024;        // tokens cached for the measurements of attention
constexpr uint32_t kPredictTokens = 512;
constexpr auto kTile = static_cast<uint32_t>(kTileTokens);
constexpr double kPromptSeconds = 0.06;         // of one measurement over several layers
constexpr int kRounds = 3;                      // the least time of so many counts ...
constexpr double kRoundsSeconds = 0.3;          // ... where they do not take longer than this
constexpr uint64_t kDecodeBytes = 1024 * kMiB;  // of layers, read by one measurement

double Seconds(const std::function<Status()>& step, Status* status) {
  const auto start = Clock::now();
  *status = step();
  return SecondsSince(start);
}

class ProbePlace final : public WeightPlace {
 public:
  ProbePlace(const WeightLayout& layout, Buffer ring) : ring_(std::move(ring)) {
    uint64_t at = 0;
    for (const Part& part : layout.parts) {
      if (at + part.bytes > ring_.size()) at = 0;
      offsets_.push_back(at);
      at += part.bytes;
    }
  }
  void BeginPass(size_t, size_t) override {}
  Result<const uint8_t*> Acquire(size_t part) override { return ring_.data() + offsets_[part]; }
  void Release(size_t) override {}
  PlaceStats stats() const override { return {}; }
  bool resident() const override { return true; }

 private:
  Buffer ring_;
  std::vector<uint64_t> offsets_;
};

// The same of experts, each at its own place in the ring.
class ProbeExperts final : public ExpertPlace {
 public:
  ProbeExperts(const WeightLayout& layout, Buffer ring)
      : ring_(std::move(ring)), stride_(layout.max_expert_bytes()), count_(layout.expert_count) {}
  void Announce(uint32_t, std::span<const uint32_t>) override {}
  void Expect(uint32_t, std::span<const uint32_t>) override {}
  bool Ready(uint32_t, uint32_t) const override { return true; }
  Result<const uint8_t*> Acquire(uint32_t layer, uint32_t expert) override {
    return ring_.data() + (layer * count_ + expert) % (ring_.size() / stride_) * stride_;
  }
  void Release(uint32_t, uint32_t) override {}
  ExpertStats stats() const override { return {}; }
  uint32_t slots() const override { return 0; }

 private:
  Buffer ring_;
  const uint64_t stride_;
  const uint32_t count_;
};

// Keys that `tokens` queries from position `first` on see in a layer.
double Pairs(uint32_t window, uint32_t first, uint32_t tokens) {
  double pairs = 0;
  for (uint32_t t = 0; t < tokens; ++t) {
    const uint32_t seen = first + t + 1;
    pairs += window == 0 ? seen : std::min(seen, window);
  }
  return pairs;
}

}  // namespace

// Drives an engine without weights.
class StepProbe {
 public:
  explicit StepProbe(Engine& engine) : engine_(engine), layers_(engine.config().layers) {}

  Status Run(uint32_t depth, uint32_t predict_tokens);
  const StepTimes& times() const { return times_; }

 private:
  // The least time of a step of `tokens` tokens after `depth` others, over the first `layers`.
  Result<double> Time(uint32_t tokens, uint32_t depth, uint32_t layers, StepItem::Logits logits);
  void Pretend(uint32_t depth);
  Status Decode(uint32_t depth);
  Status Prompt(uint32_t depth, uint32_t predict_tokens);
  double PairsOf(uint32_t layers, uint32_t first, uint32_t tokens) const {
    double pairs = 0;
    const ModelConfig& c = engine_.config();
    for (uint32_t l = 0; l < layers; ++l)
      if (!c.recurrent[l]) pairs += Pairs(c.window[l], first, tokens);
    return pairs;
  }
  double LayerBytes(uint32_t layers) const {
    double bytes = 0;
    for (uint32_t l = 0; l < layers; ++l)
      bytes += static_cast<double>(engine_.layout_.parts[1 + l].bytes);
    return bytes;
  }

  Engine& engine_;
  const uint32_t layers_;
  StepTimes times_;
  uint64_t kv_bytes_ = 0;  // read by the last step that was timed
};

// Fills the cache as `depth` tokens would.
void StepProbe::Pretend(uint32_t depth) {
  KvCache& cache = *engine_.cache_;
  engine_.Clear(0);
  const uint32_t chunk = std::min(engine_.plan_.chunk, kTile);
  for (uint32_t done = 0; done < depth;) {
    const uint32_t n = std::min(chunk, depth - done);
    cache.Extend(0, n);
    const KvLayout& layout = cache.layout();
    for (uint32_t l = 0; l < layout.layers; ++l) {
      if (layout.Attends(l)) {
        std::memset(cache.page(0, l, done / kTile), kFill, layout.page_bytes());
      } else {
        std::memset(cache.states().next(0, l), kFill, layout.states.floats[l] * sizeof(float));
      }
    }
    cache.Commit(0, n);
    done += n;
  }
  engine_.history_[0].assign(depth, 0);
}

Result<double> StepProbe::Time(uint32_t tokens, uint32_t depth, uint32_t layers,
                               StepItem::Logits logits) {
  const std::vector<Token> ids(tokens, 0);
  const StepItem item{0, ids, logits};
  engine_.layers_ = layers;
  double least = INFINITY, spent = 0;
  for (int round = 0; round < kRounds && spent < kRoundsSeconds; ++round) {
    Pretend(depth);
    const uint64_t before = engine_.traffic().kv_bytes;
    Status status;
    const double seconds = Seconds([&] { return engine_.Step({&item, 1}); }, &status);
    SNUG_TRY(std::move(status));
    least = std::min(least, seconds);
    spent += seconds;
    kv_bytes_ = engine_.traffic().kv_bytes - before;
  }
  return least;
}

Status StepProbe::Decode(uint32_t depth) {
  uint32_t layers = layers_;
  while (layers > 1 && LayerBytes(layers) > kDecodeBytes) --layers;
  SNUG_ASSIGN(const double whole, Time(1, 0, layers, StepItem::Logits::kLast));
  SNUG_ASSIGN(const double body, Time(1, 0, layers, StepItem::Logits::kNone));
  const uint64_t none_cached = kv_bytes_;
  times_.head_s = std::max(0.0, whole - body);
  times_.decode_s = times_.head_s + body * LayerBytes(layers_) / LayerBytes(layers);
  if (depth == 0) return {};
  SNUG_ASSIGN(const double deep, Time(1, depth, layers, StepItem::Logits::kNone));
  const auto bytes = static_cast<double>(kv_bytes_ - none_cached);
  if (bytes > 0) times_.decode_per_kv_byte = std::max(0.0, deep - body) / bytes;
  return {};
}

Status StepProbe::Prompt(uint32_t depth, uint32_t predict_tokens) {
  const uint32_t tokens = std::min(engine_.plan_.chunk, engine_.options_.context - depth);
  SNUG_ASSIGN(double time, Time(tokens, 0, 1, StepItem::Logits::kNone));
  const auto layers = static_cast<uint32_t>(
      std::clamp(kPromptSeconds / std::max(time, 1e-9), 1.0, static_cast<double>(layers_)));
  if (layers > 1) {
    SNUG_ASSIGN(time, Time(tokens, 0, layers, StepItem::Logits::kNone));
  }
  const double near = PairsOf(layers, 0, tokens);
  double per_pair = 0;
  if (const double far = PairsOf(layers, depth, tokens); far > near) {
    SNUG_ASSIGN(const double deep, Time(tokens, depth, layers, StepItem::Logits::kNone));
    per_pair = std::max(0.0, deep - time) / (far - near);
  }
  const double per_token = std::max(0.0, time - per_pair * near) / tokens;
  times_.prompt_tokens = predict_tokens;
  times_.prompt_s = per_token * predict_tokens * LayerBytes(layers_) / LayerBytes(layers) +
                    per_pair * PairsOf(layers_, 0, predict_tokens) + times_.head_s;
  return {};
}

Status StepProbe::Run(uint32_t depth, uint32_t predict_tokens) {
  SNUG_TRY(Decode(depth));
  return Prompt(depth, predict_tokens);
}

Result<StepTimes> MeasureSteps(const EngineOptions& options, const MemoryPlan& plan) {
  EngineOptions o = options;
  o.probe = true;
  o.tokenizer = false;
  o.place = PlaceChoice::kResident;
  o.plane_head = o.lookup = false;
  o.sequences = o.logit_rows = 1;
  o.threads = plan.threads;
  o.chunk = std::min(plan.chunk, kPromptTokens);
  o.context = std::min(plan.context, kDepth + o.chunk);
  o.budget.bytes = uint64_t{1} << 60;
  o.read = nullptr;
  o.kv_place = nullptr;
  o.keep = nullptr;  // what reads cost is the same
  o.rolling = false;
  o.codec = nullptr;
  o.reduce = nullptr;
  o.before_weights = nullptr;
  o.on_load = nullptr;
  const uint32_t room = o.context > o.chunk ? o.context - o.chunk : 0;
  const uint32_t depth = room / kTile * kTile;
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(o));
  StepProbe probe(*engine);
  SNUG_TRY(probe.Run(depth, std::min(plan.context, kPredictTokens)));
  return probe.times();
}

void PredictSpeed(const StepTimes& times, double disk_bytes_per_s, MemoryPlan& plan) {
  const auto disk = [&](uint64_t bytes) {
    return disk_bytes_per_s <= 0 ? 0 : static_cast<double>(bytes) / disk_bytes_per_s;
  };
  const double empty = times.decode_s - (1 - plan.head_share) * times.head_s;
  const auto decode_tps = [&](uint64_t kv_bytes) {
    const double seconds = empty + times.decode_per_kv_byte * static_cast<double>(kv_bytes);
    return 1 / std::max({seconds, disk(plan.disk_bytes_per_token), 1e-9});
  };
  plan.predicted.decode_tps = decode_tps(plan.kv_bytes_per_token_mean);
  plan.predicted.decode_tps_at_start = decode_tps(0);
  plan.predicted.decode_tps_at_context = decode_tps(plan.kv_bytes_per_token_at_context);
  const double passes = std::ceil(static_cast<double>(times.prompt_tokens) / plan.chunk);
  plan.predicted.prompt_tokens = times.prompt_tokens;
  plan.predicted.prefill_tps =
      times.prompt_tokens /
      std::max({times.prompt_s, passes * disk(plan.disk_bytes_per_chunk), 1e-9});
}

namespace {

// A ring for parts of `total` bytes, of which the largest has `largest`.
Result<Buffer> MakeRing(uint64_t largest, uint64_t total, Ledger& ledger, ThreadPool& pool) {
  const uint64_t bytes = std::max(largest, std::min(total, kRing));
  SNUG_ASSIGN(Buffer ring, Buffer::Allocate(ledger, Owner::kWeights, bytes, Pages::kHuge,
                                            "weights for measuring"));
  pool.For(ring.size() / kFillTask, [&](size_t task, int) {
    std::memset(ring.data() + task * kFillTask, kFill, kFillTask);
  });
  return ring;
}

}  // namespace

Result<std::unique_ptr<WeightPlace>> MakeProbePlace(const WeightLayout& layout, Ledger& ledger,
                                                    ThreadPool& pool) {
  uint64_t largest = 0;
  for (const Part& part : layout.parts) largest = std::max<uint64_t>(largest, part.bytes);
  SNUG_ASSIGN(Buffer ring, MakeRing(largest, layout.total_bytes(), ledger, pool));
  return std::unique_ptr<WeightPlace>(std::make_unique<ProbePlace>(layout, std::move(ring)));
}

Result<std::unique_ptr<ExpertPlace>> MakeProbeExperts(const WeightLayout& layout, Ledger& ledger,
                                                      ThreadPool& pool) {
  SNUG_ASSIGN(Buffer ring,
              MakeRing(layout.max_expert_bytes(), layout.expert_bytes(), ledger, pool));
  return std::unique_ptr<ExpertPlace>(std::make_unique<ProbeExperts>(layout, std::move(ring)));
}

}  // namespace snug
