#include "weights/experts.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

#include "base/clock.h"

namespace snug {
namespace {

// Weight of the newest observation in running averages.
constexpr double kNewest = 1.0 / 16;

void Average(double value, double* average) { *average += (value - *average) * kNewest; }

// Bounce buffers that take each tensor of an expert at once, where that is not too much.
uint64_t BounceBytes(const WeightLayout& layout) {
  uint64_t bytes = 0;
  for (const Part& part : layout.experts) bytes = std::max(bytes, BounceBytesOf(part));
  return std::min(bytes, kStreamBounceBytes);
}

class ResidentExperts final : public ExpertPlace {
 public:
  Status Load(const ModelFile& file, const WeightLayout& layout, Ledger& ledger, ThreadPool& pool,
              const LoadProgress& progress) {
    SNUG_ASSIGN(arena_, Buffer::Allocate(ledger, Owner::kWeights, layout.expert_bytes(),
                                         Pages::kHuge, "experts"));
    std::vector<LoadTarget> targets;
    uint8_t* at = arena_.data();
    for (const Part& part : layout.experts) {
      first_.push_back(at);
      bytes_.push_back(part.bytes);
      for (uint32_t e = 0; e < layout.expert_count && part.bytes != 0; ++e, at += part.bytes) {
        targets.push_back({&part, e, at});
      }
    }
    SNUG_ASSIGN(stats_.bytes_read, LoadParts(file, targets, ledger, pool, progress));
    return {};
  }

  void Announce(uint32_t, std::span<const uint32_t> experts) override {
    stats_.lookups += experts.size();
  }
  void Expect(uint32_t, std::span<const uint32_t>) override {}
  bool Ready(uint32_t, uint32_t) const override { return true; }
  Result<const uint8_t*> Acquire(uint32_t layer, uint32_t expert) override {
    return first_[layer] + expert * bytes_[layer];
  }
  void Release(uint32_t, uint32_t) override {}
  ExpertStats stats() const override { return stats_; }
  uint32_t slots() const override { return 0; }

 private:
  Buffer arena_;
  std::vector<const uint8_t*> first_;  // [layers]
  std::vector<size_t> bytes_;          // [layers]
  ExpertStats stats_;
};

class ExpertCache final : public ExpertPlace {
 public:
  ExpertCache(const WeightLayout& layout, const ExpertCacheOptions& options)
      : layout_(layout), options_(options), count_(layout.expert_count) {}
  ~ExpertCache() override;
  Status Start(const ModelFile& file, Ledger& ledger);

  void Announce(uint32_t layer, std::span<const uint32_t> experts) override;
  void Expect(uint32_t layer, std::span<const uint32_t> experts) override;
  bool Ready(uint32_t layer, uint32_t expert) const override;
  Result<const uint8_t*> Acquire(uint32_t layer, uint32_t expert) override;
  void Release(uint32_t layer, uint32_t expert) override;
  ExpertStats stats() const override;
  uint32_t slots() const override { return options_.slots; }

 private:
  enum class State : uint8_t { kAbsent, kLoading, kReady };
  struct Entry {
    State state = State::kAbsent;
    bool pending = false;  // announced, not yet acquired
    bool guessed = false;  // loaded, or being so, ahead of the asking
    uint32_t slot = 0;
    double use = 0;  // running share of passes that asked for it
  };
  struct Slot {
    std::optional<uint32_t> id;
    uint32_t users = 0;
    uint8_t* data = nullptr;
  };
  using Lock = std::unique_lock<std::mutex>;

  uint32_t Id(uint32_t layer, uint32_t expert) const { return layer * count_ + expert; }
  double NextUse(uint32_t id) const;
  Slot* FindSlot(uint32_t id, bool wanted);
  bool Pays() const;
  std::optional<uint32_t> NextId();
  std::optional<PartLoader::Job> NextJob();
  void Loaded(uint32_t id, uint64_t bytes_read);
  void Fail(Error error);

  const WeightLayout& layout_;
  const ExpertCacheOptions options_;
  const uint32_t count_;
  std::vector<std::vector<PartPiece>> pieces_;  // [layers]
  Buffer arena_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // any of what follows
  std::vector<Entry> entries_;       // [layers * count]
  std::vector<Slot> slots_;
  uint32_t layer_ = 0;                      // announced last
  std::vector<uint32_t> wanted_;            // ids to load for the current layer, descending
  std::vector<uint32_t> expected_;          // ids guessed for the next layer, likeliest first
  size_t next_expected_ = 0;                // of them, the next to load
  size_t guessed_loads_ = 0;                // of them, those that were loaded
  std::optional<uint32_t> expected_layer_;  // while a guess waits for its layer
  double accuracy_ = 0;                     // share of guesses that came true
  double gap_s_ = 0;                        // disk idle between the wants of two layers
  double load_s_ = 0;                       // of one expert
  Clock::time_point expected_at_,
      loaded_at_;                 // of the last guess; of the last load that was wanted
  Clock::time_point started_at_;  // of the current load
  std::optional<Error> error_;
  bool stop_ = false;
  ExpertStats stats_;
  PartLoader loader_;
};

ExpertCache::~ExpertCache() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  loader_.Stop();
}

Status ExpertCache::Start(const ModelFile& file, Ledger& ledger) {
  const uint64_t slot = layout_.max_expert_bytes();
  SNUG_ASSIGN(arena_, Buffer::Allocate(ledger, Owner::kWeights, slot * options_.slots, Pages::kHuge,
                                       "expert cache"));
  SNUG_TRY(loader_.Open(file, ledger, BounceBytes(layout_)));
  for (const Part& part : layout_.experts) {
    pieces_.push_back(SplitPart(part, BounceBytes(layout_)));
  }
  entries_.resize(layout_.experts.size() * count_);
  wanted_.reserve(count_);
  expected_.reserve(count_);
  slots_.resize(options_.slots);
  for (size_t i = 0; i < slots_.size(); ++i) slots_[i].data = arena_.data() + i * slot;
  loader_.Start({[this] { return NextJob(); },
                 [this](size_t id) {
                   const std::lock_guard lock(mutex_);
                   return slots_[entries_[id].slot].data;
                 },
                 [this](size_t id, uint64_t read) { Loaded(static_cast<uint32_t>(id), read); },
                 [this](Error error) { Fail(std::move(error)); }, options_.delay});
  return {};
}

void ExpertCache::Fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  changed_.notify_all();
}

// Expected layers until an entry is next asked for: up to its layer, then around the model as often
// as its share of use says. The entry for which this is the longest is the one to drop (Belady
// 1966, with an estimate for the future).
double ExpertCache::NextUse(uint32_t id) const {
  const double layers = static_cast<double>(layout_.experts.size());
  const uint32_t layer = id / count_;
  const double distance = layer > layer_ ? layer - layer_ : layer + layers - layer_;
  const double use = std::max(entries_[id].use, 1e-3);
  return distance + layers * (1 - use) / use;
}

// A slot for `id`, or null while none can be had: a free one, or that of the entry least likely to
// be missed. For a guess, one that will be missed later than the guess itself; for a wanted expert,
// in need, one that the current layer asks for later than for this.
ExpertCache::Slot* ExpertCache::FindSlot(uint32_t id, bool wanted) {
  Slot* best = nullptr;
  double best_use = wanted ? -1 : NextUse(id);
  Slot* later = nullptr;
  for (Slot& s : slots_) {
    if (!s.id) return &s;
    const Entry& e = entries_[*s.id];
    if (s.users > 0 || e.state != State::kReady) continue;
    if (e.pending) {
      if (*s.id > id && (later == nullptr || *s.id > *later->id)) later = &s;
    } else if (const double use = NextUse(*s.id); use > best_use) {
      best_use = use;
      best = &s;
    }
  }
  return best == nullptr && wanted ? later : best;
}

// Whether one more guess is worth its load: what a right guess saves, the disk's idle time, against
// how long a wrong one keeps a wanted load waiting.
bool ExpertCache::Pays() const {
  if (options_.prefetch == ExpertCacheOptions::Prefetch::kAlways) return true;
  if (options_.prefetch == ExpertCacheOptions::Prefetch::kNever) return false;
  const double idle = gap_s_ - static_cast<double>(guessed_loads_) * load_s_;
  return accuracy_ * std::min(idle, load_s_) > (1 - accuracy_) * std::max(load_s_ - idle, 0.0);
}

// Takes the slot for the next load and returns its id, or nothing while there is none to do.
std::optional<uint32_t> ExpertCache::NextId() {
  std::optional<uint32_t> id;
  Slot* slot = nullptr;
  const bool wanted = !wanted_.empty();
  if (wanted) {
    slot = FindSlot(wanted_.back(), true);
    if (slot == nullptr) return std::nullopt;
    id = wanted_.back();
    wanted_.pop_back();
  }
  while (!id && next_expected_ < expected_.size()) {
    const uint32_t guess = expected_[next_expected_];
    if (entries_[guess].state == State::kAbsent && Pays()) {
      slot = FindSlot(guess, false);
      if (slot != nullptr) id = guess;
    }
    ++next_expected_;
    if (id) ++guessed_loads_;
  }
  if (!id) return std::nullopt;
  if (slot->id) {
    Entry& dropped = entries_[*slot->id];
    dropped.state = State::kAbsent;
    if (dropped.pending) {
      const auto at = std::lower_bound(wanted_.begin(), wanted_.end(), *slot->id, std::greater<>());
      wanted_.insert(at, *slot->id);
    }
  }
  slot->id = id;
  Entry& entry = entries_[*id];
  entry.state = State::kLoading;
  entry.guessed = !wanted;
  entry.slot = static_cast<uint32_t>(slot - slots_.data());
  started_at_ = Clock::now();
  return id;
}

std::optional<PartLoader::Job> ExpertCache::NextJob() {
  Lock lock(mutex_);
  for (;;) {
    if (stop_ || error_) return std::nullopt;
    if (const auto id = NextId()) {
      const uint32_t layer = *id / count_;
      return PartLoader::Job{*id, &layout_.experts[layer], pieces_[layer], *id % count_};
    }
    changed_.wait(lock);
  }
}

void ExpertCache::Loaded(uint32_t id, uint64_t bytes_read) {
  {
    const std::lock_guard lock(mutex_);
    entries_[id].state = State::kReady;
    ++(entries_[id].guessed ? stats_.prefetches : stats_.misses);
    stats_.bytes_loaded += layout_.experts[id / count_].file_bytes;
    stats_.bytes_read += bytes_read;
    const auto now = Clock::now();
    Average(std::chrono::duration<double>(now - started_at_).count(), &load_s_);
    if (entries_[id].pending) loaded_at_ = now;
  }
  changed_.notify_all();
}

void ExpertCache::Announce(uint32_t layer, std::span<const uint32_t> experts) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    layer_ = layer;
    stats_.lookups += experts.size();
    for (uint32_t e = 0; e < count_; ++e) {
      const bool used = std::binary_search(experts.begin(), experts.end(), e);
      Average(used ? 1 : 0, &entries_[Id(layer, e)].use);
    }
    if (expected_layer_ == layer) {
      for (const uint32_t id : expected_) {
        Average(std::binary_search(experts.begin(), experts.end(), id % count_) ? 1 : 0,
                &accuracy_);
      }
      const auto idle_since = std::max(expected_at_, loaded_at_);
      Average(SecondsSince(idle_since), &gap_s_);
    }
    expected_layer_.reset();
    expected_.clear();
    next_expected_ = guessed_loads_ = 0;
    assert(wanted_.empty());
    for (auto e = experts.rbegin(); e != experts.rend(); ++e) {
      Entry& entry = entries_[Id(layer, *e)];
      entry.pending = true;
      if (entry.state == State::kAbsent) wanted_.push_back(Id(layer, *e));
    }
  }
  changed_.notify_all();
}

void ExpertCache::Expect(uint32_t layer, std::span<const uint32_t> experts) {
  {
    const std::lock_guard lock(mutex_);
    expected_layer_ = layer;
    expected_.clear();
    for (const uint32_t e : experts) expected_.push_back(Id(layer, e));
    next_expected_ = guessed_loads_ = 0;
    expected_at_ = Clock::now();
  }
  changed_.notify_all();
}

bool ExpertCache::Ready(uint32_t layer, uint32_t expert) const {
  const std::lock_guard lock(mutex_);
  return entries_[Id(layer, expert)].state == State::kReady;
}

Result<const uint8_t*> ExpertCache::Acquire(uint32_t layer, uint32_t expert) {
  const auto start = Clock::now();
  Lock lock(mutex_);
  Entry& entry = entries_[Id(layer, expert)];
  assert(error_ || entry.pending);
  changed_.wait(lock, [&] { return error_ || entry.state == State::kReady; });
  stats_.wait_ns += static_cast<uint64_t>((Clock::now() - start) / std::chrono::nanoseconds(1));
  if (error_) return *error_;
  entry.pending = false;
  Slot& slot = slots_[entry.slot];
  ++slot.users;
  return static_cast<const uint8_t*>(slot.data);
}

void ExpertCache::Release(uint32_t layer, uint32_t expert) {
  {
    const std::lock_guard lock(mutex_);
    --slots_[entries_[Id(layer, expert)].slot].users;
  }
  changed_.notify_all();
}

ExpertStats ExpertCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace

ExpertStats operator-(const ExpertStats& later, const ExpertStats& earlier) {
  return {later.lookups - earlier.lookups,       later.misses - earlier.misses,
          later.prefetches - earlier.prefetches, later.bytes_loaded - earlier.bytes_loaded,
          later.bytes_read - earlier.bytes_read, later.wait_ns - earlier.wait_ns};
}

Result<std::unique_ptr<ExpertPlace>> MakeResidentExperts(const ModelFile& file,
                                                         const WeightLayout& layout, Ledger& ledger,
                                                         ThreadPool& pool,
                                                         const LoadProgress& progress) {
  auto place = std::make_unique<ResidentExperts>();
  SNUG_TRY(place->Load(file, layout, ledger, pool, progress));
  return std::unique_ptr<ExpertPlace>(std::move(place));
}

uint64_t ResidentExpertBytes(const WeightLayout& layout) {
  return Buffer::Reserved(layout.expert_bytes(), Pages::kHuge);
}

Result<std::unique_ptr<ExpertPlace>> MakeExpertCache(const ModelFile& file,
                                                     const WeightLayout& layout, Ledger& ledger,
                                                     const ExpertCacheOptions& options) {
  if (options.slots < 1) {
    return MakeError(Code::kUsage, "an expert cache of no slots is impossible", "give 1 or more");
  }
  auto place = std::make_unique<ExpertCache>(layout, options);
  SNUG_TRY(place->Start(file, ledger));
  return std::unique_ptr<ExpertPlace>(std::move(place));
}

uint64_t ExpertCacheBytes(const WeightLayout& layout, uint32_t slots) {
  return Buffer::Reserved(layout.max_expert_bytes() * slots, Pages::kHuge);
}

uint64_t ExpertIoBytes(const WeightLayout& layout) {
  return PartLoader::IoBytes(BounceBytes(layout));
}

uint32_t TotalExperts(const WeightLayout& layout) {
  uint32_t layers = 0;
  for (const Part& p : layout.experts) layers += p.bytes != 0 ? 1 : 0;
  return layers * layout.expert_count;
}

uint32_t ExpertSlotsWithin(const WeightLayout& layout, uint64_t bytes) {
  const uint64_t io = ExpertIoBytes(layout), expert = layout.max_expert_bytes();
  if (bytes <= io || expert == 0) return 0;
  auto slots =
      static_cast<uint32_t>(std::min<uint64_t>(TotalExperts(layout), (bytes - io) / expert));
  while (slots > 0 && ExpertCacheBytes(layout, slots) > bytes - io) --slots;
  return slots;
}

}  // namespace snug
