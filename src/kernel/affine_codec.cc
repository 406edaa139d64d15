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

// The codes of a tile of `rows` rows (affine_codec.h).
struct Codes {
  Codes(const uint8_t* tile, size_t code_bits, size_t tile_rows)
      : data(const_cast<uint8_t*>(tile)), bits(code_bits), rows(tile_rows) {}
  // Where the codes of row r, value i lie in their byte.
  size_t Shift(size_t r) const { return r % AffineBlockRows(bits) / 4 * bits; }
  uint8_t& Byte(size_t r, size_t i) const {
    const size_t in_block = AffineBlockRows(bits);
    const size_t block = i / 16 * (rows / in_block) + r / in_block;
    return data[block * kAffineBlockBytes + i % 16 * 4 + r % 4];
  }
  size_t Get(size_t r, size_t i) const { return Byte(r, i) >> Shift(r) & ((1u << bits) - 1); }
  void Put(size_t r, size_t i, uint8_t code) const {
    const unsigned others = Byte(r, i) & ~(((1u << bits) - 1) << Shift(r));
    Byte(r, i) = static_cast<uint8_t>(others | unsigned{code} << Shift(r));
  }
  uint8_t* data;
  size_t bits, rows;
};

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
  const size_t d = f_.head_dim;
  const Codes put(to, f_.key_bits, d);
  const Groups groups(to, f_, f_.key_bits);
  std::array<float, kTileTokens> x;
  std::array<uint8_t, kTileTokens> codes;
  for (size_t at = slot; at < slot + n; at += f_.group) {
    for (size_t c = 0; c < d; ++c) {
      for (size_t t = 0; t < f_.group; ++t) x[t] = StoredValue(type, from, KeyIndex(c, at + t, d));
      const size_t g = at / f_.group * d + c;
      QuantizeAffine(x.data(), f_.group, f_.key_bits, codes.data(), groups.scales + g,
                     groups.zeros + g);
      for (size_t t = 0; t < f_.group; ++t) put.Put(c, at + t, codes[t]);
    }
  }
}

void AffineCodec::EncodeValues(KvType type, const uint8_t* from, size_t slot, size_t n,
                               uint8_t* to) const {
  const size_t d = f_.head_dim;
  const Codes put(to, f_.value_bits, kTileTokens);
  const Groups groups(to, f_, f_.value_bits);
  std::array<float, kTileTokens> x;
  std::array<uint8_t, kTileTokens> codes;
  for (size_t t = slot; t < slot + n; ++t) {
    for (size_t c = 0; c < d; c += f_.group) {
      for (size_t i = 0; i < f_.group; ++i) x[i] = StoredValue(type, from, ValueIndex(c + i, t));
      const size_t g = c / f_.group * kTileTokens + t;
      QuantizeAffine(x.data(), f_.group, f_.value_bits, codes.data(), groups.scales + g,
                     groups.zeros + g);
      for (size_t i = 0; i < f_.group; ++i) put.Put(t, c + i, codes[i]);
    }
  }
}

void AffineCodec::LoadKey(const uint8_t* tile, TileAt /*at*/, size_t slot, float* k) const {
  const Codes codes(tile, f_.key_bits, f_.head_dim);
  const Groups groups(const_cast<uint8_t*>(tile), f_, f_.key_bits);
  for (size_t c = 0; c < f_.head_dim; ++c) {
    const size_t g = slot / f_.group * f_.head_dim + c;
    const auto code = static_cast<float>(codes.Get(c, slot));
    k[c] = HalfToFloat(groups.scales[g]) * code + HalfToFloat(groups.zeros[g]);
  }
}

void AffineCodec::LoadValue(const uint8_t* tile, size_t slot, float* v) const {
  const Codes codes(tile, f_.value_bits, kTileTokens);
  const Groups groups(const_cast<uint8_t*>(tile), f_, f_.value_bits);
  for (size_t c = 0; c < f_.head_dim; ++c) {
    const size_t g = c / f_.group * kTileTokens + slot;
    const auto code = static_cast<float>(codes.Get(slot, c));
    v[c] = HalfToFloat(groups.scales[g]) * code + HalfToFloat(groups.zeros[g]);
  }
}

}  // namespace snug
