// read: which of the cached rows queries touch; the chosen ones are attended to exactly. Nothing is
// dropped: the next query chooses anew. A method chooses rows for decoded tokens (RowMethod), from
// an index that it keeps beside the keys, or blocks of keys for a prompt's queries (BlockMethod,
// blocks.h). It is a file beside this one and a line of its registry (read.cc); the cache, the
// attention kernel and the engine know no method by name.
//
// What a method does not choose for, queries see whole. Layers with a sliding window stay outside:
// they are bounded as they are.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/spec.h"
#include "base/status.h"
#include "kernel/attention.h"
#include "kv/method.h"

namespace snug {

struct ChannelRanking;

// How many rows a query reads of those that it sees.
struct ReadBudget {
  double amount = 0;               // up to 1 a share of the rows, above 1 so many
  uint32_t least = 0;              // where it is a share
  uint32_t dense_layers = 0;       // the model's first layers, which read all rows
  uint32_t sinks = 0, recent = 1;  // the first and the last rows, which are always read
  uint32_t unit = 1;               // rows that are read together; divides a tile
  // Whole units, never fewer than are always read.
  uint32_t Units(uint32_t rows) const;
};

// A head's keys of 64 rows, as they are stored.
struct KeyTile {
  KvType type = KvType::kF16;
  uint32_t head_dim = 0;
  const uint8_t* data = nullptr;
  bool by_rows = false;                      // they lie as values do (CopyRowAsKey)
  void Load(size_t row, float* key) const {  // [head_dim]
    (by_rows ? LoadValue : LoadKey)(type, data, head_dim, row, key);
  }
};

// The queries of one KV head, [heads, head_dim].
struct GroupQueries {
  const float* q = nullptr;
  uint32_t heads = 0, head_dim = 0;
  uint32_t layer = 0, kv_head = 0;
};

class BlockMethod;
class RowMethod;

class ReadMethod : public KvMethod {
 public:
  // What it chooses for: one of these is not null.
  virtual const RowMethod* rows() const { return nullptr; }
  virtual const BlockMethod* blocks() const { return nullptr; }

  // Whether it goes by a ranking of channels (channels.h); it then does nothing before it has one.
  virtual bool needs_channels() const { return false; }
  virtual std::shared_ptr<const ReadMethod> WithChannels(
      std::shared_ptr<const ChannelRanking> /*ranking*/) const {
    return nullptr;
  }
  // Whether single rows are read, so that keys had better lie as values do (CopyRowAsKey).
  virtual bool key_rows() const { return false; }
  // kUsage where a model with such heads cannot be read so.
  virtual Status Check(uint32_t /*head_dim*/) const { return {}; }
};

class RowMethod : public ReadMethod {
 public:
  const RowMethod* rows() const final { return this; }
  const ReadBudget& budget() const { return budget_; }
  bool Reads(uint32_t layer) const { return layer >= budget_.dense_layers; }

  // Bytes of the index of a tile of a head: a multiple of 64.
  virtual size_t IndexBytes(uint32_t head_dim) const = 0;
  // Rows [first, last) of a tile are new, those before them are as they were; `index` is the
  // tile's. Depends on the stored keys alone.
  virtual void Index(const KeyTile& keys, uint32_t layer, uint32_t head, uint32_t first,
                     uint32_t last, uint8_t* index) const = 0;
  // Bytes of queries made ready for Score: a multiple of 64.
  virtual size_t QueryBytes(uint32_t heads, uint32_t head_dim) const = 0;
  virtual void Prepare(const GroupQueries& queries, uint8_t* prepared) const = 0;
  // What q.k looks like for each unit of a tile, under each head: scores [heads, stride].
  virtual void Score(const uint8_t* index, const uint8_t* prepared, uint32_t heads,
                     uint32_t head_dim, float* scores, size_t stride) const = 0;

 protected:
  explicit RowMethod(const ReadBudget& budget) : budget_(budget) {}

 private:
  const ReadBudget budget_;
};

// A method as the registry holds it.
struct ReadEntry {
  std::string_view name, source;  // source: the paper
  std::string_view summary;       // what is read
  std::string_view index;         // what lies beside the keys
  std::span<const SpecParameter> parameters;
  Result<std::shared_ptr<ReadMethod>> (*make)(std::span<const double> values);
};
std::span<const ReadEntry* const> ReadMethods();

// The method that a spec string (base/spec.h) names. Errors: ParseSpec's.
Result<std::shared_ptr<const ReadMethod>> ParseRead(std::string_view spec);

// A method as what it is, or null.
inline std::shared_ptr<const RowMethod> AsRows(const std::shared_ptr<const ReadMethod>& method) {
  return {method, method == nullptr ? nullptr : method->rows()};
}

// Chooses the `count` largest scores, of equal ones the first: their numbers, ascending. `room` has
// as many floats as there are scores. Scores are finite.
void ChooseLargest(std::span<const float> scores, uint32_t count, float* room, uint32_t* chosen);

}  // namespace snug
