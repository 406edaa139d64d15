// Reads the hyper-parameters that all decoder-only architectures share from GGUF metadata, with
// limits that make sizes derived from them safe.
#pragma once

#include <string>

#include "base/status.h"
#include "format/model_file.h"
#include "model/config.h"

namespace snug {

// What every language model has: name, layers, width, vocabulary, context, eps.
Result<ModelConfig> ReadCoreConfig(const ModelFile& file);
// That, attention and feed-forward: everything of a transformer but what an architecture decides
// for itself (activation, windows, scales, interleaving).
Result<ModelConfig> ReadCommonConfig(const ModelFile& file);
// Whether rotary pairs are neighbouring rows of q and k, as in the GGUF files of architectures
// whose converter permutes them; false where the model comes from a folder.
bool RotaryInterleaved(const ModelFile& file, const std::string& arch);
// A factor of a multiplier kind (embedding, residual, logits, softcaps), or `fallback` where the
// file has none. kBadFile where it is negative or not finite.
Result<float> ReadFactor(const ModelFile& file, const std::string& key, double fallback);
// Sets c->window from attention.sliding_window (`window` where the file has none; 0: no windows)
// and its pattern: every `pattern`-th layer attends to everything (0: none does), or a flag per
// layer.
Status ReadWindows(const ModelFile& file, uint64_t window, uint64_t pattern, ModelConfig* c);
// The sizes of recurrent layers that all their kinds have: the convolution, channels and states.
Result<StateConfig> ReadStateConfig(const ModelFile& file, const std::string& arch);
// The heads and groups of recurrent layers that have them. kBadFile where channels, heads, groups
// and states do not go together.
Status ReadStateHeads(const ModelFile& file, const std::string& arch, StateConfig* s);
// Sets c->recurrent from attention.recurrent_layers, a flag per layer, or full_attention_interval:
// every so many-th layer has attention (`interval` where the file has neither).
Status ReadRecurrentLayers(const ModelFile& file, uint64_t interval, ModelConfig* c);
// Metadata `key`, between 1 and `max`.
Result<uint32_t> ReadBounded(const ModelFile& file, const std::string& key, uint64_t max);

// Sets c->router and the experts' widths from expert_count and its siblings; c->ffn becomes 0, for
// models whose layers all have experts. kBadFile where the counts do not go together.
Status ReadExperts(const ModelFile& file, ModelConfig* c);
// Sets the width of the shared expert: the routed ones' where the file says nothing.
Status ReadSharedExpert(const ModelFile& file, ModelConfig* c);

}  // namespace snug
