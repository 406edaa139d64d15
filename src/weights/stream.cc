#include "weights/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "weights/loader.h"

namespace snug {
namespace {

constexpr uint32_t kDefaultSlots = 2;

uint64_t SlotBytes(const WeightLayout& layout, const std::vector<bool>& pinned) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < layout.parts.size(); ++i) {
    if (!pinned[i]) bytes = std::max<uint64_t>(bytes, layout.parts[i].bytes);
  }
  return bytes;
}

class StreamPlace final : public WeightPlace {
 public:
  StreamPlace(const WeightLayout& layout, const StreamOptions& options)
      : layout_(layout), options_(options), pinned_(PinnedParts(layout, options.pinned)) {}
  ~StreamPlace() override;
  Status Start(const ModelFile& file, Ledger& ledger, const LoadProgress& progress);

  void BeginPass(size_t parts, size_t next_parts) override;
  Result<const uint8_t*> Acquire(size_t part) override;
  void Release(size_t part) override;
  PlaceStats stats() const override;
  bool resident() const override { return false; }

 private:
  enum class State : uint8_t {
    kFree,
    kLoading,
    kReady,
    kInUse,
    kDone
  };  // kDone: waits for its batch of k'
  struct Slot {
    State state = State::kFree;
    size_t part = 0;
    uint8_t* data = nullptr;
  };
  using Lock = std::unique_lock<std::mutex>;

  Status LoadPinned(const LoadProgress& progress);
  PartLoader::Job JobOf(size_t part) const {
    return {part, &layout_.parts[part], pieces_[part], 0};
  }
  std::optional<size_t> NextPart(Lock& lock);
  std::optional<PartLoader::Job> NextJob();
  uint8_t* TakeSlot(size_t part);
  void Loaded(size_t part, uint64_t bytes_read);
  Slot* Find(size_t part, State state);
  bool AllFit() const { return streamed_.size() <= slots_.size(); }
  void Fail(Error error);
  void FreeDone();

  const WeightLayout& layout_;
  const StreamOptions options_;
  const std::vector<bool> pinned_;
  std::vector<size_t> streamed_;                // the streamed parts in order
  std::vector<std::vector<PartPiece>> pieces_;  // [parts]
  std::vector<bool> read_;                      // [parts], read at least once; the reader's own
  Buffer arena_;
  std::vector<uint8_t*> resident_;  // [parts], null where streamed
  std::vector<Slot> slots_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;         // any of what follows
  size_t cursor_ = 0;                       // next of streamed_ to read
  uint64_t pass_ = 0;                       // the consumer's pass, counted from 1
  uint64_t reading_pass_ = 1;               // the pass that cursor_ belongs to
  size_t pass_parts_ = 1, next_parts_ = 0;  // parts of the consumer's pass, and of the one after it
  std::optional<Error> error_;
  bool stop_ = false;
  PlaceStats stats_;
  PartLoader loader_;
};

StreamPlace::~StreamPlace() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  loader_.Stop();
}

Status StreamPlace::Start(const ModelFile& file, Ledger& ledger, const LoadProgress& progress) {
  SNUG_ASSIGN(arena_,
              Buffer::Allocate(ledger, Owner::kWeights, StreamWeightBytes(layout_, options_),
                               Pages::kHuge, "pinned weights and slots"));
  SNUG_TRY(loader_.Open(file, ledger, kStreamBounceBytes));
  resident_.assign(layout_.parts.size(), nullptr);
  read_.assign(layout_.parts.size(), false);
  uint8_t* at = arena_.data();
  for (size_t i = 0; i < layout_.parts.size(); ++i) {
    pieces_.push_back(SplitPart(layout_.parts[i], kStreamBounceBytes));
    if (pinned_[i]) {
      resident_[i] = at;
      at += layout_.parts[i].bytes;
      stats_.pinned_bytes += layout_.parts[i].bytes;
    } else {
      streamed_.push_back(i);
    }
  }
  const uint64_t slot = SlotBytes(layout_, pinned_);
  slots_.resize(options_.slots);
  for (Slot& s : slots_) {
    s.data = at;
    at += slot;
  }
  stats_.slot_bytes = slot * slots_.size();
  SNUG_TRY(LoadPinned(progress));
  if (streamed_.empty()) return {};
  loader_.Start({[this] { return NextJob(); }, [this](size_t part) { return TakeSlot(part); },
                 [this](size_t part, uint64_t read) { Loaded(part, read); },
                 [this](Error error) { Fail(std::move(error)); }, options_.delay});
  return {};
}

Status StreamPlace::LoadPinned(const LoadProgress& progress) {
  uint64_t total = 0;
  for (size_t i = 0; i < layout_.parts.size(); ++i)
    total += pinned_[i] ? layout_.parts[i].file_bytes : 0;
  for (size_t i = 0; i < layout_.parts.size(); ++i) {
    if (!pinned_[i]) continue;
    SNUG_TRY(loader_.Load(JobOf(i), resident_[i], &stats_.bytes_read, [&] {
      // Direct reads bring a little more than the parts.
      const uint64_t done = std::min(stats_.bytes_read, total);
      return !progress || progress(done, total) ? Status{} : LoadCancelled(done, total);
    }));
    ++stats_.loads;
  }
  return {};
}

void StreamPlace::Fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  changed_.notify_all();
}

StreamPlace::Slot* StreamPlace::Find(size_t part, State state) {
  for (Slot& s : slots_) {
    if (s.state == state && (state == State::kFree || s.part == part)) return &s;
  }
  return nullptr;
}

// The next part to read, waiting until one is due: the rest of the consumer's pass, then the layers
// of the next.
std::optional<size_t> StreamPlace::NextPart(Lock& lock) {
  for (;;) {
    if (stop_ || error_) return std::nullopt;
    // The consumer may have begun the next pass before the reader saw the end of its own.
    if (reading_pass_ < pass_) {
      reading_pass_ = pass_;
      cursor_ = 0;
    }
    const bool ahead = reading_pass_ > pass_;
    const size_t parts = ahead ? std::min(next_parts_, layout_.first_head) : pass_parts_;
    if (cursor_ < streamed_.size() && streamed_[cursor_] < parts) return streamed_[cursor_++];
    if (!ahead) {
      cursor_ = 0;
      ++reading_pass_;
      continue;
    }
    changed_.wait(lock);
  }
}

std::optional<PartLoader::Job> StreamPlace::NextJob() {
  for (;;) {
    std::optional<size_t> part;
    {
      Lock lock(mutex_);
      part = NextPart(lock);
    }
    if (!part) return std::nullopt;
    // Where every part has its slot, one load of each serves all passes.
    if (AllFit() && read_[*part]) continue;
    read_[*part] = true;
    return JobOf(*part);
  }
}

uint8_t* StreamPlace::TakeSlot(size_t part) {
  Lock lock(mutex_);
  Slot* slot = nullptr;
  changed_.wait(lock, [&] { return stop_ || error_ || (slot = Find(0, State::kFree)) != nullptr; });
  if (stop_ || error_) return nullptr;
  slot->state = State::kLoading;
  slot->part = part;
  uint32_t used = 0;
  for (const Slot& s : slots_) used += s.state != State::kFree ? 1 : 0;
  stats_.peak_slots = std::max(stats_.peak_slots, used);
  return slot->data;
}

void StreamPlace::Loaded(size_t part, uint64_t bytes_read) {
  {
    const std::lock_guard lock(mutex_);
    Find(part, State::kLoading)->state = State::kReady;
    ++stats_.loads;
    stats_.bytes_read += bytes_read;
  }
  changed_.notify_all();
}

void StreamPlace::BeginPass(size_t parts, size_t next_parts) {
  {
    const std::lock_guard lock(mutex_);
    FreeDone();
    pass_parts_ = parts;
    next_parts_ = next_parts;
    ++pass_;
  }
  changed_.notify_all();
}

Result<const uint8_t*> StreamPlace::Acquire(size_t part) {
  if (resident_[part] != nullptr) return resident_[part];
  const auto start = std::chrono::steady_clock::now();
  Lock lock(mutex_);
  Slot* slot = nullptr;
  changed_.wait(lock, [&] { return error_ || (slot = Find(part, State::kReady)) != nullptr; });
  stats_.wait_ns += static_cast<uint64_t>((std::chrono::steady_clock::now() - start) /
                                          std::chrono::nanoseconds(1));
  if (slot == nullptr) return *error_;
  slot->state = State::kInUse;
  return static_cast<const uint8_t*>(slot->data);
}

void StreamPlace::FreeDone() {
  for (Slot& s : slots_) {
    if (s.state == State::kDone) s.state = State::kFree;
  }
}

void StreamPlace::Release(size_t part) {
  if (resident_[part] != nullptr) return;
  {
    const std::lock_guard lock(mutex_);
    Slot* slot = Find(part, State::kInUse);
    assert(slot != nullptr);
    slot->state = AllFit() ? State::kReady : State::kDone;
    const auto done = std::count_if(slots_.begin(), slots_.end(),
                                    [](const Slot& s) { return s.state == State::kDone; });
    // The last part of a pass returns what is left, however few.
    const bool last =
        part == *std::prev(std::lower_bound(streamed_.begin(), streamed_.end(), pass_parts_));
    if (done >= options_.return_batch || last) FreeDone();
  }
  changed_.notify_all();
}

PlaceStats StreamPlace::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace

std::vector<bool> PinnedParts(const WeightLayout& layout, uint32_t pinned) {
  const size_t n = layout.parts.size() - 1;
  std::vector<bool> is(layout.parts.size(), false);
  is[0] = true;
  const uint64_t streamed = n - std::min<size_t>(pinned, n);
  for (size_t i = 0; i < n; ++i) is[1 + i] = (i + 1) * streamed / n == i * streamed / n;
  return is;
}

uint64_t StreamWeightBytes(const WeightLayout& layout, const StreamOptions& options) {
  const std::vector<bool> pinned = PinnedParts(layout, options.pinned);
  uint64_t bytes = SlotBytes(layout, pinned) * options.slots;
  for (size_t i = 0; i < layout.parts.size(); ++i) bytes += pinned[i] ? layout.parts[i].bytes : 0;
  return Buffer::Reserved(bytes, Pages::kHuge);
}

uint64_t StreamIoBytes() { return PartLoader::IoBytes(kStreamBounceBytes); }

uint64_t StreamPassBytes(const WeightLayout& layout, const StreamOptions& options) {
  const std::vector<bool> pinned = PinnedParts(layout, options.pinned);
  uint64_t bytes = 0;
  for (size_t i = 0; i < layout.parts.size(); ++i)
    bytes += pinned[i] ? 0 : layout.parts[i].file_bytes;
  return bytes;
}

Result<std::unique_ptr<WeightPlace>> MakeStreamPlace(const ModelFile& file,
                                                     const WeightLayout& layout, Ledger& ledger,
                                                     const StreamOptions& options,
                                                     const LoadProgress& progress) {
  const size_t parts = layout.parts.size() - 1;
  if (options.slots < 1 || options.slots > parts || options.return_batch < 1 ||
      options.return_batch > options.slots) {
    return MakeError(Code::kUsage,
                     fmt::format("stream:slots={},return={} is impossible for {} parts",
                                 options.slots, options.return_batch, parts),
                     "give 1 <= return <= slots <= parts");
  }
  auto place = std::make_unique<StreamPlace>(layout, options);
  SNUG_TRY(place->Start(file, ledger, progress));
  return std::unique_ptr<WeightPlace>(std::move(place));
}

StreamChoice ChooseStream(const WeightLayout& layout, const StreamOptions& wanted, uint64_t bytes) {
  StreamChoice c;
  c.options = wanted;
  const auto parts = static_cast<uint32_t>(layout.parts.size() - 1);
  if (c.options.slots == 0) c.options.slots = std::min(kDefaultSlots, parts);
  c.io_bytes = StreamIoBytes();
  c.options.pinned = 0;
  // Slots shrink when the largest parts are pinned, so more pinned parts need not take more: try
  // all counts.
  for (uint32_t pinned = 1; pinned + c.options.slots < parts; ++pinned) {
    StreamOptions o = c.options;
    o.pinned = pinned;
    if (StreamWeightBytes(layout, o) + c.io_bytes <= bytes) c.options.pinned = pinned;
  }
  c.weight_bytes = StreamWeightBytes(layout, c.options);
  c.pass_bytes = StreamPassBytes(layout, c.options);
  return c;
}

}  // namespace snug
