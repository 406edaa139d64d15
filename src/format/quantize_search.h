// Scales and codes that minimise the weighted squared error of a block: candidates around the range
// of the values, least squares for the scale of given codes, and codes for given scales in turn
// until neither improves. Super-blocks, whose sub-blocks have integer scales in units of a half
// float, are searched the same way over their integers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace snug {

// Codes of a block are the integers lo .. hi.
struct CodeRange {
  int lo, hi;
};

// x ~ scale * code. `n` is a multiple of 8 and at most 256.
float FitScale(const float* x, const float* w, size_t n, CodeRange codes);
// x ~ scale * code + offset, codes 0 .. hi. The offset is not positive unless `any_offset`.
struct ScaleOffset {
  float scale, offset;
};
ScaleOffset FitScaleOffset(const float* x, const float* w, size_t n, int hi, bool any_offset);
// The nearest codes: what is no number gives `lo`.
void NearestCodes(const float* x, size_t n, float scale, float offset, CodeRange codes,
                  int8_t* out);

// x ~ scale * code for the 16 codes of a table: kIq4Codes.
float FitTableScale(const float* x, const float* w, size_t n, const int8_t (&table)[16]);
void NearestTableCodes(const float* x, size_t n, float scale, const int8_t (&table)[16],
                       uint8_t* index);

// A super-block of 256: sub-block j has scale d * scales[j] and, if it has one, offset
// -dmin * mins[j].
struct SuperBlock {
  uint16_t d = 0, dmin = 0;  // half floats
  std::array<int, 16> scales{}, mins{};
  std::array<int8_t, 256> codes{};  // table codes: indices
};
struct SuperShape {
  int sub_blocks;                 // 8 or 16
  CodeRange codes;                // of weights; with mins: 0 .. hi
  CodeRange scales;               // of sub-block scales
  int max_min = 0;                // of sub-block mins; 0: none
  const int8_t* table = nullptr;  // codes by table instead
};
SuperBlock FitSuperBlock(const float* x, const float* w, const SuperShape& shape);

}  // namespace snug
