// What a codec of segments (codec/codec.h) has taken over of sequences: each layer's segments, one
// after the other in room of its own, and what probes have told of the rows that are still exact.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "kernel/attention.h"
#include "kv/codec/codec.h"

namespace snug {

struct SegmentLayout {
  std::shared_ptr<const KvCodec> codec;  // null: nothing is coded in segments
  uint32_t layers = 0;                   // that are coded
  uint32_t heads = 0, head_dim = 0, context = 0, sequences = 1;
  uint64_t SegmentBytes(uint32_t rows) const;  // of one of so many rows, of all heads
  uint32_t segments() const;                   // of a layer of a sequence at most
  uint64_t unit_bytes() const;                 // of a segment at most, for each unit of its rows
  uint64_t pool_bytes() const;                 // of segments
  uint64_t sums_bytes() const;                 // of what is told
  uint64_t heap_bytes() const;
  uint64_t row_bytes() const;  // of what is told of an exact row of all heads
};

// Layers are counted among those that are coded.
class CodedSegments {
 public:
  // Reserves room (Owner::kKv), which becomes resident as it is first written.
  static Result<CodedSegments> Create(const SegmentLayout& layout, Ledger& ledger);

  // --- a prompt of `tokens` tokens for a sequence of `length`, layer by layer
  void BeginPrompt(uint32_t sequence, uint32_t length, uint32_t tokens);
  void BeginLayer(uint32_t layer);
  void EndPrompt();

  // What attention is to add up in a step of `tokens` rows that finds `rows` in the layer;
  // first_row is `tokens` where that is nothing.
  ColumnSums Watch(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t tokens);
  // Token number `position` is now part of the sequence.
  void Commit(uint32_t sequence, uint32_t position);

  // Makes room for a segment that the codec takes over of a layer that now holds `rows` rows; false
  // where there is none, or none any more. Encode then has each head coded, from `rows` of
  // StoredRows as far as it is known here.
  bool Grow(uint32_t sequence, uint32_t layer, uint32_t rows);
  void Encode(uint32_t sequence, uint32_t layer, uint32_t head, StoredRows rows);
  // The layer, which now holds `rows` rows, has read the prompt, or was coded after a token.
  void EndLayer(uint32_t sequence, uint32_t layer, uint32_t rows);
  // So were all layers, after a token.
  void EndToken(uint32_t sequence, uint32_t rows);

  // What attention reads; no codec where nothing is coded.
  CodedRows rows(uint32_t sequence, uint32_t layer) const;
  uint64_t bytes(uint32_t sequence, uint32_t layer) const {
    return lists_[sequence * layout_.layers + layer].used;
  }
  void Clear(uint32_t sequence);
  // `to`, which is empty, becomes what `from` is, while no prompt is read.
  void Copy(uint32_t from, uint32_t to);
  uint64_t held_bytes() const;  // of segments

 private:
  struct Layer {
    std::vector<CodedSegment> segments;
    uint64_t used = 0;
    uint32_t coded() const {
      return segments.empty() ? 0 : segments.back().first + segments.back().rows;
    }
  };
  struct Prompt {
    uint32_t sequence = 0, length = 0, tokens = 0;
    uint32_t base = 0;  // the first row of the tiles that have an exact one when it begins
  };
  Layer& At(uint32_t sequence, uint32_t layer) { return lists_[sequence * layout_.layers + layer]; }
  float* Sums(uint32_t sequence, uint32_t layer) {
    return sums_ + (size_t{sequence} * layout_.layers + layer) * layout_.heads * own_stride_;
  }
  uint32_t* Seen(uint32_t sequence) { return seen_ + sequence * own_stride_; }
  bool reading() const { return prompt_.tokens != 0; }
  bool IsProbe(uint32_t position) const;
  // Of a layer's exact rows, those of the first tile that has one at the head.
  struct Told {
    float* sums;  // [heads, stride]
    size_t stride;
    uint32_t* seen;  // [stride]
    uint32_t base;   // the row that comes first
  };
  Told ToldOf(uint32_t sequence, uint32_t layer);

  SegmentLayout layout_;
  std::shared_ptr<const SegmentCodec> codec_;
  Buffer pool_, buffer_;
  uint64_t layer_bytes_ = 0;
  std::vector<Layer> lists_;    // [sequences, layers]
  std::vector<uint32_t> base_;  // [sequences] as Prompt::base, of now
  Probes probes_;
  std::vector<uint32_t> step_probes_;  // numbers within probes_.period
  size_t own_stride_ = 0, prompt_stride_ = 0;
  float *sums_ = nullptr, *fresh_ = nullptr;  // [sequences, layers, heads, own_stride_]
  uint32_t* seen_ = nullptr;                  // [sequences, own_stride_]
  // Of the layer that reads a prompt, by row from Prompt::base on.
  float* prompt_sums_ = nullptr;                        // [heads, prompt_stride_]
  uint32_t *prompt_seen_ = nullptr, *order_ = nullptr;  // [prompt_stride_], [heads, ...]
  float* room_ = nullptr;                               // [heads, prompt_stride_]
  std::vector<uint32_t> prompt_probes_;                 // numbers within the prompt
  Prompt prompt_;
};

}  // namespace snug
