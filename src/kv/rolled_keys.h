// Positions that roll: where a keep method (keep/keep.h) drops rows, those that stay close up, and
// attention's distances are those within the cache. A text may then go on past what the model was
// trained for, as no distance grows (Xiao et al. 2023, arXiv 2309.17453).
//
// Rotary embedding depends on differences of positions alone, so places are counted back from the
// newest token, which keeps its position in the text: a row's place is its token's position plus
// the number of tokens after it that were dropped. New rows are stored as ever, and where nothing
// after a row has been dropped its key is what it would be without this. Once something has, the
// key as it was stored is turned back to before rotary embedding, kept so in float32, and rotated
// anew from there whenever its place changes: it is rounded twice, however long the text.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "kernel/attention.h"

namespace snug {

// How keys of layers without a window are rotated.
struct KeyRotation {
  uint32_t dim = 0;                // rotated channels of a head, the first ones
  bool interleaved = false;        // as RopeConfig
  std::vector<bool> none;          // [layers] those whose keys are not rotated, or empty
  std::vector<float> frequencies;  // [dim / 2]; sizes need none
};

struct RolledLayout {
  KeyRotation rotation;
  KvType key_type = KvType::kF16;
  uint32_t heads = 0, head_dim = 0, sequences = 1;
  std::vector<uint32_t> slots;  // [layers that drop rows] rows of a head whose places change
  uint32_t most_slots() const;
  uint64_t slot_bytes() const;  // of one row of one head
  uint64_t bytes() const;       // of everything; more than kMaxPoolBytes where that is absurd
};

// Layers are counted among those that drop rows.
class RolledKeys {
 public:
  // Reserves what the layout says (Owner::kKv).
  static Result<RolledKeys> Create(const RolledLayout& layout, Ledger& ledger);
  // Whether keys of the layer are to be rotated anew.
  bool Rolls(uint32_t layer) const { return !layout_.slots.empty() && layout_.slots[layer] != 0; }
  void Clear(uint32_t sequence);
  // `to` becomes what `from` is.
  void Copy(uint32_t from, uint32_t to);

  // Ahead of Turn: places [first, first + slots of the layer) may be asked for.
  void Prepare(uint32_t layer, uint64_t first);
  // Slot `slot` of 64 keys of a head is the key of token `position`: it is rotated for `place`.
  // `kept` is what this keeps of it, kNoSlot at first.
  void Turn(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t position, uint32_t place,
            uint8_t* tile, uint32_t slot, uint32_t* kept);
  // The row whose slot this is was dropped.
  void Free(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t kept);
  uint64_t held_bytes() const;

 private:
  // Slots of one head.
  struct Head {
    float* keys;       // [slots, head_dim] before rotary embedding
    uint32_t* places;  // [slots] that the stored key is rotated for
    uint32_t* free;    // [slots] a stack
    uint32_t* used;
    uint32_t slots;
  };
  Head At(uint32_t sequence, uint32_t layer, uint32_t head) const;
  void Rotate(const float* cos_sin, float* key) const;
  void Angles(uint32_t position, float* cos_sin) const;

  RolledLayout layout_;
  Buffer buffer_;
  std::vector<uint64_t> first_;  // [layers] slots of a sequence's layers before
  uint64_t of_sequence_ = 0;     // slots
  float* keys_ = nullptr;
  uint32_t *places_ = nullptr, *free_ = nullptr, *used_ = nullptr;
  // Cosines and sines of the places at hand, place p at p modulo most_slots().
  float* angles_ = nullptr;
  uint32_t* angle_of_ = nullptr;
};

}  // namespace snug
