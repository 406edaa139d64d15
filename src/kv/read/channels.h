// Which channels of the keys say most about q.k: for each layer and KV head all channels, the best
// first. Measured once for a model (`snug calibrate --channels`) and read from JSON.
//
// The file is an object with lists [heads][head_dim] of channel numbers under
// "model.layers.<i>.self_attn.qk_proj" (or q_proj, k_proj), as the official code of Double Sparsity
// writes them; ours has a list for each KV head and, under "snug", what it was measured on. Lists
// of query heads are joined for each KV head by the sum of their ranks. Files without "snug" name
// channels as rotary embeddings in halves lay them out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "kv/measured_on.h"
#include "model/config.h"

namespace snug {

struct ChannelRanking {
  uint32_t kv_heads = 0, head_dim = 0;
  std::vector<std::vector<uint16_t>> layers;  // [layers] empty or [kv_heads, head_dim]
  const uint16_t* Head(uint32_t layer, uint32_t kv_head) const {
    return layers[layer].data() + size_t{kv_head} * head_dim;
  }
};

// Errors: kIo, and kBadFile for what is no such file, is of other weights or rotary settings, does
// not fit the model's heads, holds a list that is no permutation, or lacks a layer with attention
// over all rows from `first_layer` on.
Result<ChannelRanking> ReadChannels(const std::string& path, const ModelConfig& model,
                                    const std::string& weights, uint32_t first_layer);
Status WriteChannels(const std::string& path, const ChannelRanking& ranking,
                     const MeasuredOn& source);

}  // namespace snug
