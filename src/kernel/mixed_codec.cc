// Coding of segments in classes, and the slow view of them. Their products are mixed_walk.cc's.
#include "kernel/mixed_codec.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>

#include "format/dtype.h"

namespace snug {
namespace {

using Row = std::array<float, kMaxHeadDim>;

constexpr size_t kRawBits = 16;  // no codes: f16

void PutHalf(float x, size_t i, uint8_t* to) {
  const uint16_t bits = FloatToHalf(std::clamp(x, -kMaxHalf, kMaxHalf));
  std::memcpy(to + 2 * i, &bits, sizeof(bits));
}

float Half(const uint8_t* from, size_t i) {
  uint16_t bits;
  std::memcpy(&bits, from + 2 * i, sizeof(bits));
  return HalfToFloat(bits);
}

// Adds code `i` to a row of zeros.
void PutCode(float x, float scale, float zero, size_t i, size_t bits, uint8_t* row) {
  if (bits == kRawBits) return PutHalf(x, i, row);
  const auto top = static_cast<float>((1u << bits) - 1);
  const float code = scale == 0 ? 0 : std::clamp(std::nearbyint((x - zero) / scale), 0.0f, top);
  row[i * bits / 8] =
      static_cast<uint8_t>(row[i * bits / 8] | static_cast<unsigned>(code) << (i * bits % 8));
}

float Code(const uint8_t* row, size_t i, size_t bits) {
  if (bits == kRawBits) return Half(row, i);
  return static_cast<float>(row[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1));
}

// Leaves the scale and the zero of a group as f16, entry `i` each; what is not coded has 1 and 0.
void PutGroup(float min, float max, size_t bits, size_t i, size_t count, uint8_t* scales) {
  const bool raw = bits == kRawBits;
  const auto top = static_cast<float>((1u << bits) - 1);
  PutHalf(raw ? 1 : (max - min) / top, i, scales);
  PutHalf(raw ? 0 : min, i, scales + 2 * count);
}

void LoadStored(const StoredRows& r, uint32_t row, bool value, size_t dim, float* to) {
  const uint32_t at = r.first + row;
  const uint8_t* page = r.pages[at / kTileTokens];
  value ? LoadValue(r.value_type, page + r.values, dim, at % kTileTokens, to)
        : LoadKey(r.key_type, page + r.keys, dim, at % kTileTokens, to);
}

}  // namespace

uint32_t MixedFormat::LowRows(uint32_t rows) const {
  return std::min(rows, static_cast<uint32_t>(low_share * rows + 1e-9));
}

uint32_t MixedFormat::RawRows(uint32_t rows) const {
  return std::min(rows - LowRows(rows), static_cast<uint32_t>(raw_share * rows + 1e-9));
}

MixedCodec::Classes MixedCodec::ClassesOf(uint32_t rows) const {
  const uint32_t low = f_.LowRows(rows), raw = f_.RawRows(rows);
  const size_t bits[] = {f_.low_bits, f_.high_bits, kRawBits};
  const uint32_t firsts[] = {0, low, rows - raw, rows};
  Classes all;
  size_t at = f_.head_dim * sizeof(uint16_t);
  for (size_t i = 0; i < 3; ++i) {
    MixedClass& c = all.of[i];
    c.bits = bits[i];
    c.head_dim = f_.head_dim;
    c.first = firsts[i];
    c.rows = firsts[i + 1] - firsts[i];
    c.end = at;
    if (c.rows == 0) continue;
    c.key_scales = at;
    c.keys = at + 2 * f_.head_dim * sizeof(uint16_t);
    const uint32_t left = c.rows % kTileTokens, whole = c.rows - left;
    c.value_scales = c.KeyBlock(whole) + (left == 0 ? 0 : c.KeyRowBytes(whole) * f_.head_dim);
    c.values = c.value_scales + 2 * c.padded_rows() * sizeof(uint16_t);
    c.end = at = c.values + c.rows * c.ValueRowBytes();
  }
  return all;
}

size_t MixedCodec::HeadBytes(uint32_t rows) const {
  return (ClassesOf(rows).of[2].end + 63) / 64 * 64;
}

void MixedCodec::EncodeKeys(const StoredRows& rows, std::span<const uint32_t> order,
                            const MixedClass& c, uint8_t* to) const {
  const size_t d = f_.head_dim;
  Row row, min, max;
  for (uint32_t r = 0; r < c.rows; ++r) {
    LoadStored(rows, order[c.first + r], false, d, row.data());
    for (size_t i = 0; i < d; ++i) {
      min[i] = r == 0 ? row[i] : std::min(min[i], row[i]);
      max[i] = r == 0 ? row[i] : std::max(max[i], row[i]);
    }
  }
  uint8_t* scales = to + c.key_scales;
  for (size_t i = 0; i < d; ++i) PutGroup(min[i], max[i], c.bits, i, d, scales);
  // Codes are chosen by what was stored.
  for (size_t i = 0; i < d; ++i) {
    max[i] = Half(scales, i);
    min[i] = Half(scales, d + i);
  }
  for (uint32_t at = 0; at < c.rows; at += kTileTokens) {
    const size_t n = c.BlockRows(at), row_bytes = c.KeyRowBytes(at);
    uint8_t* block = to + c.KeyBlock(at);
    std::memset(block, 0, d * row_bytes);
    for (size_t r = 0; r < n; ++r) {
      LoadStored(rows, order[c.first + at + r], false, d, row.data());
      for (size_t i = 0; i < d; ++i) {
        PutCode(row[i], max[i], min[i], r, c.bits, block + i * row_bytes);
      }
    }
  }
}

void MixedCodec::EncodeValues(const StoredRows& rows, std::span<const uint32_t> order,
                              const MixedClass& c, uint8_t* to) const {
  const size_t d = f_.head_dim, padded = c.padded_rows();
  uint8_t* scales = to + c.value_scales;
  std::memset(scales, 0, 2 * padded * sizeof(uint16_t));
  std::memset(to + c.values, 0, c.rows * c.ValueRowBytes());
  Row row, inverse;
  for (size_t i = 0; i < d; ++i) inverse[i] = c.bits == kRawBits ? 1 : 1 / Half(to, i);
  for (uint32_t r = 0; r < c.rows; ++r) {
    LoadStored(rows, order[c.first + r], true, d, row.data());
    for (size_t i = 0; i < d; ++i) row[i] *= inverse[i];
    const auto [min, max] = std::minmax_element(row.begin(), row.begin() + d);
    PutGroup(*min, *max, c.bits, r, padded, scales);
    const float s = Half(scales, r), z = Half(scales, padded + r);
    uint8_t* codes = to + c.values + r * c.ValueRowBytes();
    for (size_t i = 0; i < d; ++i) PutCode(row[i], s, z, i, c.bits, codes);
  }
}

void MixedCodec::Encode(const StoredRows& rows, std::span<const uint32_t> order,
                        uint8_t* to) const {
  assert(order.size() == rows.rows && f_.head_dim <= kMaxHeadDim);
  Row row, most{};
  for (uint32_t r = 0; r < rows.rows; ++r) {
    LoadStored(rows, r, true, f_.head_dim, row.data());
    for (size_t i = 0; i < f_.head_dim; ++i) most[i] = std::max(most[i], std::abs(row[i]));
  }
  for (size_t i = 0; i < f_.head_dim; ++i) {
    PutHalf(std::sqrt(most[i]), i, to);
    if (Half(to, i) == 0) PutHalf(1, i, to);
  }
  for (const MixedClass& c : ClassesOf(rows.rows).of) {
    if (c.rows == 0) continue;
    EncodeKeys(rows, order, c, to);
    EncodeValues(rows, order, c, to);
  }
}

void MixedCodec::LoadRow(const AttentionArgs& args, uint32_t head, uint32_t row, bool value,
                         float* to) const {
  const CodedSegment* s = args.coded.segments;
  while (row >= s->first + s->rows) ++s;
  const uint8_t* data = s->data + head * HeadBytes(s->rows);
  const Classes classes = ClassesOf(s->rows);
  const uint32_t r = row - s->first;
  size_t number = 0;
  while (r >= classes.of[number].first + classes.of[number].rows) ++number;
  const MixedClass& c = classes.of[number];
  const uint32_t at = r - c.first, block = at / kTileTokens * kTileTokens;
  const size_t d = f_.head_dim;
  for (size_t i = 0; i < d; ++i) {
    if (value) {
      const float code = Code(data + c.values + at * c.ValueRowBytes(), i, c.bits);
      const float u = Half(data + c.value_scales, at) * code +
                      Half(data + c.value_scales, c.padded_rows() + at);
      to[i] = (c.bits == kRawBits ? 1 : Half(data, i)) * u;
    } else {
      const uint8_t* codes = data + c.KeyBlock(block) + i * c.KeyRowBytes(block);
      to[i] = Half(data + c.key_scales, i) * Code(codes, at - block, c.bits) +
              Half(data + c.key_scales, d + i);
    }
  }
}

}  // namespace snug
