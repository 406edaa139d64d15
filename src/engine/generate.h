// Generation: prompt in, text out, one sequence at a time over the engine's steps.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/sampler.h"

namespace snug {

struct GenerateOptions {
  uint32_t max_tokens = 128;
  SamplingOptions sampling;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool lookup = false;     // prompt-lookup speculation
  bool plane_head = true;  // use the plane-split head where the sampler allows it
  std::function<void(std::string_view text)> on_text;  // whole UTF-8 sequences; may be null
  std::function<void(uint32_t done, uint32_t total)> on_prefill;  // may be null
  const std::atomic<bool>* cancel =
      nullptr;  // set: stop with what there is, finish_reason "cancelled"
};

struct Generation {
  std::string text;
  std::vector<Token> tokens;
  uint32_t prompt_tokens = 0, cached_tokens = 0;
  // The prompt's tokens that were read, by number, where the engine chose (options().reduce).
  std::vector<uint32_t> read;
  std::string finish_reason;  // "stop", "length" or "cancelled"
  // prefill_s includes reduce_s: choosing what is read.
  double reduce_s = 0, prefill_s = 0, decode_s = 0, ttft_s = 0;
  double prefill_tps() const {
    return prefill_s > 0 ? (prompt_tokens - cached_tokens) / prefill_s : 0;
  }
  // The first token comes from prefill.
  double decode_tps() const {
    return decode_s > 0 && tokens.size() > 1 ? (tokens.size() - 1) / decode_s : 0;
  }
  uint64_t drafted = 0, accepted = 0;  // speculation
  double bytes_touched_per_token = 0;  // of memory, in decode
  double disk_bytes_per_token = 0;     // in decode
  ExpertStats experts;                 // in decode
};

// kDoesNotFit, with the numbers, when so many tokens that are read of a prompt and `max_tokens` new
// ones (where positions roll: the prompt's alone) exceed the context; kBadInput for an empty
// prompt, kUsage for no new tokens.
Status CheckContext(size_t prompt, uint32_t max_tokens, const EngineOptions& options);

// Where the engine chooses what is read of a prompt, everything else goes by what was read.
// Errors: kDoesNotFit when what is read of the prompt and max_tokens exceed the context (with the
// numbers, before any work), kUsage for sampling options, kIo from streamed weights.
Result<Generation> Generate(Engine& engine, uint32_t sequence, const std::vector<Token>& prompt,
                            const GenerateOptions& options);

}  // namespace snug
