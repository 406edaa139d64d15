// The states of recurrent layers (state spaces, delta rule), per sequence. A step reads the state
// as committed and writes the next one beside it, so that a step that fails or is cancelled leaves
// no trace; committed states never change, so that snapshots and sequences share them by count.
//
// A position can be gone back to where a state was kept: the current one, snapshots, and the
// beginning, where every state is zero. A state becomes a snapshot when the sequence moves on from
// it and a step of more than one token ends or begins there (the edges of prefill chunks, the end
// of a prompt, what comes before a speculative batch), or when it lies at a multiple of
// kSnapshotEvery. Of more snapshots than there is room for, the one goes whose loss leaves the
// shortest gap; the newest always stays.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"

namespace snug {

inline constexpr uint32_t kSnapshotEvery = 256;
// What a pool of absurd size is said to take, which no ledger grants.
inline constexpr uint64_t kMaxPoolBytes = uint64_t{1} << 60;

struct StateLayout {
  std::vector<uint64_t> floats;  // [layers]; 0 where a layer keeps none
  uint32_t sequences = 1;
  uint32_t snapshots = 0;  // of each sequence
  uint64_t slot_floats() const;
  uint64_t slot_bytes() const { return slot_floats() * sizeof(float); }
  // The current state of every sequence, the one being written, and snapshots.
  uint64_t slots() const { return slot_floats() == 0 ? 0 : uint64_t{sequences} * (2 + snapshots); }
};

class StateStore {
 public:
  // Reserves all slots (Owner::kKv); they become resident as they are first written.
  static Result<StateStore> Create(const StateLayout& layout, Ledger& ledger);
  static uint64_t PoolBytes(const StateLayout& layout);

  bool empty() const { return slot_floats_ == 0; }
  // The layer's state at the sequence's length; null at the beginning, for zeros.
  const float* committed(uint32_t sequence, uint32_t layer) const;
  // Where a step leaves it, after Extend.
  float* next(uint32_t sequence, uint32_t layer);

  // Makes room for the state after a step.
  void Extend(uint32_t sequence);
  // What was written is the state after `n` more tokens.
  void Commit(uint32_t sequence, uint32_t n);
  // The last position up to `length` at which a state is held: 0 at least.
  uint32_t Held(uint32_t sequence, uint32_t length) const;
  // Goes back to `position`, which is held; what came later is forgotten.
  void Restore(uint32_t sequence, uint32_t position);
  // `to` (cleared) starts from what `from` holds at `position`, and keeps its earlier snapshots.
  void Share(uint32_t from, uint32_t to, uint32_t position);
  void Clear(uint32_t sequence) { Restore(sequence, 0); }
  uint64_t held_bytes() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Kept {
    uint32_t position, slot;
  };
  struct Sequence {
    uint32_t length = 0, last_step = 0;
    uint32_t current = kNone, next = kNone;
    std::vector<Kept> kept;  // by position, at most `snapshots`
  };
  uint32_t Take();
  void Drop(uint32_t slot);
  void Keep(Sequence& s);

  StateLayout layout_;
  uint64_t slot_floats_ = 0;
  std::vector<uint64_t> offsets_;  // [layers] of a slot
  Buffer pool_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> uses_;  // [slots]
  std::vector<Sequence> sequences_;
};

}  // namespace snug
