// Prompts where the cache drops rows (kv/keep/keep.h), has them coded (kv/codec/codec.h), shared
// (kv/share/share.h) or elsewhere (kv/place/place.h), or whose queries choose blocks of keys
// (kv/read/blocks.h): each layer reads the whole prompt before the next one begins, so that only
// one layer's keys and values (of those that share two layers') are ever all there as they were
// stored.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "engine/engine.h"
#include "kv/extremes.h"

namespace snug {

Status Engine::EmbedPrompt(uint32_t sequence, std::span<const Token> tokens) {
  const size_t dim = config().dim;
  for (size_t done = 0; done < tokens.size(); done += plan_.chunk) {
    const auto n = static_cast<uint32_t>(std::min<size_t>(plan_.chunk, tokens.size() - done));
    const RowSpan span{sequence, 0, n, cache_->length(sequence) + static_cast<uint32_t>(done)};
    blocks_->Begin({&span, 1});
    const StepItem item{sequence, tokens.subspan(done, n), StepItem::Logits::kNone};
    SNUG_TRY(Embed({&item, 1}));
    std::memcpy(hidden_.as<float>() + done * dim, blocks_->x(0), n * dim * sizeof(float));
  }
  return {};
}

Status Engine::RunChunks(uint32_t sequence, uint32_t layer, uint32_t tokens,
                         const LayerWeights& weights, Extent extent,
                         const AfterChunk& after_chunk) {
  const size_t dim = config().dim;
  const uint32_t length = cache_->length(sequence);
  if (cache_->layout().Codes(layer) && length == 0) {
    cache_->KeepExact(
        sequence, layer,
        TokensOfExtremes(hidden_.as<float>(), tokens, dim, options_.codec->Extremes()));
  }
  blocks_->set_next_layer(nullptr);
  const auto pass = [&](Blocks::Pass what, bool stores) -> Status {
    blocks_->BeginPass(what, tokens);
    for (uint32_t done = 0; done < tokens;) {
      const uint32_t n = std::min(plan_.chunk, tokens - done);
      const RowSpan span{sequence, 0, n, length + done, true};
      blocks_->Begin({&span, 1});
      if (stores) cache_->ExtendLayer(sequence, layer, n);
      float* rows = hidden_.as<float>() + done * dim;
      std::memcpy(blocks_->x(0), rows, n * dim * sizeof(float));
      if (extent == Extent::kKeys) {
        model_->Keys(*blocks_, layer, weights);
      } else {
        model_->Layer(*blocks_, layer, weights);
      }
      if (stores) cache_->CommitLayer(sequence, layer, n);
      done += n;
      if (what == Blocks::Pass::kStore) continue;
      if (extent == Extent::kLayer) {
        std::memcpy(rows, blocks_->x(0), n * dim * sizeof(float));
        traffic_.weight_bytes += layout_.parts[1 + layer].bytes;
      }
      SNUG_TRY(blocks_->TakeError());
      SNUG_TRY(after_chunk(done));
    }
    return {};
  };
  // Of a prompt that is reduced, the first pass reads all rows.
  const bool chooses =
      !cache_->layout().one_layer && length == 0 && blocks_->ChoosesBlocks(layer, tokens);
  if (!chooses) return pass(Blocks::Pass::kWhole, true);
  Status status = pass(Blocks::Pass::kStore, true);
  if (status.ok()) status = pass(Blocks::Pass::kRead, false);
  blocks_->BeginPass(Blocks::Pass::kWhole);
  return status;
}

Status Engine::RunPromptLayer(uint32_t sequence, uint32_t layer, uint32_t tokens,
                              const AfterChunk& after_chunk) {
  const size_t part = 1 + layer;
  const uint64_t experts_before = blocks_->expert_bytes_used();
  SNUG_ASSIGN(const uint8_t* base, place_->Acquire(part));
  const LayerWeights weights = ViewPart(layout_.parts[part], base);
  Status status = cache_->FetchLayer(sequence, layer);
  cache_->BeginLayer(sequence, layer);
  if (status.ok())
    status = RunChunks(sequence, layer, tokens, weights, Extent::kLayer, after_chunk);
  place_->Release(part);
  traffic_.weight_bytes += blocks_->expert_bytes_used() - experts_before;
  if (!status.ok()) return status;
  cache_->EndLayer(sequence, layer, *pool_);
  return cache_->PlaceLayer(sequence, layer);
}

Engine::AfterChunk Engine::ShareOfPrompt(const PromptProgress& progress, uint32_t total,
                                         uint32_t layer, uint32_t layers) {
  return [&progress, total, layer, layers](uint32_t done) -> Status {
    const uint64_t work = uint64_t{total} * layer + done;
    const bool last = layer + 1 == layers && done == total;
    const auto shown = static_cast<uint32_t>(last ? total : work / layers);
    if (!progress || progress(shown, total)) return {};
    return MakeError(Code::kCancelled,
                     fmt::format("cancelled after {} of {} prompt tokens", shown, total));
  };
}

void Engine::AbandonPass(size_t next, size_t parts) {
  for (; next < parts && place_->Acquire(next).ok(); ++next) place_->Release(next);
}

std::string Engine::EndOfPrompt(std::span<const Token> tokens) const {
  const size_t wanted = options_.keep == nullptr ? 0 : options_.keep->reads_end();
  std::string text;
  if (tokenizer_ == nullptr) return text;
  for (const Token t : tokens.last(std::min(wanted, tokens.size()))) {
    tokenizer_->Decode(t, false, &text);
  }
  return text;
}

Status Engine::PrefillByLayer(uint32_t sequence, std::span<const Token> tokens,
                              const PromptProgress& progress) {
  SNUG_TRY(CheckTokens(sequence, tokens));
  if (tokens.empty()) return {};
  const auto total = static_cast<uint32_t>(tokens.size());
  const uint64_t kv_before = blocks_->kv_bytes_read();
  const size_t parts = PartsOf(true);
  size_t next_part = 1;
  place_->BeginPass(parts, NextParts(true));
  const auto run = [&]() -> Status {
    SNUG_TRY(EmbedPrompt(sequence, tokens));
    cache_->BeginPrompt(sequence, total, EndOfPrompt(tokens));
    for (uint32_t l = 0; l < layers_; ++l) {
      next_part = 2 + l;
      SNUG_TRY(RunPromptLayer(sequence, l, total, ShareOfPrompt(progress, total, l, layers_)));
    }
    cache_->EndPrompt(sequence);
    next_part = parts;
    const uint32_t last_row = blocks_->rows() - 1;
    return RunHead({&last_row, 1});
  };
  if (const Status status = run(); !status.ok()) {
    AbandonPass(next_part, parts);
    Clear(sequence);
    return status;
  }
  Remember(sequence, tokens);
  traffic_.kv_bytes += blocks_->kv_bytes_read() - kv_before;
  return {};
}

}  // namespace snug
