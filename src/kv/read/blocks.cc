#include "kv/read/blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "kernel/attention_blocks.h"
#include "kv/read/registry.h"

namespace snug {
namespace {

constexpr float kLeastScore = -1e30f;

// In eight sums, so that the compiler may use vectors.
float Dot(const float* a, const float* b, size_t n) {
  constexpr size_t kSums = 8;
  float sums[kSums] = {};
  size_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (size_t j = 0; j < kSums; ++j) sums[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) sums[i % kSums] += a[i] * b[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

Result<BlockBudget> BlockBudgetOf(std::span<const double> values, std::string_view method) {
  const BlockBudget b{values[0], static_cast<uint32_t>(values[1]),
                      static_cast<uint32_t>(values[2])};
  const auto refuse = [&](std::string_view name, uint32_t value, const std::string& why,
                          const std::string& next) {
    return MakeError(Code::kUsage, fmt::format("--kv-read {}: {}={} {}", method, name, value, why),
                     next, {{"option", "--kv-read"}, {"parameter", std::string(name)}});
  };
  if (b.keys % kLeastKeyBlock != 0) {
    return refuse("keys", b.keys, fmt::format("is no multiple of {}", kLeastKeyBlock),
                  "for example keys=32");
  }
  if (b.queries % b.keys != 0) {
    return refuse("queries", b.queries, fmt::format("is no multiple of keys={}", b.keys),
                  fmt::format("for example queries={}", 4 * b.keys));
  }
  return b;
}

uint32_t BlockBudget::Blocks(uint32_t tokens) const {
  const auto share = static_cast<uint32_t>(std::floor(density * tokens / keys));
  return std::clamp<uint32_t>(share, 2, std::max(2u, KeyBlocks(tokens)));
}

uint32_t BlockBudget::Newest(uint32_t tokens, uint32_t row) const {
  const uint64_t last = std::min<uint64_t>(tokens, (uint64_t{row} + 1) * queries) - 1;
  return static_cast<uint32_t>(last / keys);
}

bool BlockBudget::Dense(uint32_t tokens, uint32_t row) const {
  const uint64_t seen_whole = uint64_t{Blocks(tokens)} * keys;
  return uint64_t{row} * queries < seen_whole || row + 1 == QueryBlocks(tokens);
}

bool BlockBudget::Chooses(uint32_t tokens) const {
  const uint32_t rows = QueryBlocks(tokens);
  return rows >= 2 && !Dense(tokens, rows - 2);
}

uint32_t BlockMethod::Choose(const PromptHead& head, uint32_t row, float* scores, float* room,
                             uint32_t* chosen) const {
  const uint32_t newest = budget_.Newest(head.tokens, row), blocks = budget_.Blocks(head.tokens);
  assert(!budget_.Dense(head.tokens, row) && newest >= blocks);
  const uint32_t end = sees_future() ? budget_.KeyBlocks(head.tokens) : newest;
  Score(head, row, 1, end, scores);
  for (uint32_t i = 0; i + 1 < end; ++i) {
    if (!(std::fabs(scores[i]) < -kLeastScore)) scores[i] = kLeastScore;
  }
  chosen[0] = 0;
  const uint32_t best = blocks - (sees_future() ? 1 : 2);
  ChooseLargest({scores, end - 1}, best, room, chosen + 1);
  for (uint32_t i = 1; i <= best; ++i) ++chosen[i];
  if (sees_future()) {
    return static_cast<uint32_t>(std::upper_bound(chosen, chosen + blocks, newest) - chosen);
  }
  chosen[blocks - 1] = newest;
  return blocks;
}

void BlockMethod::ScoreMeans(const PromptHead& head, uint32_t row, uint32_t first, uint32_t last,
                             float* scores) const {
  const float* q = head.query_means + row * head.query_stride;
  for (uint32_t b = first; b < last; ++b) {
    scores[b - first] = Dot(q, head.key_means + b * head.key_stride, head.head_dim);
  }
}

}  // namespace snug
