#include "kv/place/place.h"

#include "kv/place/registry.h"

namespace snug {
namespace {

constexpr const PlaceEntry* kPlaces[] = {
    &kPlaceDisk,  //
};

// Where rows are if they are nowhere else.
const PlaceEntry kMemory = {
    "memory", "", "", "", {}, [](std::span<const double>) -> Result<std::shared_ptr<PlaceMethod>> {
      return std::shared_ptr<PlaceMethod>();
    }};

}  // namespace

std::span<const PlaceEntry* const> Places() { return kPlaces; }

Result<std::shared_ptr<const PlaceMethod>> ParsePlace(std::string_view spec) {
  std::vector<const PlaceEntry*> known = {&kMemory};
  known.insert(known.end(), std::begin(kPlaces), std::end(kPlaces));
  return ParseMethod<PlaceMethod>(spec, std::span<const PlaceEntry* const>(known), "--kv-place");
}

}  // namespace snug
