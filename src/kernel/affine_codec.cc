// Coding of affine groups, and the slow view of them. Their products are affine_walk.cc's.
#include "kernel/affine_codec.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "format/dtype.h"
#include "kernel/kv_layout.h"

namespace snug {
namespace {

size_t Code(const uint8_t* row, size_t i, size_t bits) {
  return row[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
}

// Writes codes from number `first` of a row on.
void PutCodes(const uint8_t* codes, size_t n, size_t bits, size_t first, uint8_t* row) {
  const size_t per_byte = bits == 2 ? 4 : 2;  // codes have 2 or 4 bits
  for (size_t i = 0; i < n; i += per_byte) {
    unsigned byte = 0;
    for (size_t j = 0; j < per_byte; ++j) byte |= unsigned{codes[i + j]} << (j * bits);
    row[(first + i) / per_byte] = static_cast<uint8_t>(byte);
  }
}

// The scales of a tile, then its zeros, `count` each.
struct Groups {
  Groups(uint8_t* tile, const AffineFormat& f, size_t bits)
      : scales(reinterpret_cast<uint16_t*>(tile + f.head_dim * kTileTokens * bits / 8)),
        zeros(scales + f.head_dim * kTileTokens / f.group) {}
  uint16_t *scales, *zeros;
};

}  // namespace

void QuantizeAffine(const float* x, size_t n, size_t bits, uint8_t* codes, uint16_t* scale,
                    uint16_t* zero) {
  float min = x[0], max = x[0];
  for (size_t i = 1; i < n; ++i) {
    min = std::min(min, x[i]);
    max = std::max(max, x[i]);
  }
  const auto top = static_cast<float>((1u << bits) - 1);
  *zero = FloatToHalf(std::clamp(min, -kMaxHalf, kMaxHalf));
  *scale = FloatToHalf(std::clamp((max - min) / top, 0.0f, kMaxHalf));
  const float z = HalfToFloat(*zero), s = HalfToFloat(*scale);
  for (size_t i = 0; i < n; ++i) {
    const float code = s == 0 ? 0 : std::nearbyint((x[i] - z) / s);
    codes[i] = static_cast<uint8_t>(std::clamp(code, 0.0f, top));
  }
}

void AffineCodec::EncodeKeys(KvType type, const uint8_t* from, TileAt /*at*/, size_t slot, size_t n,
                             uint8_t* to) const {
  assert(slot % f_.group == 0 && n % f_.group == 0);
  const size_t d = f_.head_dim, row_bytes = kTileTokens * f_.key_bits / 8;
  const Groups groups(to, f_, f_.key_bits);
  std::array<float, kTileTokens> x;
  std::array<uint8_t, kTileTokens> codes;
  for (size_t at = slot; at < slot + n; at += f_.group) {
    for (size_t c = 0; c < d; ++c) {
      for (size_t t = 0; t < f_.group; ++t) x[t] = StoredValue(type, from, KeyIndex(c, at + t, d));
      const size_t g = at / f_.group * d + c;
      QuantizeAffine(x.data(), f_.group, f_.key_bits, codes.data(), groups.scales + g,
                     groups.zeros + g);
      PutCodes(codes.data(), f_.group, f_.key_bits, at, to + c * row_bytes);
    }
  }
}

void AffineCodec::EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                               uint8_t* to) const {
  const size_t d = f_.head_dim, row_bytes = d * f_.value_bits / 8;
  const Groups groups(to, f_, f_.value_bits);
  std::array<float, kTileTokens> x;
  std::array<uint8_t, kTileTokens> codes;
  for (size_t t = slot; t < slot + n; ++t) {
    for (size_t c = 0; c < d; c += f_.group) {
      for (size_t i = 0; i < f_.group; ++i) x[i] = StoredValue(type, from, ValueIndex(c + i, t));
      const size_t g = c / f_.group * kTileTokens + t;
      QuantizeAffine(x.data(), f_.group, f_.value_bits, codes.data(), groups.scales + g,
                     groups.zeros + g);
      PutCodes(codes.data(), f_.group, f_.value_bits, c, to + t * row_bytes);
    }
  }
}

void AffineCodec::LoadKey(const uint8_t* tile, TileAt /*at*/, size_t slot, float* k) const {
  const size_t row_bytes = kTileTokens * f_.key_bits / 8;
  const Groups groups(const_cast<uint8_t*>(tile), f_, f_.key_bits);
  for (size_t c = 0; c < f_.head_dim; ++c) {
    const size_t g = slot / f_.group * f_.head_dim + c;
    const auto code = static_cast<float>(Code(tile + c * row_bytes, slot, f_.key_bits));
    k[c] = HalfToFloat(groups.scales[g]) * code + HalfToFloat(groups.zeros[g]);
  }
}

void AffineCodec::LoadValue(const uint8_t* tile, size_t slot, float* v) const {
  const uint8_t* row = tile + slot * (f_.head_dim * f_.value_bits / 8);
  const Groups groups(const_cast<uint8_t*>(tile), f_, f_.value_bits);
  for (size_t c = 0; c < f_.head_dim; ++c) {
    const size_t g = c / f_.group * kTileTokens + slot;
    const auto code = static_cast<float>(Code(row, c, f_.value_bits));
    v[c] = HalfToFloat(groups.scales[g]) * code + HalfToFloat(groups.zeros[g]);
  }
}

}  // namespace snug
