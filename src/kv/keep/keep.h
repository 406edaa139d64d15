// keep: which tokens' rows stay in a cache of fixed size. A method is a file beside this one and a
// line of its registry (keep.cc); the cache, the attention kernel and the engine know no method by
// name. A prompt is read exactly, layer by layer: a layer's attention sees all of its rows, then
// the method drops what does not stay, or merges rows, and the pages go back to the pool. From then
// on every token adds a row and, where the cache is full, rows are dropped or merged.
//
// Layers with a sliding window stay outside: their size is bounded as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/spec.h"
#include "base/status.h"
#include "kv/method.h"
#include "kv/observations.h"

namespace snug {

// A layer among those that the method is asked about.
struct KeepPlace {
  uint32_t index = 0, layers = 1;
};

// One layer of a sequence after a step, before rows are dropped. Rows lie in no order, except that
// the step's own come last.
struct KeepLayer {
  uint32_t layer = 0, heads = 0;        // KV heads
  uint32_t query_heads = 0;             // of each of them
  uint32_t rows = 0;                    // of each head
  uint32_t stay = 0;                    // of those, fewer than `rows`
  uint32_t length = 0;                  // tokens of the sequence, dropped ones included
  const uint32_t* positions = nullptr;  // [heads, stride] each row's token
  // [heads, stride] what was observed, or null; by query head [heads * query_heads, stride].
  const float* sums = nullptr;
  size_t stride = 0;
  const uint32_t* Positions(uint32_t head) const { return positions + head * stride; }
  const float* Sums(uint32_t head) const { return sums + head * stride; }
};

// Room to choose in, `rows` entries each; empty where the row that a token added is one too many.
struct KeepRoom {
  std::span<uint32_t> order;
  std::span<float> scores;
};

// The rows of one head as a method that merges them sees them: in the order of their tokens.
class MergeRows {
 public:
  virtual ~MergeRows() = default;
  // Keys and values [head_dim], as stored.
  virtual void Load(uint32_t row, float* key, float* value) const = 0;
  virtual void Store(uint32_t row, const float* key, const float* value) = 0;
  // Row `to` becomes what row `from` is, bit for bit.
  virtual void Move(uint32_t from, uint32_t to) = 0;
  // The tokens that a row stands for, one to begin with: its logarithm joins the row's scores.
  virtual uint32_t members(uint32_t row) const = 0;
  virtual void set_members(uint32_t row, uint32_t tokens) = 0;
};

// How a method merges rows instead of dropping them. A function of its arguments alone; heads of a
// layer are asked in parallel.
class Merging {
 public:
  virtual ~Merging() = default;
  // Room that a head needs meanwhile.
  virtual size_t Floats(uint32_t head_dim) const = 0;
  // At the end of a prompt: rows [0, rows) become [0, stay).
  virtual void EndPrompt(MergeRows& head, uint32_t head_dim, uint32_t rows, uint32_t stay,
                         std::span<float> room) const = 0;
  // Where a token made the rows more than stay while tokens are added (RowsAtMost): merges some and
  // returns how many are left; as many for every head.
  virtual uint32_t EndToken(MergeRows& head, uint32_t head_dim, uint32_t rows,
                            std::span<float> room) const = 0;
};

class KeepMethod : public KvMethod {
 public:
  // Whether a model with so many layers to drop rows of will do.
  virtual Status Check(uint32_t /*layers*/) const { return {}; }
  virtual Observations observes() const { return {}; }
  // Rows of each head that are to stay at the end of a prompt that makes the sequence `tokens`
  // long.
  virtual uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace place) const = 0;
  // Rows that stay at most, then and while tokens are added; never less for more tokens.
  virtual uint32_t RowsAtMost(uint32_t tokens, KeepPlace place) const {
    return RowsAfterPrompt(tokens, place);
  }
  // Rows of a head of `rows`, the first by position, that may come to lie before dropped ones:
  // those whose places in the cache change.
  virtual uint32_t RowsBeforeGaps(uint32_t rows) const { return rows; }
  // Whether the layer keeps the tokens that the one before it keeps: it is neither observed nor
  // asked at a prompt's end. Both have the same numbers of rows.
  virtual bool FollowsLayerBefore(KeepPlace /*place*/) const { return false; }
  // Chooses rows of one head to drop, in ascending order, and returns how many: layer.rows -
  // layer.stay, or, at a prompt's end, a number that leaves no more than RowsAtMost; as many for
  // every head. `dropped` has room for as many as may go. A function of its arguments alone; heads
  // of a layer are asked in parallel.
  virtual uint32_t Drop(const KeepLayer& /*layer*/, uint32_t /*head*/,
                        std::span<uint32_t> /*dropped*/, KeepRoom /*room*/) const {
    return 0;
  }
  // Not null: the method merges rows, and is not asked to drop any.
  virtual const Merging* merging() const { return nullptr; }

  // Tokens at the end of a prompt whose text decides how it is kept; 0: it does not matter.
  virtual uint32_t reads_end() const { return 0; }
  // The method for a prompt that ends in `text`: one that this one owns, keeps no more rows and
  // observes no more, or itself.
  virtual const KeepMethod& ForPrompt(std::string_view /*text*/) const { return *this; }
};

// A method as the registry holds it.
struct KeepEntry {
  std::string_view name, source;  // source: the paper
  std::string_view summary;       // what stays
  std::string_view observes;      // what it asks of attention, in words
  std::span<const SpecParameter> parameters;
  Result<std::shared_ptr<KeepMethod>> (*make)(std::span<const double> values);
};
std::span<const KeepEntry* const> KeepMethods();

// The method that a spec string (base/spec.h) names. Errors: ParseSpec's.
Result<std::shared_ptr<const KeepMethod>> ParseKeep(std::string_view spec);

}  // namespace snug
