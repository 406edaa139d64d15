// Encodes and decodes single tokens of the cache's tiles.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "format/dtype.h"
#include "kernel/kv_layout.h"

namespace snug {
namespace {

constexpr float kMaxBFloat = 3.38953139e38f;

struct TypeName {
  KvType type;
  std::string_view name;
};
constexpr TypeName kNames[] = {{KvType::kF32, "f32"},
                               {KvType::kF16, "f16"},
                               {KvType::kBF16, "bf16"},
                               {KvType::kQ8_0, "q8_0"},
                               {KvType::kQ4_0, "q4_0"},
                               {KvType::kF8E4M3, "f8_e4m3"},
                               // As others call it.
                               {KvType::kF8E4M3, "fp8"},
                               {KvType::kF8E4M3, "fp8_e4m3"}};

float Finite(float v, float max) { return v == v ? std::clamp(v, -max, max) : 0.0f; }

uint16_t Encode16(KvType type, float v) {
  return type == KvType::kF16 ? FloatToHalf(Finite(v, kMaxHalf))
                              : FloatToBFloat(Finite(v, kMaxBFloat));
}
float Decode16(KvType type, uint16_t bits) {
  return type == KvType::kF16 ? HalfToFloat(bits) : BFloatToFloat(bits);
}

// E4M3: the exponent's bias is 7, values below 2^-6 have steps of 2^-9, and the code of all ones is
// NaN, which nothing is stored as.
constexpr float kMaxF8 = 448;
uint8_t EncodeF8(float v) {
  v = Finite(v, kMaxF8);
  const float magnitude = std::abs(v);
  uint32_t code;
  if (magnitude < 1.0f / 64) {
    code = static_cast<uint32_t>(std::nearbyint(magnitude * 512));  // 8: the least normal one
  } else {
    uint32_t bits;
    std::memcpy(&bits, &magnitude, sizeof(bits));
    bits += 0x7ffff + (bits >> 20 & 1);  // to the nearest, ties to even
    code = (bits >> 20) - ((127 - 7) << 3);
  }
  return static_cast<uint8_t>(code | (std::signbit(v) ? 0x80 : 0));
}
float DecodeF8(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

// One block of 32 as Q8_0 codes, or as Q4_0 codes + 8. Returns the scale.
float QuantizeBlock(KvType type, const float* v, int8_t* codes) {
  float max = 0, extreme = 0;  // extreme: the value of largest magnitude, with its sign
  for (size_t i = 0; i < kKvBlock; ++i) {
    const float f = Finite(v[i], kMaxHalf);
    if (std::abs(f) > max) max = std::abs(f), extreme = f;
  }
  const float scale = HalfToFloat(FloatToHalf(type == KvType::kQ8_0 ? max / 127 : extreme / -8));
  const float inverse = scale != 0 ? 1 / scale : 0;
  for (size_t i = 0; i < kKvBlock; ++i) {
    const float f = Finite(v[i], kMaxHalf) * inverse;
    codes[i] =
        static_cast<int8_t>(type == KvType::kQ8_0 ? std::clamp(std::nearbyint(f), -127.0f, 127.0f)
                                                  : std::clamp(std::nearbyint(f) + 8, 0.0f, 15.0f));
  }
  return scale;
}

uint16_t* Scales(KvType type, size_t padded, uint8_t* tile) {
  return reinterpret_cast<uint16_t*>(tile + ScaleOffset(type, padded));
}

bool Quantized(KvType type) { return type == KvType::kQ8_0 || type == KvType::kQ4_0; }

void SetNibble(uint8_t* byte, bool high, int8_t code) {
  *byte = static_cast<uint8_t>(high ? (*byte & 0x0f) | code << 4 : (*byte & 0xf0) | code);
}

// Encodes one token; `index` gives its places.
template <class Index>
void Store(KvType type, const float* v, size_t head_dim, size_t padded, size_t slot, uint8_t* tile,
           const Index& index) {
  if (type == KvType::kF32) {
    auto* out = reinterpret_cast<float*>(tile);
    for (size_t d = 0; d < head_dim; ++d) out[index(d)] = Finite(v[d], kMaxBFloat);
    return;
  }
  if (type == KvType::kF8E4M3) {
    for (size_t d = 0; d < head_dim; ++d) tile[index(d)] = EncodeF8(v[d]);
    return;
  }
  if (!Quantized(type)) {
    auto* out = reinterpret_cast<uint16_t*>(tile);
    for (size_t d = 0; d < head_dim; ++d) out[index(d)] = Encode16(type, v[d]);
    return;
  }
  for (size_t b = 0; b < head_dim / kKvBlock; ++b) {
    std::array<int8_t, kKvBlock> codes;
    const float scale = QuantizeBlock(type, v + b * kKvBlock, codes.data());
    Scales(type, padded, tile)[b * kTileTokens + slot] = FloatToHalf(scale);
    for (size_t i = 0; i < kKvBlock; ++i) {
      const size_t at = index(b * kKvBlock + i);
      if (type == KvType::kQ8_0) {
        tile[at] = static_cast<uint8_t>(codes[i]);
      } else {
        SetNibble(tile + at / 2, at % 2 != 0, codes[i]);
      }
    }
  }
}

// Copies one encoded token; `from_index` and `to_index` give its places.
template <class From, class To>
void Copy(KvType type, const uint8_t* from, size_t from_slot, const From& from_index,
          size_t head_dim, uint8_t* to, size_t to_slot, const To& to_index) {
  const size_t padded = PaddedDim(head_dim);
  const auto whole = [&](auto element) {
    using Element = decltype(element);
    for (size_t d = 0; d < head_dim; ++d) {
      reinterpret_cast<Element*>(to)[to_index(d)] =
          reinterpret_cast<const Element*>(from)[from_index(d)];
    }
  };
  switch (type) {
    case KvType::kF32:
      return whole(float());
    case KvType::kF16:
    case KvType::kBF16:
      return whole(uint16_t());
    case KvType::kF8E4M3:
      return whole(uint8_t());
    case KvType::kQ8_0:
      whole(uint8_t());
      break;
    case KvType::kQ4_0:
      for (size_t d = 0; d < head_dim; ++d) {
        const size_t a = from_index(d), b = to_index(d);
        SetNibble(to + b / 2, b % 2 != 0, static_cast<int8_t>(from[a / 2] >> (a % 2 * 4) & 15));
      }
      break;
  }
  for (size_t b = 0; b < head_dim / kKvBlock; ++b) {
    Scales(type, padded, to)[b * kTileTokens + to_slot] =
        Scales(type, padded, const_cast<uint8_t*>(from))[b * kTileTokens + from_slot];
  }
}

template <class Index>
void Load(KvType type, const uint8_t* tile, size_t head_dim, size_t padded, size_t slot, float* v,
          const Index& index) {
  for (size_t d = 0; d < head_dim; ++d) {
    const size_t at = index(d);
    if (type == KvType::kF32) {
      v[d] = reinterpret_cast<const float*>(tile)[at];
    } else if (type == KvType::kF8E4M3) {
      v[d] = DecodeF8(tile[at]);
    } else if (!Quantized(type)) {
      v[d] = Decode16(type, reinterpret_cast<const uint16_t*>(tile)[at]);
    } else {
      const float scale = HalfToFloat(
          Scales(type, padded, const_cast<uint8_t*>(tile))[d / kKvBlock * kTileTokens + slot]);
      const int code = type == KvType::kQ8_0 ? static_cast<int8_t>(tile[at])
                                             : (tile[at / 2] >> (at % 2 * 4) & 15) - 8;
      v[d] = scale * static_cast<float>(code);
    }
  }
}

}  // namespace

std::string_view KvTypeName(KvType type) {
  for (const TypeName& n : kNames) {
    if (n.type == type) return n.name;
  }
  return "";
}

std::optional<KvType> ParseKvType(std::string_view name) {
  for (const TypeName& n : kNames) {
    if (n.name == name) return n.type;
  }
  return std::nullopt;
}

bool KvTypeSupports(KvType type, size_t head_dim) {
  return Quantized(type) ? head_dim % kKvBlock == 0 : head_dim % 2 == 0;
}

size_t KvTileBytes(KvType type, size_t head_dim) {
  const size_t padded = PaddedDim(head_dim);
  const size_t scales = head_dim / kKvBlock * kTileTokens * sizeof(uint16_t);
  switch (type) {
    case KvType::kF32:
      return padded * kTileTokens * sizeof(float);
    case KvType::kF16:
    case KvType::kBF16:
      return padded * kTileTokens * sizeof(uint16_t);
    case KvType::kF8E4M3:
      return padded * kTileTokens;
    case KvType::kQ8_0:
    case KvType::kQ4_0:
      break;
  }
  return ScaleOffset(type, padded) + scales;
}

void StoreKey(KvType type, const float* k, size_t head_dim, size_t slot, uint8_t* tile) {
  Store(type, k, head_dim, PaddedDim(head_dim), slot, tile,
        [=](size_t d) { return KeyIndex(d, slot, head_dim); });
}

void StoreValue(KvType type, const float* v, size_t head_dim, size_t slot, uint8_t* tile) {
  const size_t padded = PaddedDim(head_dim);
  Store(type, v, head_dim, padded, slot, tile, [=](size_t d) { return ValueIndex(d, slot); });
}

void LoadKey(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, float* k) {
  Load(type, tile, head_dim, PaddedDim(head_dim), slot, k,
       [=](size_t d) { return KeyIndex(d, slot, head_dim); });
}

void LoadValue(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, float* v) {
  const size_t padded = PaddedDim(head_dim);
  Load(type, tile, head_dim, padded, slot, v, [=](size_t d) { return ValueIndex(d, slot); });
}

namespace {

struct KeyPlace {
  size_t slot, head_dim;
  size_t operator()(size_t d) const { return KeyIndex(d, slot, head_dim); }
};
struct ValuePlace {
  size_t slot;
  size_t operator()(size_t d) const { return ValueIndex(d, slot); }
};

}  // namespace

void CopyKey(KvType type, const uint8_t* from, size_t from_slot, size_t head_dim, uint8_t* to,
             size_t to_slot) {
  Copy(type, from, from_slot, KeyPlace{from_slot, head_dim}, head_dim, to, to_slot,
       KeyPlace{to_slot, head_dim});
}

void CopyValue(KvType type, const uint8_t* from, size_t from_slot, size_t head_dim, uint8_t* to,
               size_t to_slot) {
  Copy(type, from, from_slot, ValuePlace{from_slot}, head_dim, to, to_slot, ValuePlace{to_slot});
}

void CopyRowAsKey(KvType type, const uint8_t* from, size_t from_slot, size_t head_dim, uint8_t* to,
                  size_t to_slot) {
  if (type != KvType::kF16 && type != KvType::kBF16) {
    return Copy(type, from, from_slot, ValuePlace{from_slot}, head_dim, to, to_slot,
                KeyPlace{to_slot, head_dim});
  }
  // Two dimensions of a key are a word; two tokens are, where keys lie as values do.
  constexpr size_t kLine = kColumn / 2;
  const auto* words = reinterpret_cast<const uint32_t*>(from) + from_slot / 2 * kLine;
  auto* key =
      reinterpret_cast<uint32_t*>(to) + to_slot / kLine * (head_dim / 2) * kLine + to_slot % kLine;
  const size_t shift = from_slot % 2 * 16;
  for (size_t d = 0; d < head_dim; words += kTileTokens / 2 * kLine) {
    const size_t end = std::min(head_dim - d, kLine);
    for (size_t i = 0; i < end; i += 2, key += kLine) {
      *key = (words[i] >> shift & 0xffff) | words[i + 1] >> shift << 16;
    }
    d += end;
  }
}

}  // namespace snug
