#include "engine/codebook_training.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/random.h"
#include "format/dtype.h"
#include "kv/codec/kmeans.h"

namespace snug {
namespace {

constexpr int kIterations = 25;

// Vectors of a layer's sample: all books' share of what is asked for.
uint32_t LayerVectors(const CodebookShape& shape, const CodebookOptions& options) {
  if (!shape.global) return options.vectors;
  const auto layers = static_cast<uint32_t>(std::max<size_t>(shape.layers.size(), 1));
  return (options.vectors + layers - 1) / layers;
}

uint64_t SampleBytes(const CodebookShape& shape, uint32_t vectors) {
  return 2 * shape.layers.size() * vectors * uint64_t{shape.head_dim} * sizeof(uint16_t);
}

// Points of a book, to whole blocks.
uint64_t MostPoints(const CodebookShape& shape, uint32_t vectors) {
  const uint64_t n = shape.global ? shape.layers.size() * uint64_t{vectors} : vectors;
  return (n + kPointBlock - 1) / kPointBlock * kPointBlock;
}

// A thread's: points, their distances, their codes.
uint64_t RoomBytes(const CodebookShape& shape, uint32_t vectors) {
  return AlignBytes(MostPoints(shape, vectors) * (shape.dims + 1) * sizeof(float) +
                    MostPoints(shape, vectors));
}

}  // namespace

uint64_t CodebookTraining::Bytes(const ModelConfig& model, const CodebookOptions& options,
                                 int threads) {
  const CodebookShape shape = CodebookShapeOf(model, options.dims, options.global);
  const uint32_t vectors = LayerVectors(shape, options);
  return shape.bytes() + Buffer::Reserved(SampleBytes(shape, vectors), Pages::kNormal) +
         Buffer::Reserved(static_cast<uint64_t>(threads) * RoomBytes(shape, vectors),
                          Pages::kNormal);
}

Result<std::unique_ptr<CodebookTraining>> CodebookTraining::Create(const ModelConfig& model,
                                                                   const CodebookOptions& options,
                                                                   int threads, Ledger& ledger) {
  const CodebookShape shape = CodebookShapeOf(model, options.dims, options.global);
  if (shape.layers.empty() || model.head_dim % options.dims != 0) {
    return MakeError(Code::kUsage,
                     shape.layers.empty()
                         ? fmt::format("{} has no layer with attention over all rows", model.name)
                         : fmt::format("sub-vectors of {} do not divide heads of {}", options.dims,
                                       model.head_dim),
                     "codebooks are of no use here: --kv f16 or q8_0");
  }
  const uint32_t vectors = LayerVectors(shape, options);
  std::unique_ptr<CodebookTraining> t(new CodebookTraining(model, shape, vectors));
  SNUG_ASSIGN(t->samples_, Buffer::Allocate(ledger, Owner::kScratch, SampleBytes(shape, vectors),
                                            Pages::kNormal, "a sample of keys and values"));
  t->room_bytes_ = RoomBytes(shape, vectors);
  SNUG_ASSIGN(t->rooms_, Buffer::Allocate(ledger, Owner::kScratch,
                                          static_cast<uint64_t>(threads) * t->room_bytes_,
                                          Pages::kNormal, "points of k-means"));
  SNUG_ASSIGN(t->books_, Codebooks::Allocate(shape, Owner::kScratch, ledger));
  return t;
}

uint16_t* CodebookTraining::Sample(size_t layer, bool values) {
  const size_t floats = size_t{capacity_} * shape_.head_dim;
  return samples_.as<uint16_t>() + (2 * layer + (values ? 1 : 0)) * floats;
}

uint32_t CodebookTraining::Held(size_t layer) const {
  return static_cast<uint32_t>(std::min<uint64_t>(seen_[layer], capacity_));
}

uint32_t CodebookTraining::vectors() const {
  uint32_t all = 0, least = UINT32_MAX;
  for (size_t l = 0; l < seen_.size(); ++l) {
    all += Held(l);
    least = std::min(least, Held(l));
  }
  return shape_.global ? all : least;
}

// Keeps a uniform sample of all vectors that a layer has had so far (Vitter 1985, algorithm R),
// chosen by their numbers: tokens in order, of each its heads.
void CodebookTraining::Rotated(uint32_t layer, const float*, const float* k, const float* v,
                               uint32_t rows, uint32_t /*first_pos*/) {
  const auto at = std::lower_bound(shape_.layers.begin(), shape_.layers.end(), layer);
  if (at == shape_.layers.end() || *at != layer) return;
  const auto l = static_cast<size_t>(at - shape_.layers.begin());
  const size_t dim = shape_.head_dim;
  const auto keep = [&](const float* from, uint16_t* to) {
    for (size_t c = 0; c < dim; ++c) to[c] = FloatToHalf(std::clamp(from[c], -kMaxHalf, kMaxHalf));
  };
  for (size_t i = 0; i < size_t{rows} * model_.kv_heads; ++i) {
    const uint64_t number = seen_[l]++;
    const uint64_t slot = number < capacity_ ? number : Mix64(Mix64(layer) + number) % (number + 1);
    if (slot >= capacity_) continue;
    keep(k + i * dim, Sample(l, false) + slot * dim);
    keep(v + i * dim, Sample(l, true) + slot * dim);
  }
}

void CodebookTraining::TrainBook(size_t pair, bool values, uint32_t subspace, uint8_t* room) {
  const size_t dims = shape_.dims, stride = MostPoints(shape_, capacity_);
  auto* x = reinterpret_cast<float*>(room);
  float* distances = x + dims * stride;
  uint8_t* codes = reinterpret_cast<uint8_t*>(distances + stride);
  std::fill_n(x, dims * stride, 0.0f);
  size_t n = 0;
  const size_t first = shape_.global ? 0 : pair, last = shape_.global ? seen_.size() : pair + 1;
  for (size_t l = first; l < last; ++l) {
    const uint16_t* from = Sample(l, values) + subspace * dims;
    for (uint32_t i = 0; i < Held(l); ++i, ++n, from += shape_.head_dim) {
      for (size_t c = 0; c < dims; ++c) x[c * stride + n] = HalfToFloat(from[c]);
    }
  }
  float* book = values ? books_.values(pair) : books_.keys(pair);
  float* centroids = book + subspace * kCentroids * dims;
  const uint64_t seed = Mix64(pair * 2 + (values ? 1 : 0)) + subspace;
  KMeans({x, stride, dims, n}, kIterations, Mix64(seed), {codes, distances}, centroids);
  // As the rows are stored, so that a decoded row has its own code.
  for (size_t i = 0; i < kCentroids * dims; ++i)
    centroids[i] = HalfToFloat(FloatToHalf(std::clamp(centroids[i], -kMaxHalf, kMaxHalf)));
}

Status CodebookTraining::Train(ThreadPool& pool,
                               const std::function<bool(uint32_t done, uint32_t total)>& progress) {
  if (vectors() < kCentroids) {
    return MakeError(
        Code::kBadInput,
        fmt::format("{} vectors of each layer are too few for {} centroids", vectors(), kCentroids),
        "a longer text, or more --chunks", {{"vectors", std::to_string(vectors())}});
  }
  const auto total = static_cast<uint32_t>(2 * shape_.pairs());
  for (uint32_t i = 0; i < total; ++i) {
    pool.For(shape_.head_dim / shape_.dims, [&](size_t subspace, int thread) {
      TrainBook(i / 2, i % 2 != 0, static_cast<uint32_t>(subspace),
                rooms_.data() + static_cast<size_t>(thread) * room_bytes_);
    });
    if (progress && !progress(i + 1, total)) {
      return MakeError(Code::kCancelled,
                       fmt::format("cancelled after {} of {} codebooks", i + 1, total));
    }
  }
  return {};
}

}  // namespace snug
