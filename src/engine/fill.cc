// Caches filled with made-up rows: what decoding after a long prompt costs, without reading one.
#include <algorithm>
#include <random>

#include "engine/engine.h"

namespace snug {
namespace {

constexpr uint32_t kMadeUpRows = 1009;  // a prime, so that tiles differ
constexpr Token kNoToken = -1;          // no text begins so: nothing goes on from such rows

}  // namespace

Status Engine::FillCache(uint32_t sequence, uint32_t total) {
  SNUG_TRY(CheckRoom(sequence, total));
  if (config().encoder || config().recurrent_layers() > 0) {
    return MakeError(Code::kUsage,
                     "made-up rows make no sense to a model that has states or reads whole texts",
                     "measure with a prompt");
  }
  if (length(sequence) > 0) return MakeError(Code::kUsage, "only an empty sequence is filled");
  const uint32_t dim = config().head_dim;
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> made_up(size_t{kMadeUpRows} * dim);
  for (float& x : made_up) x = normal(rng);
  const KvLayout& kv = cache_->layout();
  const uint32_t heads = kv.kv_heads / kv.groups();
  // Rows of tokens [first, first + n), which begin at the layer's row `at`.
  const auto store = [&](uint32_t layer, uint32_t at, uint32_t n) {
    const auto store_key = kv.KeyRows(layer) ? StoreValue : StoreKey;
    for (uint32_t i = at; i < at + n; ++i) {
      for (uint32_t g = 0; g < kv.groups(); ++g) {
        uint8_t* page = cache_->page(sequence, layer, i / kTileTokens, g);
        uint8_t* values = page + heads * cache_->key_tile_bytes();
        for (uint32_t h = 0; h < heads; ++h) {
          const uint64_t row = (uint64_t{i} * kv.kv_heads + g * heads + h) * 2 + layer * 31;
          store_key(kv.key_type, &made_up[row % kMadeUpRows * dim], dim, i % kTileTokens,
                    page + h * cache_->key_tile_bytes());
          StoreValue(kv.value_type, &made_up[(row + 1) % kMadeUpRows * dim], dim, i % kTileTokens,
                     values + h * cache_->value_tile_bytes());
        }
      }
    }
    if (!kv.Reads(layer)) return;
    for (uint32_t tile = at / kTileTokens; tile * kTileTokens < at + n; ++tile) {
      const uint32_t begin = tile * kTileTokens, end = begin + kTileTokens;
      cache_->IndexRows(sequence, layer, tile, std::max(begin, at) - begin,
                        std::min(end, at + n) - begin);
    }
  };
  const auto chunks = [&](const auto& chunk) {
    for (uint32_t done = 0; done < total; done += plan_.chunk) {
      chunk(std::min(plan_.chunk, total - done));
    }
  };
  if (options_.by_layer()) {
    cache_->BeginPrompt(sequence, total, {});
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      cache_->BeginLayer(sequence, layer);
      chunks([&](uint32_t n) {
        const uint32_t at = cache_->rows(sequence, layer);
        cache_->ExtendLayer(sequence, layer, n);
        store(layer, at, n);
        cache_->CommitLayer(sequence, layer, n);
      });
      cache_->EndLayer(sequence, layer, *pool_);
      if (const Status placed = cache_->PlaceLayer(sequence, layer); !placed.ok()) {
        Clear(sequence);
        return placed;
      }
    }
    cache_->EndPrompt(sequence);
  } else {
    chunks([&](uint32_t n) {
      const uint32_t at = cache_->length(sequence);
      cache_->Extend(sequence, n);
      for (uint32_t layer = 0; layer < layers_; ++layer) store(layer, at, n);
      cache_->Commit(sequence, n);
    });
  }
  history_[sequence].insert(history_[sequence].end(), total, kNoToken);
  prompt_length_[sequence] = total;
  return {};
}

}  // namespace snug
