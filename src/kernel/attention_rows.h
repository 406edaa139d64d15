// Attention of one query over some of the cached rows. The chosen rows are gathered as they are
// encoded, 256 at a time, and go through the same inner kernel as all rows do: where every row is
// chosen, the result is the dense one bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/attention.h"

namespace snug {

// The rows that each KV head reads, ascending: [kv_heads, stride] of which the first `count`.
struct ChosenRows {
  const uint32_t* rows = nullptr;
  size_t stride = 0;
  uint32_t count = 0;
  // [kv_heads, stride] a row's packed key (packed_row.h), then its value, where it lies in none of
  // the tiles, else null; null: all do.
  const uint8_t* const* packed = nullptr;
};

// Tasks of a step of one token (args.tokens = 1, no window): a task is 256 chosen rows of one KV
// head. What it leaves in `partial` [PartialFloats(1, heads, head_dim, count)] CombineChosen joins.
uint32_t ChosenTasks(const AttentionArgs& args, uint32_t count);
// Bytes of `stage`, a thread's room for the gathered rows.
size_t StageBytes(KvType key_type, KvType value_type, size_t head_dim);
// `scratch` as for AttendTask.
void AttendChosen(const AttentionArgs& args, const ChosenRows& chosen, uint32_t task,
                  uint8_t* stage, uint8_t* scratch, float* partial);
// Writes args.out of one query head.
void CombineChosen(const AttentionArgs& args, const ChosenRows& chosen, const float* partial,
                   uint32_t head);

}  // namespace snug
