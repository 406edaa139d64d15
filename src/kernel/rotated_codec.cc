// Coding of rotated rows, and the slow view of them. Attention over them is rotated_walk.cc's.
#include "kernel/rotated_codec.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

namespace snug {
namespace {

size_t CodeBytes(const RotatedFormat& f, size_t values) { return values * f.bits / 8; }

// The scales of a tile with `rows` x `width` codes in `groups` for each token, then its offsets.
struct Groups {
  Groups(uint8_t* tile, size_t code_bytes, size_t groups)
      : scales(reinterpret_cast<uint16_t*>(tile + code_bytes)),
        offsets(scales + groups * kTileTokens) {}
  uint16_t *scales, *offsets;
};

Groups KeyGroups(const RotatedFormat& f, uint8_t* tile) {
  return {tile, CodeBytes(f, f.width() * kTileTokens), f.width() / f.key_group};
}
Groups ValueGroups(const RotatedFormat& f, uint8_t* tile) {
  return {tile, CodeBytes(f, f.head_dim * kTileTokens), f.head_dim / f.value_group};
}

uint8_t Code(const uint8_t* row, size_t i, size_t bits) {
  return row[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
}
void PutCode(uint8_t code, size_t i, size_t bits, uint8_t* row) {
  uint8_t& byte = row[i * bits / 8];
  const size_t shift = i * bits % 8;
  const unsigned mask = ((1u << bits) - 1) << shift;
  byte = static_cast<uint8_t>((byte & ~mask) | unsigned{code} << shift);
}

// Rotates a head by the angles whose cosines and sines lie `stride` floats apart, sines after all
// cosines; back where `sign` is -1.
void Turn(const KeyRotary& r, const float* cosines, size_t stride, float sign, float* head) {
  const float* sines = cosines + r.pairs * stride;
  for (size_t i = 0; i < r.pairs; ++i) {
    float& a = head[r.interleaved ? 2 * i : i];
    float& b = head[r.interleaved ? 2 * i + 1 : i + r.pairs];
    const float c = cosines[i * stride], s = sign * sines[i * stride];
    const float turned = a * c - b * s;
    b = a * s + b * c;
    a = turned;
  }
}

}  // namespace

void TurnByTile(const KeyRotary& r, uint32_t tile, float sign, float* head) {
  if (r.pairs != 0) Turn(r, r.OfTile(tile), 1, sign, head);
}

namespace {

void TurnBySlot(const KeyRotary& r, size_t slot, float sign, float* head) {
  if (r.pairs != 0) Turn(r, r.slots + slot, kTileTokens, sign, head);
}

}  // namespace

void TransformKeys(const RotatedFormat& f, const KeyRotary& r, uint32_t token, float* keys) {
  for (size_t h = 0; h < f.kv_heads; ++h) {
    TurnByTile(r, token / kTileTokens, -1, keys + h * f.head_dim);
    TurnBySlot(r, token % kTileTokens, -1, keys + h * f.head_dim);
  }
  const size_t block = f.heads * f.head_dim;
  for (size_t i = 0; i < f.width(); i += block) Hadamard(block, keys + i);
}

void QuantizeClipped(const RotatedFormat& f, const float* x, size_t n, uint8_t* codes,
                     uint16_t* scale, uint16_t* offset) {
  const auto [min, max] = std::minmax_element(x, x + n);
  const float middle = f.centre ? (*min + *max) / 2 : 0;
  const float lo = middle + (*min - middle) * f.clip, hi = middle + (*max - middle) * f.clip;
  const auto top = static_cast<float>((1u << f.bits) - 1);
  *scale = FloatToHalf(std::clamp((hi - lo) / top, 0.0f, kMaxHalf));
  const float s = HalfToFloat(*scale);
  if (s == 0) {
    std::fill_n(codes, n, uint8_t{0});
    *offset = FloatToHalf(std::clamp(lo, -kMaxHalf, kMaxHalf));
    return;
  }
  const float zero = std::nearbyint(-lo / s);
  *offset = FloatToHalf(std::clamp(-s * zero, -kMaxHalf, kMaxHalf));
  for (size_t i = 0; i < n; ++i) {
    codes[i] = static_cast<uint8_t>(std::clamp(std::nearbyint(x[i] / s) + zero, 0.0f, top));
  }
}

size_t RotatedCodec::key_tile_bytes() const {
  return CodeBytes(f_, f_.width() * kTileTokens) +
         f_.width() / f_.key_group * 2 * kTileTokens * sizeof(uint16_t);
}

size_t RotatedCodec::value_tile_bytes() const {
  return CodeBytes(f_, f_.head_dim * kTileTokens) +
         f_.head_dim / f_.value_group * 2 * kTileTokens * sizeof(uint16_t);
}

void RotatedCodec::EncodeKeys(KvType type, const uint8_t* from, TileAt at, size_t slot, size_t n,
                              uint8_t* to) const {
  const size_t width = f_.width(), d = f_.head_dim, row_bytes = CodeBytes(f_, kTileTokens);
  const size_t head_bytes = KvTileBytes(type, d);
  const Groups groups = KeyGroups(f_, to);
  std::array<float, kMaxKeyWidth> keys, ordered;
  std::array<uint8_t, kMaxKeyWidth> codes;
  for (size_t t = slot; t < slot + n; ++t) {
    for (size_t i = 0; i < width; ++i) {
      keys[i] = StoredValue(type, from + i / d * head_bytes, KeyIndex(i % d, t, d));
    }
    TransformKeys(f_, basis_.rotary, static_cast<uint32_t>(at.tile * kTileTokens + t), keys.data());
    for (size_t i = 0; i < width; ++i) {
      ordered[basis_.places == nullptr ? i : basis_.places[i]] = keys[i];
    }
    for (size_t c = 0; c < width; c += f_.key_group) {
      const size_t g = c / f_.key_group * kTileTokens + t;
      QuantizeClipped(f_, ordered.data() + c, f_.key_group, codes.data() + c, groups.scales + g,
                      groups.offsets + g);
    }
    for (size_t c = 0; c < width; ++c) PutCode(codes[c], t, f_.bits, to + c * row_bytes);
  }
}

void RotatedCodec::EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                                uint8_t* to) const {
  const size_t d = f_.head_dim, row_bytes = CodeBytes(f_, d);
  const Groups groups = ValueGroups(f_, to);
  std::array<float, kMaxHeadDim> x;
  std::array<uint8_t, kMaxHeadDim> codes;
  for (size_t t = slot; t < slot + n; ++t) {
    for (size_t c = 0; c < d; ++c) x[c] = StoredValue(type, from, ValueIndex(c, t));
    Hadamard(d, x.data());
    for (size_t c = 0; c < d; c += f_.value_group) {
      const size_t g = c / f_.value_group * kTileTokens + t;
      QuantizeClipped(f_, x.data() + c, f_.value_group, codes.data() + c, groups.scales + g,
                      groups.offsets + g);
    }
    for (size_t c = 0; c < d; ++c) PutCode(codes[c], c, f_.bits, to + t * row_bytes);
  }
}

void RotatedCodec::LoadKey(const uint8_t* tile, TileAt at, size_t slot, float* k) const {
  const size_t d = f_.head_dim, block = f_.heads * d, first = at.head / f_.heads * block;
  const Groups groups = KeyGroups(f_, const_cast<uint8_t*>(tile));
  std::array<float, kMaxKeyWidth> x;
  for (size_t i = 0; i < block; ++i) {
    const size_t c = basis_.places == nullptr ? first + i : basis_.places[first + i];
    const size_t g = c / f_.key_group * kTileTokens + slot;
    const auto code =
        static_cast<float>(Code(tile + c * CodeBytes(f_, kTileTokens), slot, f_.bits));
    x[i] = HalfToFloat(groups.scales[g]) * code + HalfToFloat(groups.offsets[g]);
  }
  Hadamard(block, x.data());
  std::copy_n(x.data() + at.head % f_.heads * d, d, k);
  TurnBySlot(basis_.rotary, slot, 1, k);
  TurnByTile(basis_.rotary, at.tile, 1, k);
}

void RotatedCodec::LoadValue(const uint8_t* tile, size_t slot, float* v) const {
  const size_t d = f_.head_dim;
  const Groups groups = ValueGroups(f_, const_cast<uint8_t*>(tile));
  for (size_t c = 0; c < d; ++c) {
    const size_t g = c / f_.value_group * kTileTokens + slot;
    const auto code = static_cast<float>(Code(tile + slot * CodeBytes(f_, d), c, f_.bits));
    v[c] = HalfToFloat(groups.scales[g]) * code + HalfToFloat(groups.offsets[g]);
  }
  Hadamard(d, v);
}

}  // namespace snug
