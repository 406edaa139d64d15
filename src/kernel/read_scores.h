// Guesses of q.k from an index beside the keys (kv/read/read.h), for all rows of a tile at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snug {

// Floats of an index row are rounded up to whole vectors of 16, the rest zeros.
inline size_t IndexWidth(size_t n) { return (n + 15) / 16 * 16; }

// scores[h * stride + r] = rows[r] . queries[h]: rows of f16, [n, width], queries [heads, width],
// width a multiple of 16.
void ScoreHalves(const uint16_t* rows, size_t n, size_t width, const float* queries, size_t heads,
                 float* scores, size_t stride);

// Labels: a few values of each of a tile's 64 rows, in 4 bits. Codes lie [n / 8][64 rows][4 bytes],
// byte j of a row having value 8 i + j in its low nibble and 8 i + 4 + j in its high one; f16
// steps [64] and f16 least values [64] follow. A value is least + code * step.
inline size_t NibbleLabelBytes(size_t n) {
  return (n + 7) / 8 * 64 * 4 + 2 * 64 * sizeof(uint16_t);
}
// Encodes values [n] as row `row` between the least and the largest of them.
void StoreNibbleLabel(const float* values, size_t n, size_t row, uint8_t* labels);
// A query on the same values, in int8 with a scale: bytes, a multiple of 4.
inline size_t NibbleQueryBytes(size_t n) { return 2 * sizeof(float) + (n + 7) / 8 * 8; }
void PrepareNibbleQuery(const float* q, size_t n, uint8_t* prepared);
// scores[h * stride + r] = what values[r] . q[h] is by codes, for all 64 rows; queries lie
// NibbleQueryBytes apart. Sums of codes are exact.
void ScoreNibbles(const uint8_t* labels, size_t n, const uint8_t* queries, size_t heads,
                  float* scores, size_t stride);

// Scores of `heads` heads, [heads, stride], become one for each of `n` rows, in place of the first
// head's: the largest of the heads' score - its head's largest. Each head's softmax is
// blind to what all of its scores share, so heads compare by how far a row lies below their best.
// What is no number counts as least.
void CombineHeads(float* scores, size_t heads, size_t stride, size_t n);

}  // namespace snug
