// The places that place.cc lists, one line each.
#pragma once

#include "kv/place/place.h"

namespace snug {

extern const PlaceEntry kPlaceDisk;

}  // namespace snug
