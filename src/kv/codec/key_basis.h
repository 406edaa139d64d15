// What codecs that code keys as they were before rotary embedding are told of a model: how keys
// were rotated, and an order of each layer's key channels, in which channels of like means are
// neighbours. The order is measured once for a model (`snug calibrate --permutation`,
// engine/key_order_statistics.h).
//
// Its file is JSON: {"snug": {what it was measured on}, "heads": KV heads of a transform,
// "permutation": {"<layer>": [channels]}}, of all layers with attention over all rows. A list holds
// each channel of a token's transformed keys, of all KV heads, once: which one is stored first,
// second, ...
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "kernel/rotated_codec.h"
#include "kv/measured_on.h"
#include "model/config.h"

namespace snug {

struct KeyOrder {
  uint32_t heads = 1;                         // KV heads that a transform covers
  std::vector<std::vector<uint16_t>> layers;  // [layers] empty, or [kv_heads * head_dim]
  MeasuredOn source;
};

// KV heads that a transform covers where nothing else is asked for: 4, or as many as divide them.
uint32_t TransformHeads(uint32_t kv_heads);

// Errors: kIo, and kBadFile for what is no such file, does not fit the model's heads, holds a list
// that is no permutation, or lacks a layer with attention over all rows. What it was measured on is
// CheckKeyOrder's.
Result<KeyOrder> ReadKeyOrder(const std::string& path, const ModelConfig& model);
// kBadFile where it was measured on other weights or rotary settings.
Status CheckKeyOrder(const std::string& path, const KeyOrder& order, const ModelConfig& model,
                     const std::string& weights);
Status WriteKeyOrder(const std::string& path, const KeyOrder& order);

class KeyBasis {
 public:
  // What Create reserves.
  static uint64_t Bytes(const ModelConfig& model, uint32_t context);
  // `frequencies`: of the model's rotary pairs, of layers without a window. `order` may be null:
  // channels stay where they are. `model` must outlive the basis.
  static Result<KeyBasis> Create(const ModelConfig& model, const std::vector<float>& frequencies,
                                 uint32_t context, const KeyOrder* order, Owner owner,
                                 Ledger& ledger);
  RotatedBasis OfLayer(uint32_t layer) const;

 private:
  const ModelConfig* model_ = nullptr;
  uint32_t tiles_ = 0;
  bool ordered_ = false;
  // KeyRotary's slots and tiles, then [layers][width] places.
  Buffer buffer_;
};

}  // namespace snug
