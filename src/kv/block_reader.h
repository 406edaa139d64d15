// Prompts whose queries choose blocks of keys (kv/read/blocks.h), one layer after the other: takes
// note of a layer's rotated queries and keys while these are stored, then attends to what each
// block of queries chooses under each query head. What a query reads is a function of the prompt
// and of its position, whatever the chunks and threads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "kernel/attention.h"
#include "kv/read/blocks.h"

namespace snug {

struct BlockReaderLayout {
  std::shared_ptr<const BlockMethod> method;  // null: none
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  uint32_t heads = 0, kv_heads = 0, head_dim = 0, context = 0;
  int threads = 1;
  uint64_t bytes() const;  // of everything
};

class BlockReader {
 public:
  // Reserves room for means or lines, scores, choices and gathered keys (Owner::kScratch).
  static Result<BlockReader> Create(const BlockReaderLayout& layout, Ledger& ledger);
  static uint64_t Bytes(const BlockReaderLayout& layout);

  // Whether queries of a prompt of so many tokens choose.
  bool Chooses(uint32_t tokens) const;

  // A layer of a prompt that begins a sequence begins.
  void Begin(uint32_t tokens);
  // Whether Note wants the queries of rows [first, first + rows).
  bool WantsQueries(uint32_t first, uint32_t rows) const;
  // Rows [first, first + rows) of it, in order: rotated queries [rows, heads * head_dim], which may
  // be null where they are not wanted, and keys [rows, kv_heads * head_dim].
  void Note(const float* q, const float* k, uint32_t first, uint32_t rows, ThreadPool& pool);
  // Whether the query at `position` reads all that it sees.
  bool Dense(uint32_t position) const;
  // Attention of rows that are not dense; all keys of the prompt are stored. `thread_scratch`: of
  // each thread, `scratch_stride` bytes apart, as for AttendTask. Returns the bytes of the cache
  // that were read.
  uint64_t Attend(const AttentionArgs& args, ThreadPool& pool, uint8_t* thread_scratch,
                  size_t scratch_stride);
  // What a block of queries that is not dense reads under a query head, once a layer has begun to
  // attend.
  std::vector<uint32_t> Chosen(uint32_t head, uint32_t row) const;

 private:
  struct Room;
  static Room LayOut(const BlockReaderLayout& layout, uint8_t* base);
  Room room() const;
  PromptHead Head(const Room& room, uint32_t head) const;
  // Digests the attention of the last queries.
  void Estimate(const AttentionArgs& args, ThreadPool& pool, uint8_t* thread_scratch,
                size_t scratch_stride);
  void Average();

  BlockReaderLayout layout_;
  Buffer buffer_;
  uint32_t tokens_ = 0;
  bool ready_ = false;  // to choose
};

}  // namespace snug
