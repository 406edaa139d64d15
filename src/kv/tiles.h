// Tiles of rows, as the cache's parts count them.
#pragma once

#include <cstdint>

#include "kernel/attention.h"

namespace snug {

inline constexpr uint32_t kTile = kTileTokens;

constexpr uint32_t Tiles(uint64_t tokens) {
  return static_cast<uint32_t>((tokens + kTile - 1) / kTile);
}

}  // namespace snug
