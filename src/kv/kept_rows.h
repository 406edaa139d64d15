// What a keep method (keep/keep.h) needs to know of the rows that a cache holds: each row's token,
// the attention it got, and where rows are merged how many tokens each stands for. A kept layer has
// room for the rows that stay and the one that a token adds. The layer whose prompt is being read
// has room for all of its rows, in a place that the layers use in turn.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "kernel/attention.h"
#include "kv/keep/keep.h"

namespace snug {

inline constexpr uint32_t kNoSlot = UINT32_MAX;

struct KeptLayout {
  std::shared_ptr<const KeepMethod> method;  // null: every row stays
  uint32_t layers = 0;                       // that drop rows
  uint32_t heads = 0, query_heads = 0;       // of the layer, and of each KV head
  uint32_t head_dim = 0, context = 0, sequences = 1;
  bool rolling = false;  // rows close up where others are dropped: see rolled_keys.h
  // Rows of a head of a layer at most, the one that a token adds included.
  uint32_t MostRows(uint32_t layer) const;
  uint64_t row_bytes() const;  // of one row of one head
  uint64_t bytes() const;      // of everything
};

// Layers are counted among those that drop rows.
class KeptRows {
 public:
  // Reserves the rows' tokens and sums (Owner::kKv).
  static Result<KeptRows> Create(const KeptLayout& layout, Ledger& ledger);
  const KeptLayout& layout() const { return layout_; }

  // What attention is to add up in a step of `tokens` rows that finds `rows` in the layer, its
  // first token being number `position`; first_row is `tokens` where that is nothing.
  ColumnSums Watch(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t position,
                   uint32_t tokens);

  // --- a prompt of `tokens` tokens that ends in `text` (KeepMethod::reads_end), for a sequence of
  // `length`
  void BeginPrompt(uint32_t sequence, uint32_t length, uint32_t tokens, std::string_view text);
  // A layer that holds `rows` rows begins to read the prompt.
  void BeginLayer(uint32_t layer, uint32_t rows);
  // Of the layer's rows the first `rows` stay.
  void EndLayer(uint32_t layer, uint32_t rows);
  void EndPrompt();
  // Forgets the sequence, and its prompt if it is being read.
  void Clear(uint32_t sequence);
  // `to` becomes what `from` is, while no prompt is read.
  void Copy(uint32_t from, uint32_t to);
  uint32_t prompt_tokens() const { return prompt_.tokens; }  // 0: none is being read
  // The method that the sequence's last prompt was kept by, or is to be.
  const KeepMethod& method(uint32_t sequence) const { return *methods_[sequence]; }

  // Token number `position` became row `rows` of the layer.
  void Append(uint32_t sequence, uint32_t layer, uint32_t rows, uint32_t position);
  // Rows that stay: of the prompt's, or after a token.
  uint32_t Stay(uint32_t sequence, uint32_t layer) const;
  // Whether what the layer before dropped of the prompt goes here, too.
  bool Follows(uint32_t layer) const;

  // Has the method choose the rows of one head to drop, of `rows`, and returns how many.
  // `model_layer` is the layer's number in the model, `length` the sequence's. All heads choose
  // before rows move.
  uint32_t Choose(uint32_t sequence, uint32_t layer, uint32_t model_layer, uint32_t head,
                  uint32_t rows, uint32_t length);
  // What was chosen, ascending: `n` rows.
  std::span<const uint32_t> dropped(uint32_t sequence, uint32_t layer, uint32_t head,
                                    uint32_t n) const;
  // Row `from` of a head takes the place of row `to`.
  void Move(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t from, uint32_t to);

  // --- where rows close up
  // Each row of a head, of `rows`, that stays moves towards the newest by the dropped rows after
  // it, `n` of which were chosen; gone(row) is called for those. Before rows move.
  template <class F>
  void CloseGaps(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows, uint32_t n,
                 const F& gone) {
    const std::span<const uint32_t> chosen = dropped(sequence, layer, head, n);
    for (const uint32_t row : chosen) gone(row);
    Shift(sequence, layer, head, rows, chosen);
  }
  // Of a head, by row: its token, how many tokens after it were dropped, and what else is kept of
  // it (RolledKeys), which moves with it.
  struct Shifted {
    const uint32_t *positions = nullptr, *shifts = nullptr;
    uint32_t* slots = nullptr;
  };
  Shifted shifted(uint32_t sequence, uint32_t layer, uint32_t head) const;

  // --- where rows are merged
  uint32_t members(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t row) const;
  void SetMembers(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t row, uint32_t tokens);
  // Rows from `stay` to `rows` of a head are no more: the next ones there are tokens.
  void EndMerge(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows, uint32_t stay);
  // [heads, stride] log 2 of the members of rows, held and to come (AttentionArgs::bias).
  struct Bias {
    const float* rows = nullptr;
    size_t stride = 0;
  };
  Bias bias(uint32_t sequence, uint32_t layer) const;
  // Of a head.
  std::span<float> merge_room(uint32_t head);

  std::span<const uint32_t> positions(uint32_t sequence, uint32_t layer, uint32_t head,
                                      uint32_t rows) const;

 private:
  // One layer's arrays, [heads, stride] each; null where the method has no use for them.
  struct Arrays {
    uint32_t* positions;
    float* sums;   // that go on from step to step, or of a prompt
    float* fresh;  // of one token
    uint32_t* members;
    float* bias;
    uint32_t *shifts, *slots;
    uint32_t* dropped;
    size_t stride, dropped_stride;
  };
  struct Prompt {
    uint32_t sequence = 0, length = 0, tokens = 0;
    uint32_t rows_before = 0;  // of the layer at hand
  };
  KeepPlace Place(uint32_t layer) const { return {layer, layout_.layers}; }
  ScoreNoise NoiseOf(uint32_t layer, uint32_t position, uint32_t answered) const;
  Arrays Own(uint32_t sequence, uint32_t layer) const;
  Arrays At(uint32_t sequence, uint32_t layer) const;  // the prompt's while one is read
  void Shift(uint32_t sequence, uint32_t layer, uint32_t head, uint32_t rows,
             std::span<const uint32_t> dropped);

  KeptLayout layout_;
  Observations observes_;
  Buffer buffer_;
  Arrays own_{};  // of all sequences and layers; strides are those of layers
  std::vector<size_t> own_stride_, own_first_;  // [layers] of a head, and where the layer begins
  size_t own_rows_ = 0;                         // of a sequence
  Arrays shared_{};                             // of the layer that reads a prompt
  uint32_t* order_ = nullptr;                   // [heads, shared_.stride]
  float* scores_ = nullptr;
  float* merging_ = nullptr;  // [heads, merge_floats_]
  size_t merge_floats_ = 0;
  std::vector<const KeepMethod*> methods_;  // [sequences] of their last prompts
  std::vector<uint32_t> answer_begin_;      // [sequences] tokens up to the last prompt's end
  Prompt prompt_;
};

}  // namespace snug
