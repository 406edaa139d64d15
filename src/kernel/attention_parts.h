// What the forms of attention over chosen rows share beside attention_internal.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/attention_internal.h"

namespace snug {

// Tokens whose keys lie together: a column of the keys' tile.
inline constexpr size_t kRunTokens = kColumn / 2;

// Copies kRunTokens tokens of a head, as they are encoded, from a multiple of kRunTokens to
// another: their keys are one run of bytes, their values one in each column of dimensions.
void CopyRun(const AttentionArgs& args, const HeadTiles& from, size_t from_slot, uint8_t* keys,
             uint8_t* values, size_t to_slot);

// Writes args.out, and log_sums where wanted, of one row and query head: `total` [padded dim] over
// the sum of its weights, the sink's included; `max` is in units of log 2.
void FinishRow(const AttentionArgs& args, size_t row, size_t head, const float* total, float max,
               float sum);

}  // namespace snug
