#include "kv/rolled_keys.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "kernel/ops.h"
#include "kv/kept_rows.h"
#include "kv/states.h"

namespace snug {
namespace {

constexpr uint32_t kNoPlace = UINT32_MAX;

}  // namespace

uint32_t RolledLayout::most_slots() const {
  return slots.empty() ? 0 : *std::max_element(slots.begin(), slots.end());
}

uint64_t RolledLayout::slot_bytes() const {
  return head_dim * sizeof(float) + 2 * sizeof(uint32_t);  // key, place and an entry of the stack
}

uint64_t RolledLayout::bytes() const {
  uint64_t sum = 0;
  for (const uint32_t n : slots) sum += n;
  if (sum == 0) return 0;
  const uint64_t lists = uint64_t{sequences} * heads;
  if (static_cast<double>(lists) * static_cast<double>(sum) * static_cast<double>(slot_bytes()) >
      static_cast<double>(kMaxPoolBytes)) {
    return kMaxPoolBytes + 1;
  }
  const uint64_t angles = most_slots() * (rotation.dim * sizeof(float) + sizeof(uint32_t));
  return lists * (sum * slot_bytes() + slots.size() * sizeof(uint32_t)) + angles;
}

Result<RolledKeys> RolledKeys::Create(const RolledLayout& layout, Ledger& ledger) {
  RolledKeys r;
  r.layout_ = layout;
  if (layout.bytes() == 0) return r;
  assert(layout.rotation.frequencies.size() == layout.rotation.dim / 2);
  SNUG_ASSIGN(r.buffer_, Buffer::Allocate(ledger, Owner::kKv, layout.bytes(), Pages::kNormal,
                                          "keys before rotary embedding"));
  for (const uint32_t n : layout.slots) {
    r.first_.push_back(r.of_sequence_);
    r.of_sequence_ += uint64_t{n} * layout.heads;
  }
  const uint64_t slots = layout.sequences * r.of_sequence_;
  r.keys_ = r.buffer_.as<float>();
  r.angles_ = r.keys_ + slots * layout.head_dim;
  const uint32_t most = layout.most_slots();
  r.places_ = reinterpret_cast<uint32_t*>(r.angles_ + uint64_t{most} * layout.rotation.dim);
  r.free_ = r.places_ + slots;
  r.angle_of_ = r.free_ + slots;
  r.used_ = r.angle_of_ + most;
  std::fill_n(r.angle_of_, most, kNoPlace);
  for (uint32_t s = 0; s < layout.sequences; ++s) r.Clear(s);
  return r;
}

RolledKeys::Head RolledKeys::At(uint32_t sequence, uint32_t layer, uint32_t head) const {
  const uint32_t n = layout_.slots[layer];
  const uint64_t first = sequence * of_sequence_ + first_[layer] + uint64_t{head} * n;
  const size_t list = (size_t{sequence} * layout_.slots.size() + layer) * layout_.heads + head;
  return {keys_ + first * layout_.head_dim, places_ + first, free_ + first, used_ + list, n};
}

void RolledKeys::Clear(uint32_t sequence) {
  if (buffer_.data() == nullptr) return;
  for (uint32_t l = 0; l < layout_.slots.size(); ++l) {
    for (uint32_t h = 0; h < layout_.heads; ++h) {
      const Head at = At(sequence, l, h);
      for (uint32_t i = 0; i < at.slots; ++i) at.free[i] = at.slots - 1 - i;
      *at.used = 0;
    }
  }
}

void RolledKeys::Copy(uint32_t from, uint32_t to) {
  if (buffer_.data() == nullptr) return;
  const auto copy = [&](auto* all, uint64_t of_sequence) {
    std::copy_n(all + from * of_sequence, of_sequence, all + to * of_sequence);
  };
  copy(keys_, of_sequence_ * layout_.head_dim);
  copy(places_, of_sequence_);
  copy(free_, of_sequence_);
  copy(used_, layout_.slots.size() * layout_.heads);
}

void RolledKeys::Angles(uint32_t position, float* cos_sin) const {
  const std::vector<float>& f = layout_.rotation.frequencies;
  for (size_t i = 0; i < f.size(); ++i) {
    const double angle = double{f[i]} * position;
    cos_sin[i] = static_cast<float>(std::cos(angle));
    cos_sin[f.size() + i] = static_cast<float>(std::sin(angle));
  }
}

void RolledKeys::Prepare(uint32_t layer, uint64_t first) {
  const uint32_t most = layout_.most_slots();
  for (uint64_t p = first; p < first + layout_.slots[layer]; ++p) {
    const auto place = static_cast<uint32_t>(p);
    if (angle_of_[place % most] == place) continue;
    angle_of_[place % most] = place;
    Angles(place, angles_ + size_t{place % most} * layout_.rotation.dim);
  }
}

void RolledKeys::Rotate(const float* cos_sin, float* key) const {
  const KeyRotation& r = layout_.rotation;
  (r.interleaved ? RopeInterleaved : RopeNeox)(cos_sin, r.dim, key);
}

void RolledKeys::Turn(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t position,
                      uint32_t place, uint8_t* tile, uint32_t slot, uint32_t* kept) {
  const Head at = At(sequence, layer, head);
  const uint32_t dim = layout_.head_dim;
  if (*kept == kNoSlot) {
    assert(*at.used < at.slots);
    *kept = at.free[at.slots - 1 - (*at.used)++];
    std::array<float, kMaxHeadDim> back;
    Angles(position, back.data());
    const size_t half = layout_.rotation.dim / 2;
    for (size_t i = 0; i < half; ++i) back[half + i] = -back[half + i];
    float* key = at.keys + size_t{*kept} * dim;
    LoadKey(layout_.key_type, tile, dim, slot, key);
    Rotate(back.data(), key);
    at.places[*kept] = position;
  }
  if (at.places[*kept] == place) return;
  at.places[*kept] = place;
  const uint32_t most = layout_.most_slots();
  assert(angle_of_[place % most] == place);
  std::array<float, kMaxHeadDim> key;
  std::copy_n(at.keys + size_t{*kept} * dim, dim, key.begin());
  Rotate(angles_ + size_t{place % most} * layout_.rotation.dim, key.data());
  StoreKey(layout_.key_type, key.data(), dim, slot, tile);
}

void RolledKeys::Free(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t kept) {
  if (kept == kNoSlot) return;
  const Head at = At(sequence, layer, head);
  at.free[at.slots - (*at.used)--] = kept;
}

uint64_t RolledKeys::held_bytes() const {
  if (buffer_.data() == nullptr) return 0;
  uint64_t used = 0;
  const size_t lists = size_t{layout_.sequences} * layout_.slots.size() * layout_.heads;
  for (size_t i = 0; i < lists; ++i) used += used_[i];
  return used * layout_.slot_bytes();
}

}  // namespace snug
