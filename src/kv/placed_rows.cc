#include "kv/placed_rows.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <mutex>

#include "base/file.h"
#include "kernel/packed_row.h"
#include "kv/tiles.h"

namespace snug {
namespace {

constexpr uint64_t kBlock = kDirectAlign;
// Blocks between two missing rows that are rather read too than left out by a read of their own.
constexpr uint32_t kGap = 2;
// What a thread that waits for the disk takes.
constexpr uint64_t kReaderBytes = 64 * 1024;

}  // namespace

// Where the parts of the memory lie.
struct PlacedRows::Views {
  uint8_t* index = nullptr;          // [sequences, layers, tiles, heads, index bytes]
  uint32_t* slots = nullptr;         // [lists, rows of whole tiles] 1 + the row's slot; 0: none
  Link* links = nullptr;             // [lists, hot rows]
  uint8_t* data = nullptr;           // [lists, hot rows, row bytes]
  Miss* misses = nullptr;            // [heads, most rows]
  Run* runs = nullptr;               // [heads * most rows]
  const uint8_t** packed = nullptr;  // [heads, most rows]
  uint8_t* bounce = nullptr;         // [readers, tile bytes]
  size_t rows = 0, hot = 0;          // of a list
  uint64_t bytes = 0;
};

PlacedRows::Views PlacedRows::LayOut(const PlacedLayout& l, uint8_t* base) {
  Views v;
  const uint64_t lists = uint64_t{l.sequences} * l.layers * l.heads;
  const auto take = [&](auto** part, uint64_t count) {
    if (base != nullptr)
      *part = reinterpret_cast<std::remove_pointer_t<decltype(part)>>(base + v.bytes);
    // Whole pages, so that bounces are aligned as direct reads want them.
    v.bytes += (count * sizeof(**part) + kBlock - 1) / kBlock * kBlock;
  };
  v.rows = size_t{Tiles(l.context)} * kTile;
  v.hot = l.hot_rows();
  take(&v.index, lists * Tiles(l.context) * l.index_bytes);
  take(&v.slots, lists * v.rows);
  take(&v.links, lists * v.hot);
  take(&v.data, lists * v.hot * l.row_bytes());
  take(&v.misses, uint64_t{l.heads} * l.most_rows);
  take(&v.runs, uint64_t{l.heads} * l.most_rows);
  take(&v.packed, uint64_t{l.heads} * l.most_rows);
  take(&v.bounce, l.method->readers() * l.tile_bytes());
  return v;
}

PlacedRows::Views PlacedRows::views() const {
  return LayOut(layout_, const_cast<uint8_t*>(buffer_.data()));
}

uint32_t PlacedLayout::hot_rows() const {
  return std::min(method->HotRows(most_rows, context), Tiles(context) * kTile);
}
uint64_t PlacedLayout::row_bytes() const {
  return PackedBytes(key_type, head_dim) + PackedBytes(value_type, head_dim);
}
uint64_t PlacedLayout::tile_bytes() const {
  return (kTile * row_bytes() + kBlock - 1) / kBlock * kBlock;
}
uint64_t PlacedLayout::file_bytes() const {
  if (method == nullptr) return 0;
  return uint64_t{sequences} * layers * heads * Tiles(context) * tile_bytes();
}
uint64_t PlacedLayout::bytes() const {
  return method == nullptr || layers == 0 ? 0 : PlacedRows::LayOut(*this, nullptr).bytes;
}
uint64_t PlacedLayout::table_bytes() const {
  if (method == nullptr || layers == 0) return 0;
  const uint64_t parts = uint64_t{sequences} * layers;
  return parts * (sizeof(uint32_t) + heads * sizeof(PlacedRows::Hot)) +
         method->readers() * kReaderBytes;
}

Result<PlacedRows> PlacedRows::Create(const PlacedLayout& layout, Ledger& ledger) {
  PlacedRows p;
  p.layout_ = layout;
  if (layout.bytes() == 0) return p;
  SNUG_ASSIGN(p.buffer_, Buffer::Allocate(ledger, Owner::kKv, layout.bytes(), Pages::kNormal,
                                          "indexes and rows used last"));
  SNUG_ASSIGN(p.file_, ScratchFile::Create(layout.folder, layout.file_bytes()));
  p.index_ = p.views().index;
  p.readers_ = std::make_unique<ThreadPool>(static_cast<int>(layout.method->readers()));
  p.readers_->set_wait(Wait::kSleep);
  p.tiles_.assign(size_t{layout.sequences} * layout.layers, 0);
  p.hot_.resize(p.tiles_.size() * layout.heads);
  return p;
}

uint8_t* PlacedRows::Index(uint32_t sequence, uint32_t layer, uint32_t tile) {
  const size_t part = size_t{sequence} * layout_.layers + layer;
  return index_ + (part * Tiles(layout_.context) + tile) * layout_.heads * layout_.index_bytes;
}

uint64_t PlacedRows::OffsetOf(uint32_t sequence, uint32_t layer, uint32_t head) const {
  return ListOf(sequence, layer, head) * Tiles(layout_.context) * layout_.tile_bytes();
}

template <class F>
Status PlacedRows::OnReaders(size_t tasks, const F& task) {
  std::mutex mutex;
  Status first;
  readers_->For(tasks, [&](size_t i, int thread) {
    Status status = task(i, views().bounce + thread * layout_.tile_bytes());
    if (status.ok()) return;
    const std::lock_guard lock(mutex);
    if (first.ok()) first = std::move(status);
  });
  return first;
}

Status PlacedRows::Write(uint32_t sequence, uint32_t layer, uint32_t end,
                         const uint8_t* const* pages) {
  const PlacedLayout& l = layout_;
  uint32_t& tiles = tiles_[sequence * l.layers + layer];
  if (end <= tiles) return {};
  const size_t key_tile = KvTileBytes(l.key_type, l.head_dim);
  const size_t value_tile = KvTileBytes(l.value_type, l.head_dim);
  const size_t key_bytes = PackedBytes(l.key_type, l.head_dim);
  const size_t tasks = size_t{end - tiles} * l.heads;
  SNUG_TRY(OnReaders(tasks, [&](size_t task, uint8_t* bounce) {
    const auto head = static_cast<uint32_t>(task % l.heads);
    const auto tile = static_cast<uint32_t>(tiles + task / l.heads);
    const uint8_t* keys = pages[tile] + head * key_tile;
    const uint8_t* values = pages[tile] + l.heads * key_tile + head * value_tile;
    uint8_t* row = bounce;
    for (uint32_t slot = 0; slot < kTile; ++slot, row += l.row_bytes()) {
      PackKey(l.key_type, keys, l.head_dim, slot, l.key_rows, row);
      PackValue(l.value_type, values, l.head_dim, slot, row + key_bytes);
    }
    std::memset(row, 0, static_cast<size_t>(bounce + l.tile_bytes() - row));
    return file_.WriteAt(OffsetOf(sequence, layer, head) + tile * l.tile_bytes(), bounce,
                         l.tile_bytes());
  }));
  stats_.bytes_written += tasks * l.tile_bytes();
  tiles = end;
  return {};
}

Status PlacedRows::Read(uint32_t sequence, uint32_t layer, uint8_t* const* pages) {
  const PlacedLayout& l = layout_;
  const size_t key_tile = KvTileBytes(l.key_type, l.head_dim);
  const size_t value_tile = KvTileBytes(l.value_type, l.head_dim);
  const size_t key_bytes = PackedBytes(l.key_type, l.head_dim);
  const size_t tasks = size_t{tiles(sequence, layer)} * l.heads;
  stats_.reads += tasks;
  stats_.bytes_read += tasks * l.tile_bytes();
  return OnReaders(tasks, [&](size_t task, uint8_t* bounce) -> Status {
    const auto head = static_cast<uint32_t>(task % l.heads);
    const size_t tile = task / l.heads;
    SNUG_TRY(file_.ReadAt(OffsetOf(sequence, layer, head) + tile * l.tile_bytes(), bounce,
                          l.tile_bytes()));
    uint8_t* keys = pages[tile] + head * key_tile;
    uint8_t* values = pages[tile] + l.heads * key_tile + head * value_tile;
    const uint8_t* row = bounce;
    for (uint32_t slot = 0; slot < kTile; ++slot, row += l.row_bytes()) {
      UnpackKey(l.key_type, row, l.head_dim, slot, l.key_rows, keys);
      UnpackValue(l.value_type, row + key_bytes, l.head_dim, slot, values);
    }
    return {};
  });
}

void PlacedRows::Unlink(Hot& hot, Link* links, uint32_t slot) const {
  const Link& l = links[slot];
  if (slot == hot.newest) {
    hot.newest = l.older;
  } else {
    links[l.newer].older = l.older;
  }
  if (slot == hot.oldest) {
    hot.oldest = l.newer;
  } else {
    links[l.older].newer = l.newer;
  }
}

void PlacedRows::Touch(Hot& hot, Link* links, uint32_t slot) const {
  if (slot == hot.newest) return;
  Unlink(hot, links, slot);
  links[slot].older = hot.newest;
  links[hot.newest].newer = slot;
  hot.newest = slot;
}

uint32_t PlacedRows::TakeSlot(size_t list, uint32_t row) {
  const Views v = views();
  Hot& hot = hot_[list];
  Link* links = v.links + list * v.hot;
  uint32_t* slots = v.slots + list * v.rows;
  uint32_t slot = hot.used;
  if (hot.used == v.hot) {
    slot = hot.oldest;
    slots[links[slot].row] = 0;
    Touch(hot, links, slot);
  } else {
    if (hot.used == 0) hot.oldest = slot;
    links[slot].older = hot.newest;
    links[hot.newest].newer = slot;
    hot.newest = slot;
    ++hot.used;
  }
  links[slot].row = row;
  slots[row] = slot + 1;
  return slot;
}

void PlacedRows::Forget(size_t list) {
  const Views v = views();
  const Link* links = v.links + list * v.hot;
  for (uint32_t s = 0; s < hot_[list].used; ++s) v.slots[list * v.rows + links[s].row] = 0;
  hot_[list] = {};
}

uint32_t PlacedRows::Look(uint32_t sequence, uint32_t layer, uint32_t head,
                          const ChosenRows& chosen) {
  const Views v = views();
  const size_t list = ListOf(sequence, layer, head), stride = layout_.row_bytes();
  const uint32_t* rows = chosen.rows + head * chosen.stride;
  const uint32_t in_file = tiles(sequence, layer) * kTile;
  const auto placed =
      static_cast<uint32_t>(std::lower_bound(rows, rows + chosen.count, in_file) - rows);
  Link* links = v.links + list * v.hot;
  const uint32_t* slots = v.slots + list * v.rows;
  // Rows that are there become the newest before any other makes room, so that none of them goes.
  for (uint32_t i = 0; i < placed; ++i) {
    if (slots[rows[i]] != 0) Touch(hot_[list], links, slots[rows[i]] - 1);
  }
  const uint8_t** packed = v.packed + head * chosen.stride;
  uint32_t misses = 0;
  for (uint32_t i = 0; i < placed; ++i) {
    if (slots[rows[i]] == 0) {
      v.misses[head * size_t{layout_.most_rows} + misses++] = {rows[i], TakeSlot(list, rows[i])};
    }
    packed[i] = v.data + (list * v.hot + slots[rows[i]] - 1) * stride;
  }
  std::fill(packed + placed, packed + chosen.count, nullptr);
  stats_.rows += placed;
  stats_.hits += placed - misses;
  return misses;
}

void PlacedRows::Divide(uint32_t head, uint32_t count) {
  const Views v = views();
  const Miss* misses = v.misses + head * size_t{layout_.most_rows};
  const uint64_t row_bytes = layout_.row_bytes(), tile_blocks = layout_.tile_bytes() / kBlock;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t row = misses[i].row, tile = row / kTile;
    const uint64_t at = row % kTile * row_bytes, base = tile * tile_blocks;
    const auto first = static_cast<uint32_t>(base + at / kBlock);
    const auto last = static_cast<uint32_t>(base + (at + row_bytes - 1) / kBlock);
    if (i > 0 && misses[i - 1].row / kTile == tile) {
      Run& run = v.runs[runs_ - 1];
      if (first <= run.block + run.blocks + kGap) {
        run.blocks = last + 1 - run.block;
        ++run.count;
        continue;
      }
    }
    v.runs[runs_++] = {head, i, 1, first, last + 1 - first};
  }
}

Result<const uint8_t* const*> PlacedRows::Fetch(uint32_t sequence, uint32_t layer,
                                                const ChosenRows& chosen) {
  assert(chosen.stride == layout_.most_rows && chosen.count <= layout_.most_rows);
  const Views v = views();
  runs_ = 0;
  for (uint32_t h = 0; h < layout_.heads; ++h) Divide(h, Look(sequence, layer, h, chosen));
  const uint64_t row_bytes = layout_.row_bytes(), tile_bytes = layout_.tile_bytes();
  const Status status =
      runs_ == 0 ? Status() : OnReaders(runs_, [&](size_t i, uint8_t* bounce) -> Status {
        const Run& run = v.runs[i];
        SNUG_TRY(file_.ReadAt(OffsetOf(sequence, layer, run.head) + run.block * kBlock, bounce,
                              run.blocks * kBlock));
        const Miss* misses = v.misses + run.head * size_t{layout_.most_rows} + run.first;
        uint8_t* data = v.data + ListOf(sequence, layer, run.head) * v.hot * row_bytes;
        for (uint32_t m = 0; m < run.count; ++m) {
          const uint32_t row = misses[m].row;
          const uint64_t at = row / kTile * tile_bytes + row % kTile * row_bytes;
          std::memcpy(data + misses[m].slot * row_bytes, bounce + (at - run.block * kBlock),
                      row_bytes);
        }
        return {};
      });
  if (!status.ok()) {
    for (uint32_t h = 0; h < layout_.heads; ++h) Forget(ListOf(sequence, layer, h));
    return status.error();
  }
  stats_.reads += runs_;
  for (uint32_t i = 0; i < runs_; ++i) stats_.bytes_read += v.runs[i].blocks * kBlock;
  return static_cast<const uint8_t* const*>(v.packed);
}

void PlacedRows::Clear(uint32_t sequence) {
  if (buffer_.size() == 0) return;
  for (uint32_t l = 0; l < layout_.layers; ++l) {
    tiles_[sequence * layout_.layers + l] = 0;
    for (uint32_t h = 0; h < layout_.heads; ++h) Forget(ListOf(sequence, l, h));
  }
}

uint64_t PlacedRows::held_bytes() const {
  uint64_t tiles = 0, rows = 0;
  for (const uint32_t t : tiles_) tiles += t;
  for (const Hot& hot : hot_) rows += hot.used;
  return tiles * layout_.heads * layout_.index_bytes +
         rows * (layout_.row_bytes() + sizeof(Link) + sizeof(uint32_t));
}

}  // namespace snug
