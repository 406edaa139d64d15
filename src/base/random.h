// Numbers that look random and follow from what they are asked for.
#pragma once

#include <cstdint>

namespace snug {

// The output of SplitMix64 (Steele, Lea and Flood 2014) at state `x`.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

}  // namespace snug
