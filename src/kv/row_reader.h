// Decodes over a cache with a read method (read/read.h): scores the index, chooses rows for each KV
// head, attends to them. The choice of a token is a function of its queries and of the rows that it
// sees, whatever the threads and whatever else the step runs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "kernel/attention.h"
#include "kv/placed_rows.h"
#include "kv/read/read.h"

namespace snug {

struct RowReaderLayout {
  std::shared_ptr<const RowMethod> method;  // null: none
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  uint32_t heads = 0, kv_heads = 0, head_dim = 0, context = 0;
  int threads = 1;
  uint64_t bytes() const;  // of everything
};

class RowReader {
 public:
  // Reserves room for scores, choices and gathered rows (Owner::kScratch).
  static Result<RowReader> Create(const RowReaderLayout& layout, Ledger& ledger);

  // Whether a query that sees `rows` rows reads fewer.
  bool Chooses(uint32_t rows) const;
  // Attention of the last row of `args`, which is one token, in the model's layer `layer`. The
  // tiles have indexes behind their values, where `placed` has not them and the rows that are in no
  // tile. `thread_scratch`: of each thread, `scratch_stride` bytes apart, as for AttendTask.
  // Returns the bytes of the cache that were read. Errors: those of PlacedRows::Fetch.
  Result<uint64_t> Attend(const AttentionArgs& args, uint32_t layer, ThreadPool& pool,
                          uint8_t* thread_scratch, size_t scratch_stride,
                          const PlacedLayer& placed = {});
  static uint64_t Bytes(const RowReaderLayout& layout);
  // What the last call chose for a KV head, ascending.
  std::span<const uint32_t> chosen(uint32_t kv_head) const;

 private:
  struct Room;
  // Chooses rows of the last one of `args` for each KV head.
  void Choose(const AttentionArgs& args, uint32_t layer, ThreadPool& pool,
              const PlacedLayer& placed);
  static Room LayOut(const RowReaderLayout& layout, uint8_t* base);

  RowReaderLayout layout_;
  Buffer buffer_;
  uint32_t count_ = 0;  // of the last choice
};

}  // namespace snug
