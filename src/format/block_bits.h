// What the writers of several stored types share: inverse scales, and how codes of 32 weights lie
// in bytes.
#pragma once

#include <cstdint>

namespace snug {

// Of a scale; 0 for 0.
inline float Inverse(float v) { return v == 0 ? 0 : 1 / v; }

// Codes of up to four bits: columns 0-15 in the low nibbles of 16 bytes, 16-31 in the high ones.
inline void PutNibbles(uint8_t* p, const uint8_t (&q)[32]) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
}

// The fifth bit of each code in four bytes.
inline void PutFifthBits(uint8_t* p, const uint8_t (&q)[32]) {
  for (int i = 0; i < 4; ++i) {
    p[i] = 0;
    for (int k = 0; k < 8; ++k) p[i] |= static_cast<uint8_t>(q[8 * i + k] >> 4 << k);
  }
}

}  // namespace snug
