#include "kv/states.h"

#include <algorithm>
#include <cassert>

namespace snug {

namespace {

// More than any machine has, and little enough for sums of it: what states of absurd size take.
constexpr uint64_t kMaxSlots = uint64_t{1} << 16;

// Layers begin on cache lines.
uint64_t Align(uint64_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace

uint64_t StateLayout::slot_floats() const {
  uint64_t sum = 0;
  for (uint64_t n : floats) sum += Align(n);
  return sum;
}

uint64_t StateStore::PoolBytes(const StateLayout& layout) {
  const uint64_t slots = layout.slots();
  if (slots > kMaxSlots || layout.slot_bytes() * slots > kMaxPoolBytes) return kMaxPoolBytes;
  return Buffer::Reserved(layout.slot_bytes() * slots, Pages::kNormal);
}

Result<StateStore> StateStore::Create(const StateLayout& layout, Ledger& ledger) {
  StateStore store;
  store.layout_ = layout;
  for (uint64_t n : layout.floats) {
    store.offsets_.push_back(store.slot_floats_);
    store.slot_floats_ += Align(n);
  }
  if (store.empty()) return store;
  SNUG_ASSIGN(store.pool_,
              Buffer::Allocate(ledger, Owner::kKv, PoolBytes(layout), Pages::kNormal, "states"));
  const auto slots = static_cast<uint32_t>(layout.slots());
  store.uses_.assign(slots, 0);
  store.free_.resize(slots);
  for (uint32_t i = 0; i < slots; ++i) store.free_[i] = slots - 1 - i;
  store.sequences_.resize(layout.sequences);
  for (Sequence& s : store.sequences_) s.kept.reserve(layout.snapshots);
  return store;
}

uint32_t StateStore::Take() {
  assert(!free_.empty());
  const uint32_t slot = free_.back();
  free_.pop_back();
  uses_[slot] = 1;
  return slot;
}

void StateStore::Drop(uint32_t slot) {
  if (slot != kNone && --uses_[slot] == 0) free_.push_back(slot);
}

const float* StateStore::committed(uint32_t sequence, uint32_t layer) const {
  const uint32_t slot = sequences_[sequence].current;
  if (slot == kNone) return nullptr;
  return reinterpret_cast<const float*>(pool_.data()) + slot * slot_floats_ + offsets_[layer];
}

float* StateStore::next(uint32_t sequence, uint32_t layer) {
  return pool_.as<float>() + sequences_[sequence].next * slot_floats_ + offsets_[layer];
}

void StateStore::Extend(uint32_t sequence) {
  if (empty()) return;
  uint32_t& next = sequences_[sequence].next;
  if (next == kNone) next = Take();
}

// Ends the use of the current state: as a snapshot, where the policy keeps it.
void StateStore::Keep(Sequence& s) {
  std::vector<Kept>& kept = s.kept;
  if (layout_.snapshots == 0 || s.current == kNone ||
      (!kept.empty() && kept.back().position == s.length)) {
    return Drop(s.current);
  }
  if (kept.size() == layout_.snapshots) {
    size_t victim = 0;
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < kept.size(); ++i) {
      const uint32_t before = i == 0 ? 0 : kept[i - 1].position;
      const uint32_t after = i + 1 == kept.size() ? s.length : kept[i + 1].position;
      if (after - before < least) {
        least = after - before;
        victim = i;
      }
    }
    Drop(kept[victim].slot);
    kept.erase(kept.begin() + static_cast<ptrdiff_t>(victim));
  }
  kept.push_back({s.length, s.current});
}

void StateStore::Commit(uint32_t sequence, uint32_t n) {
  if (empty()) return;
  Sequence& s = sequences_[sequence];
  assert(s.next != kNone);
  if (n > 1 || s.last_step > 1 || s.length % kSnapshotEvery == 0) {
    Keep(s);
  } else {
    Drop(s.current);
  }
  s.current = s.next;
  s.next = kNone;
  s.length += n;
  s.last_step = n;
}

uint32_t StateStore::Held(uint32_t sequence, uint32_t length) const {
  if (empty()) return length;
  const Sequence& s = sequences_[sequence];
  if (length >= s.length) return s.length;
  for (size_t i = s.kept.size(); i-- > 0;) {
    if (s.kept[i].position <= length) return s.kept[i].position;
  }
  return 0;
}

void StateStore::Restore(uint32_t sequence, uint32_t position) {
  if (empty()) return;
  Sequence& s = sequences_[sequence];
  if (position == s.length) return;
  Drop(s.current);
  s.current = kNone;
  while (!s.kept.empty() && s.kept.back().position > position) {
    Drop(s.kept.back().slot);
    s.kept.pop_back();
  }
  if (position > 0) {
    assert(!s.kept.empty() && s.kept.back().position == position);
    s.current = s.kept.back().slot;
    ++uses_[s.current];
  }
  s.length = position;
  s.last_step = 0;
}

void StateStore::Share(uint32_t from, uint32_t to, uint32_t position) {
  if (empty() || position == 0) return;
  const Sequence& source = sequences_[from];
  Sequence& s = sequences_[to];
  assert(from != to && s.length == 0 && s.current == kNone && s.kept.empty());
  for (const Kept& k : source.kept) {
    if (k.position > position) break;
    s.kept.push_back(k);
    ++uses_[k.slot];
  }
  s.current = position == source.length ? source.current : s.kept.back().slot;
  ++uses_[s.current];
  s.length = position;
  s.last_step = position == source.length ? source.last_step : 0;
}

uint64_t StateStore::held_bytes() const {
  return (uses_.size() - free_.size()) * layout_.slot_bytes();
}

}  // namespace snug
