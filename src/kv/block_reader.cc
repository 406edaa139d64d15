#include "kv/block_reader.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>

#include "kernel/attention_blocks.h"
#include "kernel/attention_rows.h"
#include "kv/tiles.h"

namespace snug {

struct BlockReader::Room {
  float *query_means = nullptr, *key_means = nullptr;  // [blocks, heads * head_dim]
  float* last_queries = nullptr;                       // [queries, heads * head_dim]
  uint8_t* digests = nullptr;                          // [heads, digest_bytes]
  // Of each thread, thread_bytes apart:
  uint8_t* stage = nullptr;
  float *scores = nullptr, *sort = nullptr;      // [blocks of keys]
  uint32_t* chosen = nullptr;                    // [blocks of keys]
  float *weights = nullptr, *columns = nullptr;  // [queries, 64], [tokens]
  float *distances = nullptr, *ranks = nullptr;  // [tokens]
  uint32_t* numbers = nullptr;                   // [tokens]
  size_t digest_bytes = 0, thread_bytes = 0;
  uint64_t bytes = 0;

  template <class T>
  T* Of(T* first, int thread) const {
    return reinterpret_cast<T*>(reinterpret_cast<uint8_t*>(first) + thread * thread_bytes);
  }
};

BlockReader::Room BlockReader::LayOut(const BlockReaderLayout& l, uint8_t* base) {
  Room r;
  const BlockMethod& method = *l.method;
  const BlockBudget& budget = method.budget();
  const auto take = [&](size_t bytes) {
    uint8_t* p = base == nullptr ? nullptr : base + r.bytes;
    r.bytes += AlignBytes(bytes);
    return p;
  };
  const auto floats = [&](size_t n) { return reinterpret_cast<float*>(take(n * sizeof(float))); };
  const auto numbers = [&](size_t n) {
    return reinterpret_cast<uint32_t*>(take(n * sizeof(uint32_t)));
  };
  const size_t width = size_t{l.heads} * l.head_dim, key_blocks = budget.KeyBlocks(l.context);
  const bool lines = method.by_lines();
  if (lines) {
    r.digest_bytes = method.DigestBytes(l.context);
    r.last_queries = floats(budget.queries * width);
    r.digests = take(l.heads * r.digest_bytes);
  } else {
    r.query_means = floats(budget.QueryBlocks(l.context) * width);
    r.key_means = floats(key_blocks * l.kv_heads * l.head_dim);
  }
  const uint64_t shared = r.bytes;
  r.stage = take(StageBytes(l.key_type, l.value_type, l.head_dim));
  r.scores = floats(key_blocks);
  r.sort = floats(key_blocks);
  r.chosen = numbers(key_blocks);
  if (lines) {
    r.weights = floats(budget.queries * kTileTokens);
    r.columns = floats(Tiles(l.context) * kTileTokens);
    r.distances = floats(l.context);
    r.ranks = floats(l.context);
    r.numbers = numbers(l.context);
  }
  r.thread_bytes = r.bytes - shared;
  r.bytes = shared + r.thread_bytes * l.threads;
  return r;
}

uint64_t BlockReaderLayout::bytes() const {
  return method == nullptr ? 0 : BlockReader::Bytes(*this);
}

uint64_t BlockReader::Bytes(const BlockReaderLayout& layout) {
  return LayOut(layout, nullptr).bytes;
}

Result<BlockReader> BlockReader::Create(const BlockReaderLayout& layout, Ledger& ledger) {
  BlockReader reader;
  reader.layout_ = layout;
  if (layout.method == nullptr) return reader;
  SNUG_ASSIGN(reader.buffer_, Buffer::Allocate(ledger, Owner::kScratch, layout.bytes(),
                                               Pages::kNormal, "choices of blocks to read"));
  return reader;
}

BlockReader::Room BlockReader::room() const {
  return LayOut(layout_, const_cast<uint8_t*>(buffer_.data()));
}

bool BlockReader::Chooses(uint32_t tokens) const {
  return layout_.method != nullptr && layout_.method->budget().Chooses(tokens);
}

bool BlockReader::Dense(uint32_t position) const {
  const BlockBudget& budget = layout_.method->budget();
  return budget.Dense(tokens_, position / budget.queries);
}

void BlockReader::Begin(uint32_t tokens) {
  assert(Chooses(tokens) && tokens <= layout_.context);
  tokens_ = tokens;
  ready_ = false;
  if (layout_.method->by_lines()) return;
  const Room r = room();
  const BlockBudget& budget = layout_.method->budget();
  const size_t dim = layout_.head_dim;
  std::fill_n(r.query_means, budget.QueryBlocks(tokens) * layout_.heads * dim, 0.0f);
  std::fill_n(r.key_means, budget.KeyBlocks(tokens) * layout_.kv_heads * dim, 0.0f);
}

bool BlockReader::WantsQueries(uint32_t first, uint32_t rows) const {
  if (!layout_.method->by_lines()) return true;
  return first + rows + layout_.method->budget().queries > tokens_;
}

void BlockReader::Note(const float* q, const float* k, uint32_t first, uint32_t rows,
                       ThreadPool& pool) {
  const BlockReaderLayout& l = layout_;
  const BlockBudget& budget = l.method->budget();
  const Room r = room();
  const size_t width = size_t{l.heads} * l.head_dim, key_width = size_t{l.kv_heads} * l.head_dim;
  if (l.method->by_lines()) {
    const uint32_t begin = tokens_ - std::min(tokens_, budget.queries);
    for (uint32_t t = std::max(begin, first); t < first + rows; ++t) {
      std::memcpy(r.last_queries + (t - begin) * width, q + (t - first) * width,
                  width * sizeof(float));
    }
    return;
  }
  // Sums, which become means later, token by token: neither chunks nor threads change a bit.
  const auto add = [&](const float* from, size_t row_width, uint32_t head, uint32_t block,
                       float* sums) {
    for (uint32_t t = first; t < first + rows; ++t) {
      const float* x = from + (t - first) * row_width + size_t{head} * l.head_dim;
      float* to = sums + t / block * row_width + size_t{head} * l.head_dim;
      for (uint32_t d = 0; d < l.head_dim; ++d) to[d] += x[d];
    }
  };
  pool.For(l.heads + l.kv_heads, [&](size_t task, int) {
    const auto head = static_cast<uint32_t>(task);
    if (head < l.heads) return add(q, width, head, budget.queries, r.query_means);
    add(k, key_width, head - l.heads, budget.keys, r.key_means);
  });
}

PromptHead BlockReader::Head(const Room& r, uint32_t head) const {
  const BlockReaderLayout& l = layout_;
  PromptHead h{tokens_, l.head_dim};
  if (l.method->by_lines()) {
    h.digest = r.digests + head * r.digest_bytes;
    return h;
  }
  h.query_means = r.query_means + size_t{head} * l.head_dim;
  h.query_stride = size_t{l.heads} * l.head_dim;
  h.key_means = r.key_means + size_t{head / (l.heads / l.kv_heads)} * l.head_dim;
  h.key_stride = size_t{l.kv_heads} * l.head_dim;
  return h;
}

void BlockReader::Average() {
  const BlockReaderLayout& l = layout_;
  const Room r = room();
  const auto divide = [&](float* rows, size_t width, uint32_t block) {
    for (uint32_t first = 0; first < tokens_; first += block, rows += width) {
      const auto n = static_cast<float>(std::min(block, tokens_ - first));
      for (size_t i = 0; i < width; ++i) rows[i] /= n;
    }
  };
  divide(r.query_means, size_t{l.heads} * l.head_dim, l.method->budget().queries);
  divide(r.key_means, size_t{l.kv_heads} * l.head_dim, l.method->budget().keys);
}

void BlockReader::Estimate(const AttentionArgs& args, ThreadPool& pool, uint8_t* thread_scratch,
                           size_t scratch_stride) {
  const BlockReaderLayout& l = layout_;
  const Room r = room();
  AttentionArgs last = args;
  last.tokens = std::min(tokens_, l.method->budget().queries);
  last.first_pos = tokens_ - last.tokens;
  last.q = r.last_queries;
  last.q_stride = size_t{l.heads} * l.head_dim;
  pool.For(l.heads, [&](size_t head, int thread) {
    const AttentionLines lines{tokens_, r.Of(r.columns, thread), r.Of(r.distances, thread)};
    SumLines(last, static_cast<uint32_t>(head), thread_scratch + thread * scratch_stride,
             r.Of(r.weights, thread), r.Of(r.columns, thread), r.Of(r.distances, thread));
    l.method->Digest(lines, r.Of(r.ranks, thread), r.Of(r.numbers, thread),
                     r.digests + head * r.digest_bytes);
  });
}

uint64_t BlockReader::Attend(const AttentionArgs& a, ThreadPool& pool, uint8_t* thread_scratch,
                             size_t scratch_stride) {
  if (!ready_) {
    if (layout_.method->by_lines()) {
      Estimate(a, pool, thread_scratch, scratch_stride);
    } else {
      Average();
    }
    ready_ = true;
  }
  const BlockReaderLayout& l = layout_;
  const BlockBudget& budget = l.method->budget();
  const Room r = room();
  const uint32_t first = a.first_pos / budget.queries;
  const uint32_t rows = (a.first_pos + a.tokens - 1) / budget.queries + 1 - first;
  std::atomic<uint64_t> tokens = 0;
  pool.For(size_t{rows} * l.heads, [&](size_t task, int thread) {
    const auto head = static_cast<uint32_t>(task % l.heads);
    const auto row = static_cast<uint32_t>(first + task / l.heads);
    uint32_t* chosen = r.Of(r.chosen, thread);
    const uint32_t count =
        l.method->Choose(Head(r, head), row, r.Of(r.scores, thread), r.Of(r.sort, thread), chosen);
    // The block's queries that are here.
    const uint32_t begin = std::max(a.first_pos, row * budget.queries);
    const uint32_t end = std::min(a.first_pos + a.tokens, (row + 1) * budget.queries);
    tokens +=
        AttendKeyBlocks(a, head, begin - a.first_pos, end - begin, {chosen, count, budget.keys},
                        r.Of(r.stage, thread), thread_scratch + thread * scratch_stride);
  });
  const size_t token_bytes =
      (KvTileBytes(l.key_type, l.head_dim) + KvTileBytes(l.value_type, l.head_dim)) / kTileTokens;
  return tokens * token_bytes;
}

std::vector<uint32_t> BlockReader::Chosen(uint32_t head, uint32_t row) const {
  assert(ready_);
  const Room r = room();
  std::vector<uint32_t> chosen(layout_.method->budget().KeyBlocks(tokens_));
  chosen.resize(layout_.method->Choose(Head(r, head), row, r.scores, r.sort, chosen.data()));
  return chosen;
}

}  // namespace snug
