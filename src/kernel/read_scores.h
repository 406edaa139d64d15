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

// Scores of `heads` heads, [heads, stride], become one for each of `n` rows, in place of the first
// head's: the largest of the heads' score - its head's largest. Each head's softmax is
// blind to what all of its scores share, so heads compare by how far a row lies below their best.
// What is no number counts as least.
void CombineHeads(float* scores, size_t heads, size_t stride, size_t n);

}  // namespace snug
