// Methods that choose what a prompt's queries read: for each block of queries, under each query
// head, the blocks of keys that look best. All of the prompt's keys are there when they choose
// (engine/prompt.cc), and what they choose may depend on the whole of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kv/read/read.h"

namespace snug {

// How many blocks of keys a block of queries reads.
struct BlockBudget {
  double density = 1;              // share of the prompt's blocks of keys
  uint32_t queries = 0, keys = 0;  // tokens of a block: of queries a multiple of those of keys
  uint32_t QueryBlocks(uint32_t tokens) const { return (tokens + queries - 1) / queries; }
  uint32_t KeyBlocks(uint32_t tokens) const { return (tokens + keys - 1) / keys; }
  // The first and the newest at least.
  uint32_t Blocks(uint32_t tokens) const;
  // The newest block of keys that queries of block `row` see.
  uint32_t Newest(uint32_t tokens, uint32_t row) const;
  // Whether they read all that they see: the first ones, which see little more than the budget, and
  // the last.
  bool Dense(uint32_t tokens, uint32_t row) const;
  // Whether any queries of such a prompt do not.
  bool Chooses(uint32_t tokens) const;
};

// What is known of a prompt under one query head, as the method asks for it; views.
struct PromptHead {
  uint32_t tokens = 0, head_dim = 0;
  // Means over blocks of queries and of the head's keys, both rotated; rows lie so far apart.
  const float *query_means = nullptr, *key_means = nullptr;
  size_t query_stride = 0, key_stride = 0;
  const uint8_t* digest = nullptr;  // what Digest left
};

// The attention of a prompt's last block of queries under one head, dense, summed over them
// (SumLines in kernel/attention_blocks.h); each [tokens].
struct AttentionLines {
  uint32_t tokens = 0;
  const float* columns = nullptr;    // by token
  const float* distances = nullptr;  // by how far it lies before the query
};

class BlockMethod : public ReadMethod {
 public:
  const BlockMethod* blocks() const final { return this; }
  const BlockBudget& budget() const { return budget_; }

  // Whether it goes by the attention of the last queries, else by means.
  virtual bool by_lines() const { return false; }
  // Bytes that Digest makes of the lines of a prompt of so many tokens: a multiple of 64.
  virtual size_t DigestBytes(uint32_t /*tokens*/) const { return 0; }
  // `room` and `numbers` have `tokens` entries.
  virtual void Digest(const AttentionLines& /*lines*/, float* /*room*/, uint32_t* /*numbers*/,
                      uint8_t* /*digest*/) const {}
  // Whether blocks that the queries cannot see compete for the budget, too.
  virtual bool sees_future() const { return false; }
  // What blocks [first, last) of keys are worth to block `row` of queries: scores [last - first].
  virtual void Score(const PromptHead& head, uint32_t row, uint32_t first, uint32_t last,
                     float* scores) const = 0;

  // The blocks of keys that a block of queries which is not dense reads, ascending; returns how
  // many. Always the first, so that each query sees one. All have room for KeyBlocks(tokens).
  uint32_t Choose(const PromptHead& head, uint32_t row, float* scores, float* room,
                  uint32_t* chosen) const;

 protected:
  explicit BlockMethod(const BlockBudget& budget) : budget_(budget) {}
  // Score by products of means.
  void ScoreMeans(const PromptHead& head, uint32_t row, uint32_t first, uint32_t last,
                  float* scores) const;

 private:
  const BlockBudget budget_;
};

inline std::shared_ptr<const BlockMethod> AsBlocks(
    const std::shared_ptr<const ReadMethod>& method) {
  return {method, method == nullptr ? nullptr : method->blocks()};
}

}  // namespace snug
