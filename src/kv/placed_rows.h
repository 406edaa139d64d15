// Rows of layers whose place (place/place.h) is a file: whole tiles of keys and values, a row's key
// and value beside each other, the rows of a KV head one after another. In memory are the read
// method's index of all tiles and, of each layer and head, the rows that were used last, of which
// the least recently used go first. What is fetched depends on what was chosen alone, and what a
// row holds never changes, so that no result depends on what is in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/scratch_file.h"
#include "base/status.h"
#include "base/threads.h"
#include "kernel/attention.h"
#include "kernel/attention_rows.h"
#include "kv/place/place.h"

namespace snug {

struct PlacedLayout {
  std::shared_ptr<const PlaceMethod> method;  // null: all rows are in memory
  std::string folder;                         // where the file is made
  uint32_t layers = 0;                        // that are placed
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  bool key_rows = false;  // AttentionArgs::key_rows, of pages
  uint32_t heads = 0, head_dim = 0, context = 0, sequences = 1;
  uint64_t index_bytes = 0;  // of a tile of a head
  uint32_t most_rows = 0;    // that a token reads of a head

  uint32_t hot_rows() const;
  uint64_t row_bytes() const;    // a key and its value
  uint64_t tile_bytes() const;   // of a head, in the file
  uint64_t file_bytes() const;   // of all sequences at full context
  uint64_t bytes() const;        // of memory
  uint64_t table_bytes() const;  // of heap and stacks beside
};

struct PlacedStats {
  uint64_t rows = 0, hits = 0;  // that were chosen and do not lie in pages; of these, in memory
  uint64_t reads = 0, bytes_read = 0, bytes_written = 0;
  double hit_rate() const {
    return rows == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(rows);
  }
};

class PlacedRows {
 public:
  // Makes the file and reserves memory (Owner::kKv), which becomes resident as it is first written.
  // Errors: those of ScratchFile::Create, kDoesNotFit.
  static Result<PlacedRows> Create(const PlacedLayout& layout, Ledger& ledger);

  // The layers that are placed are counted from 0.
  // How many of a layer's tiles, its first ones, lie in the file.
  uint32_t tiles(uint32_t sequence, uint32_t layer) const {
    return tiles_[sequence * layout_.layers + layer];
  }
  // The indexes of a tile, of all KV heads.
  uint8_t* Index(uint32_t sequence, uint32_t layer, uint32_t tile);
  // Writes tiles [tiles(), end); `pages` are those of the cache, by tile. Fails with nothing
  // changed.
  Status Write(uint32_t sequence, uint32_t layer, uint32_t end, const uint8_t* const* pages);
  // Reads tiles [0, tiles()) back into pages.
  Status Read(uint32_t sequence, uint32_t layer, uint8_t* const* pages);
  // Has all of a token's chosen rows in memory: ChosenRows::packed of them, of the same stride,
  // until the next call. A failure forgets the layer's rows in memory, which are fetched again.
  Result<const uint8_t* const*> Fetch(uint32_t sequence, uint32_t layer, const ChosenRows& chosen);
  void Clear(uint32_t sequence);

  const PlacedStats& stats() const { return stats_; }
  // Bytes of indexes of tiles in the file and of rows in memory.
  uint64_t held_bytes() const;

 private:
  friend struct PlacedLayout;
  // The rows in memory of one sequence, layer and head: a list from the last used one to the first.
  struct Hot {
    uint32_t used = 0, newest = 0, oldest = 0;  // slots
  };
  struct Link {
    uint32_t row, newer, older;
  };
  struct Miss {
    uint32_t row, slot;
  };
  // Missing rows that one read brings: of head `head`, misses [first, first + count).
  struct Run {
    uint32_t head, first, count;
    uint32_t block, blocks;  // of the head's part of the file
  };
  struct Views;
  static Views LayOut(const PlacedLayout& layout, uint8_t* base);
  Views views() const;
  size_t ListOf(uint32_t sequence, uint32_t layer, uint32_t head) const {
    return (size_t{sequence} * layout_.layers + layer) * layout_.heads + head;
  }
  uint64_t OffsetOf(uint32_t sequence, uint32_t layer, uint32_t head) const;
  void Touch(Hot& hot, Link* links, uint32_t slot) const;
  void Unlink(Hot& hot, Link* links, uint32_t slot) const;
  // A slot for a row: a free one, or the one that was used the longest ago.
  uint32_t TakeSlot(size_t list, uint32_t row);
  void Forget(size_t list);
  // Finds or makes slots for a head's rows; missing ones go to its misses. Returns how many.
  uint32_t Look(uint32_t sequence, uint32_t layer, uint32_t head, const ChosenRows& chosen);
  // The reads that bring a head's misses; appends them to the runs.
  void Divide(uint32_t head, uint32_t misses);
  // Runs `task` on the readers; the first error.
  template <class F>
  Status OnReaders(size_t tasks, const F& task);

  PlacedLayout layout_;
  ScratchFile file_;
  Buffer buffer_;
  uint8_t* index_ = nullptr;
  std::unique_ptr<ThreadPool> readers_;
  std::vector<uint32_t> tiles_;  // [sequences, layers]
  std::vector<Hot> hot_;         // [sequences, layers, heads]
  uint32_t runs_ = 0;            // of the call at work
  PlacedStats stats_;
};

// One sequence's rows of one layer; null where they are in its pages.
struct PlacedLayer {
  PlacedRows* rows = nullptr;
  uint32_t sequence = 0, layer = 0;
};

}  // namespace snug
