// place: where the cached rows live that decoded tokens choose from (read/read.h). In memory, or
// elsewhere: there, whole tiles of keys and values leave memory once they are full, and a token has
// just the rows fetched that it chose. The method's index, the tile being filled and the rows used
// last stay in memory. A place is a file beside this one and a line of its registry (place.cc); the
// cache, the attention kernel and the engine know no place by name.
//
// What a token gives is the same, bit for bit, wherever rows live. Prompts see every row: a layer's
// rows are all in memory while it reads a prompt, and leave before the next layer's begin.
//
// Layers that read all rows stay in memory, as do those with a sliding window.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/spec.h"
#include "base/status.h"
#include "kv/method.h"

namespace snug {

class PlaceMethod : public KvMethod {
 public:
  // Rows of a layer and KV head that stay in memory beside those that were not moved, where a token
  // reads up to `most`, of a context of so many tokens: at least `most`.
  virtual uint32_t HotRows(uint32_t most, uint32_t context) const = 0;
  // Requests that are under way at once.
  virtual uint32_t readers() const = 0;
};

// A place as the registry holds it.
struct PlaceEntry {
  std::string_view name, source;  // source: the paper
  std::string_view summary;
  std::string_view holds;  // what stays in memory, in words
  std::span<const SpecParameter> parameters;
  Result<std::shared_ptr<PlaceMethod>> (*make)(std::span<const double> values);
};
// All but `memory`.
std::span<const PlaceEntry* const> Places();

// The place that a spec string (base/spec.h) names; null for `memory`. Errors: ParseSpec's.
Result<std::shared_ptr<const PlaceMethod>> ParsePlace(std::string_view spec);

// Where places put files if nothing else is said.
inline constexpr std::string_view kPlaceFolder = "/var/tmp";

}  // namespace snug
