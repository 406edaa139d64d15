// What the machine's integer units can do at most: the bare instruction that quantized products are
// made of, out of registers.
#pragma once

#include <cstdint>

namespace snug {

// Runs `rounds` rounds of independent products of bytes on this thread and returns how many
// multiply-adds they were. AVX2: vpmaddubsw and vpaddw; AVX-512: vpdpbusd; else as products are
// made there.
uint64_t RunByteProducts(uint64_t rounds);

}  // namespace snug
