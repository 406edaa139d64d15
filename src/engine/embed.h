// Embeddings of texts by an encoder: whole texts packed into steps, each pooled over its tokens
// (Reimers and Gurevych 2019). A text's embedding does not depend on what shares its step.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "engine/engine.h"

namespace snug {

struct EmbedOptions {
  std::optional<Pooling> pooling;  // none: the model's own
  std::optional<bool> normalize;   // to length 1; none: as the model says
  bool truncate = false;           // texts longer than the context lose their end
};

struct EmbedStats {
  uint64_t texts = 0, tokens = 0, truncated = 0;
  double seconds = 0;  // in steps and pooling
};

// Gives the next text, or false after the last.
using NextText = std::function<Result<bool>(std::string* text)>;
// Takes embeddings [dim] in the order of the texts, with the text's tokens.
using TakeEmbedding = std::function<void(std::span<const float> embedding, uint32_t tokens)>;

// Embeds texts as they come, holding those of one step. Errors: kDoesNotFit for a text longer than
// the context, with its number and length, unless texts are truncated; those of `next`; kIo.
Result<EmbedStats> Embed(Engine& engine, const EmbedOptions& options, const NextText& next,
                         const TakeEmbedding& take);

}  // namespace snug
