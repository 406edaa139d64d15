// Centroids of points by Lloyd's algorithm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace snug {

// Points of 2 or 4 coordinates; coordinate c of point i is x[c * stride + i]. Up to the next
// multiple of kPointBlock (kernel/product_codec.h) there is room for more, finite and not counted.
struct Points {
  const float* x = nullptr;
  size_t stride = 0, dims = 0, n = 0;
};

// What the algorithm notes of each point, with the same room.
struct KMeansRoom {
  uint8_t* codes = nullptr;
  float* distances = nullptr;
};

// Writes 256 centroids [256, dims] of at least as many points. They begin as points drawn at
// random, one of each 256th of them, and are moved `iterations` times to the mean of the points
// nearest to them. One that has none takes over a point of the largest cluster, the farthest from
// its centroid. Returns the sum of squared distances before each move, which never grows but by
// rounding. A function of its arguments alone.
std::vector<double> KMeans(const Points& points, int iterations, uint64_t seed,
                           const KMeansRoom& room, float* centroids);

}  // namespace snug
