// Attention of a prompt's queries over blocks of keys, chosen for each query head. The chosen
// blocks are gathered as they are encoded, 256 tokens at a time, and go through the same inner
// kernel as all rows do: where every block is chosen, the result is the dense one bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/attention.h"

namespace snug {

// Widths of blocks are multiples of this.
inline constexpr uint32_t kLeastKeyBlock = 16;

// What some queries read, each as far as it sees it: ascending numbers of blocks of `width` tokens.
// A query that sees none of them gets zeros.
struct KeyBlocks {
  const uint32_t* blocks = nullptr;
  uint32_t count = 0, width = 0;
  // Tokens of them up to and with `position`.
  uint32_t Seen(uint32_t position) const;
};

// Rows [first, first + n) of args (causal, no window, no bias, no coded rows) under query head
// `head`. `stage`: StageBytes (attention_rows.h); `scratch` as for AttendTask. Returns the tokens
// that were read.
uint32_t AttendKeyBlocks(const AttentionArgs& args, uint32_t head, uint32_t first, uint32_t n,
                         const KeyBlocks& keys, uint8_t* stage, uint8_t* scratch);

// How much attention the rows of args pay under query head `head`, dense, summed over the rows: to
// each token, and to each distance from a query back to a token. Both are [first_pos + tokens], and
// `columns` is rounded up to whole tiles. `weights`: room for [tokens, 64]. Sums run tile by tile
// and row by row. The same args as above.
void SumLines(const AttentionArgs& args, uint32_t head, uint8_t* scratch, float* weights,
              float* columns, float* distances);

}  // namespace snug
