#include "kv/codec/kmeans.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "base/random.h"
#include "kernel/product_codec.h"

namespace snug {
namespace {

constexpr size_t kMostDims = 4;

size_t WholeBlocks(size_t n) { return (n + kPointBlock - 1) / kPointBlock * kPointBlock; }

void Begin(const Points& p, uint64_t seed, float* centroids) {
  for (size_t j = 0; j < kCentroids; ++j) {
    const size_t first = j * p.n / kCentroids, end = (j + 1) * p.n / kCentroids;
    const size_t at = first + Mix64(seed + j) % (end - first);
    for (size_t c = 0; c < p.dims; ++c) centroids[j * p.dims + c] = p.x[c * p.stride + at];
  }
}

// Splits the largest cluster: its farthest point becomes centroid `empty`. Where all of its points
// are the centroid itself, nothing changes.
void Split(const Points& p, const KMeansRoom& room, size_t empty,
           std::array<uint32_t, kCentroids>& counts, float* centroids) {
  const auto largest =
      static_cast<size_t>(std::max_element(counts.begin(), counts.end()) - counts.begin());
  size_t farthest = p.n;
  for (size_t i = 0; i < p.n; ++i) {
    if (room.codes[i] != largest || room.distances[i] == 0) continue;
    if (farthest == p.n || room.distances[i] > room.distances[farthest]) farthest = i;
  }
  if (farthest == p.n) {
    counts[largest] = 0;  // not to be asked again
    return;
  }
  for (size_t c = 0; c < p.dims; ++c) centroids[empty * p.dims + c] = p.x[c * p.stride + farthest];
  room.distances[farthest] = 0;
  counts[largest] /= 2;
}

void Move(const Points& p, const KMeansRoom& room, float* centroids) {
  std::array<double, kCentroids * kMostDims> sums{};
  std::array<uint32_t, kCentroids> counts{};
  for (size_t i = 0; i < p.n; ++i) {
    const size_t j = room.codes[i];
    ++counts[j];
    for (size_t c = 0; c < p.dims; ++c) sums[j * p.dims + c] += double{p.x[c * p.stride + i]};
  }
  for (size_t j = 0; j < kCentroids; ++j) {
    for (size_t c = 0; counts[j] != 0 && c < p.dims; ++c) {
      centroids[j * p.dims + c] = static_cast<float>(sums[j * p.dims + c] / counts[j]);
    }
  }
  const std::array<uint32_t, kCentroids> found = counts;
  for (size_t j = 0; j < kCentroids; ++j) {
    if (found[j] == 0) Split(p, room, j, counts, centroids);
  }
}

}  // namespace

std::vector<double> KMeans(const Points& p, int iterations, uint64_t seed, const KMeansRoom& room,
                           float* centroids) {
  assert(p.n >= kCentroids && p.dims <= kMostDims && WholeBlocks(p.n) <= p.stride);
  Begin(p, seed, centroids);
  std::vector<double> losses;
  for (int i = 0; i < iterations; ++i) {
    NearestCentroids(centroids, p.dims, p.x, p.stride, WholeBlocks(p.n), room.codes,
                     room.distances);
    double loss = 0;
    for (size_t k = 0; k < p.n; ++k) loss += double{room.distances[k]};
    losses.push_back(loss);
    Move(p, room, centroids);
  }
  return losses;
}

}  // namespace snug
