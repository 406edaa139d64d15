// Attention of a prompt in one layer: dense, and where its queries choose blocks of keys (kv/read),
// the choice included. Made-up queries, keys and values; times are of processors, as the two take
// turns on a machine that may have other work.
//
//   block_attention_bench [tokens] [spec ...]
#include <fmt/format.h>

#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernel/targets.h"
#include "kv/block_reader.h"
#include "kv/cache.h"

namespace snug {
namespace {

// Qwen 2.5 1.5B's.
constexpr uint32_t kHeads = 12, kKvHeads = 2, kDim = 128, kWidth = kHeads * kDim, kChunk = 512;

double Seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// A layer's prompt, stored.
struct Layer {
  Layer(uint32_t n, Ledger& ledger)
      : tokens(n), q(size_t{n} * kWidth), k(size_t{n} * kKvHeads * kDim) {
    KvLayout l;
    l.layers = 1;
    l.kv_heads = kKvHeads;
    l.head_dim = kDim;
    l.window = {0};
    l.context = l.chunk = n;
    auto made = KvCache::Create(l, ledger);
    if (!made.ok()) std::exit(1);
    cache = std::make_unique<KvCache>(std::move(*made));
    cache->Extend(0, n);
    std::mt19937 rng(1);
    std::uniform_real_distribution<float> some(-1, 1);
    for (auto* rows : {&q, &k}) {
      for (float& x : *rows) x = some(rng);
    }
    for (uint32_t t = 0; t < n; ++t) {
      uint8_t* page = cache->page(0, 0, t / kTileTokens);
      for (uint32_t h = 0; h < kKvHeads; ++h) {
        const float* row = &k[(size_t{t} * kKvHeads + h) * kDim];
        StoreKey(KvType::kF16, row, kDim, t % kTileTokens, page + h * cache->key_tile_bytes());
        StoreValue(KvType::kF16, row, kDim, t % kTileTokens,
                   page + kKvHeads * cache->key_tile_bytes() + h * cache->value_tile_bytes());
      }
    }
    cache->Commit(0, n);
    out.resize(kChunk * kWidth);
    scratch.resize(AttentionScratchBytes(kDim, kHeads / kKvHeads) + 64);
    room = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
  }
  AttentionArgs Rows(uint32_t first, uint32_t n) {
    AttentionArgs a;
    a.key_type = a.value_type = KvType::kF16;
    a.heads = kHeads;
    a.kv_heads = kKvHeads;
    a.head_dim = kDim;
    a.scale = 0.0883883f;
    a.q = &q[size_t{first} * kWidth];
    a.out = out.data();
    a.q_stride = a.out_stride = kWidth;
    a.tokens = n;
    a.first_pos = first;
    a.tiles = cache->tiles(0, 0);
    a.table_stride = cache->table_stride();
    return a;
  }
  void Dense(uint32_t first, uint32_t n) {
    const AttentionArgs a = Rows(first, n);
    const AttentionPlan plan = PlanAttention(a, 1);
    for (uint32_t t = 0; t < plan.tasks; ++t) AttendTask(a, plan, t, room, nullptr);
  }
  const uint32_t tokens;
  std::vector<float> q, k, out;
  std::unique_ptr<KvCache> cache;
  std::vector<uint8_t> scratch;
  uint8_t* room = nullptr;
};

double TimeDense(Layer& layer) {
  const double start = Seconds();
  for (uint32_t at = 0; at < layer.tokens; at += kChunk) {
    layer.Dense(at, std::min(kChunk, layer.tokens - at));
  }
  return Seconds() - start;
}

double TimeBlocks(Layer& layer, BlockReader& reader, uint32_t queries, ThreadPool& pool) {
  const double start = Seconds();
  reader.Begin(layer.tokens);
  for (uint32_t at = 0; at < layer.tokens; at += kChunk) {
    reader.Note(&layer.q[size_t{at} * kWidth], &layer.k[size_t{at} * kKvHeads * kDim], at,
                std::min(kChunk, layer.tokens - at), pool);
  }
  for (uint32_t at = 0; at < layer.tokens; at += queries) {
    const uint32_t n = std::min(queries, layer.tokens - at);
    if (reader.Dense(at)) {
      layer.Dense(at, n);
    } else {
      reader.Attend(layer.Rows(at, n), pool, layer.room, layer.scratch.size() - 64);
    }
  }
  return Seconds() - start;
}

int Run(int argc, char** argv) {
  ChooseTarget();
  const auto tokens = static_cast<uint32_t>(argc > 1 ? std::atoi(argv[1]) : 4096);
  std::vector<std::string> specs(argv + std::min(argc, 2), argv + argc);
  if (specs.empty()) specs = {"dhsa", "dhsa:mode=topk", "block-sparse"};
  Ledger ledger(uint64_t{4} << 30);
  ThreadPool pool(1);
  Layer layer(tokens, ledger);
  TimeDense(layer);
  for (const std::string& spec : specs) {
    auto method = ParseRead(spec);
    if (!method.ok() || (*method)->blocks() == nullptr) return 1;
    const auto blocks = AsBlocks(*method);
    auto reader = BlockReader::Create(
        {blocks, KvType::kF16, KvType::kF16, kHeads, kKvHeads, kDim, tokens, 1}, ledger);
    if (!reader.ok() || !reader->Chooses(tokens)) return 1;
    const double dense = TimeDense(layer);
    const double sparse = TimeBlocks(layer, *reader, blocks->budget().queries, pool);
    fmt::print("{} tokens, {}: {:.3f} s of {:.3f} s dense, {:.3f}\n", tokens, spec, sparse, dense,
               sparse / dense);
  }
  return 0;
}

}  // namespace
}  // namespace snug

int main(int argc, char** argv) { return snug::Run(argc, argv); }
