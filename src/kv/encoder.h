// Codes rows beside the steps: a thread of the cache's own turns exact tiles into coded ones while
// steps go on reading the exact ones. When the coded ones are read is for the cache to say
// (KvCodec::lag): what is not coded by then the step codes itself, so that the thread's pace
// changes no bit of any output.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/threads.h"
#include "kernel/tile_codec.h"

namespace snug {

class TileEncoder {
 public:
  // Pages of a layer of a sequence, by tile; exact ones have keys of all heads, then values.
  struct Layer {
    const TileCodec* codec = nullptr;
    const uint8_t* const* exact = nullptr;
    uint8_t* const* coded = nullptr;
  };
  struct Options {
    uint32_t sequences = 0, layers = 0, heads = 0;
    KvType type = KvType::kF16;             // of the exact rows
    size_t key_tile = 0, value_tile = 0;    // bytes of a head's exact tiles
    std::function<void()> delay = nullptr;  // test hook: on the thread, before each tile of a layer
  };
  // Heap that it takes.
  static uint64_t HeapBytes(uint64_t sequences, uint64_t layers) {
    return sequences * (layers * sizeof(Layer) + sizeof(Work));
  }

  // `layers`: [sequences, layers], whose tables outlive it. Where the system gives no thread, all
  // is coded by Finish.
  TileEncoder(const Options& options, std::vector<Layer> layers);
  // Ends the thread; what it has not begun is not coded.
  ~TileEncoder();
  TileEncoder(const TileEncoder&) = delete;
  TileEncoder& operator=(const TileEncoder&) = delete;

  // Tiles [first, end) of all layers of the sequence may be coded: their entries of the tables and
  // their exact rows stay as they are until Finish or Discard, and nobody reads the coded ones.
  // `first` is begun(sequence), or beyond it where others coded what lies between.
  void Begin(uint32_t sequence, uint32_t first, uint32_t end);
  // Tiles before it have been begun.
  uint32_t begun(uint32_t sequence) const { return begun_[sequence]; }
  // Returns when all tiles before `end` that were begun are coded.
  void Finish(uint32_t sequence, uint32_t end, ThreadPool& pool);
  // Returns when nothing of the sequence is being coded, nor will be; nothing has been begun then.
  void Discard(uint32_t sequence);

 private:
  // A unit is a tile of a layer; a sequence's have numbers tile * layers + layer.
  struct Work {
    uint64_t next = 0, end = 0;
  };
  void Run();
  // A sequence that has a unit to be coded, the others before `last`; kNone: there is none.
  uint32_t Pick(uint32_t last) const;
  void Encode(uint32_t sequence, uint64_t unit, uint32_t head) const;

  static constexpr uint32_t kNone = UINT32_MAX;
  const Options options_;
  const std::vector<Layer> layers_;
  std::vector<uint32_t> begun_;  // [sequences], the callers'
  std::mutex mutex_;             // of what follows
  std::condition_variable work_there_, unit_done_;
  std::vector<Work> work_;   // [sequences]
  uint32_t coding_ = kNone;  // the sequence that the thread is at
  uint64_t unit_ = 0;        // which of it
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace snug
