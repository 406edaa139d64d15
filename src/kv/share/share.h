// share: which layers hold rows together. A method pairs layers with the next ones above them and
// says how two rows of a token, the lower layer's and the upper's, become one that both read, each
// times a scale of its own. A method is a file beside this one and a line of its registry
// (share.cc); the cache, the attention kernel and the engine know no method by name.
//
// A prompt is read exactly, layer by layer: both layers of a pair see their own rows, then these
// are merged in whole tiles, the oldest first, and the upper layer's pages go back to the pool. The
// newest tokens stay exact in both layers. Keys are merged as they are stored, after their
// rotation: both layers rotate a token alike, so lengths and angles are the same before it.
//
// Tokens whose rows differ too much stay apart: each layer keeps its own. Keys and values are
// merged independently of each other.
//
// Layers with a sliding window stay outside: they are bounded as they are.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/spec.h"
#include "base/status.h"
#include "kv/method.h"

namespace snug {

// Products of a token's row in the lower layer of a pair (x) and in the upper one (y).
struct RowDots {
  double xx = 0, yy = 0, xy = 0;
};
// What both read: of_lower * x + of_upper * y.
struct RowBlend {
  double of_lower = 0, of_upper = 0;
};

// What is known of the rows of a pair that were merged before, of keys or values, of a unit.
struct ApartSoFar {
  uint32_t count = 0;  // that stay apart
  // The least distance of those, and the extremes of all.
  float least = std::numeric_limits<float>::infinity();
  float low = std::numeric_limits<float>::infinity();
  float high = -std::numeric_limits<float>::infinity();
};

class ShareMethod : public KvMethod {
 public:
  // The lower layer of each pair, ascending, of a model of `layers` layers. kUsage where the
  // parameters do not fit so many.
  virtual Result<std::vector<uint32_t>> Pairs(uint32_t layers) const = 0;
  // Whether each KV head's part of a row is merged by itself, with a scale of its own; otherwise
  // the parts of all are one row.
  virtual bool by_head() const = 0;
  // Whether values stay apart where keys do, whatever they are.
  virtual bool values_follow() const = 0;
  // Newest tokens that stay exact at least.
  virtual uint32_t residual() const = 0;

  // How unlike the rows are, in [0, 1].
  virtual double Distance(const RowDots& dots) const = 0;
  // Each layer's row is then the blend times its own length over the blend's.
  virtual RowBlend Blend(const RowDots& dots) const = 0;
  // Of `rows` merged rows so many stay apart at most.
  virtual uint32_t MostApart(uint32_t rows) const = 0;
  // Which of the next rows stay apart, by their distances: their indexes, ascending, go to
  // `chosen`; returns how many. With these rows `rows` are merged. `room` holds as many floats as
  // there are distances. Updates `so_far`.
  virtual uint32_t Choose(std::span<const float> distances, uint32_t rows, float* room,
                          uint32_t* chosen, ApartSoFar* so_far) const = 0;

  // Of a sequence of `tokens` tokens the first so many are merged: whole tiles.
  uint32_t Shared(uint32_t tokens) const;
  // Tokens at most that are not merged, the one that a step adds included.
  uint32_t MostExact() const;
};

// A method as the registry holds it.
struct ShareEntry {
  std::string_view name, source;  // source: the paper
  std::string_view summary;
  std::string_view stores;  // what lies beside the rows, in words
  std::span<const SpecParameter> parameters;
  Result<std::shared_ptr<ShareMethod>> (*make)(std::span<const double> values);
};
std::span<const ShareEntry* const> ShareMethods();

// The method that a spec string (base/spec.h) names. Errors: ParseSpec's, and kUsage for parameters
// that do not go together.
Result<std::shared_ptr<const ShareMethod>> ParseShare(std::string_view spec);

}  // namespace snug
