// Loads parts of the weights from the files to where they belong: at once and in parallel, or in
// the background while the model runs.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"
#include "format/model_file.h"
#include "weights/layout.h"

namespace snug {

// Told how many file bytes were read; returns false to end the load (kCancelled).
using LoadProgress = std::function<bool(uint64_t done, uint64_t total)>;
Error LoadCancelled(uint64_t done, uint64_t total);

// A part to load, `copy` of it (see ReadPiece), to part->bytes of memory.
struct LoadTarget {
  const Part* part = nullptr;
  uint32_t copy = 0;
  uint8_t* destination = nullptr;
};
// Loads all of `targets` before it returns, on the threads of `pool`; returns the bytes read.
// `progress` may be null. Errors: kDoesNotFit, kIo, kBadFile, kCancelled.
Result<uint64_t> LoadParts(const ModelFile& file, const std::vector<LoadTarget>& targets,
                           Ledger& ledger, ThreadPool& pool, const LoadProgress& progress);
// What it reserves under Owner::kIo while it loads.
uint64_t LoadBytes(int threads);

// The background loader: one thread reads pieces with direct I/O, a second packs them, through a
// few bounce buffers.
class PartLoader {
 public:
  // A part to load. What `part` and `pieces` refer to must outlive the loader.
  struct Job {
    size_t id = 0;  // the owner's name for it
    const Part* part = nullptr;
    std::span<const PartPiece> pieces;
    uint32_t copy = 0;  // of the part, see ReadPiece
  };
  // Called on the loading threads. The first two may block, and end their thread by returning none;
  // the owner makes them do so before it destroys the loader.
  struct Hooks {
    std::function<std::optional<Job>()> next;
    std::function<uint8_t*(size_t id)> destination;  // part.bytes of memory
    std::function<void(size_t id, uint64_t bytes_read)> loaded;
    std::function<void(Error)> failed;  // kIo, kBadFile; no more calls follow
    std::function<void()> delay;        // test hook: before each read and each pack; may be null
  };
  // What Open reserves (Owner::kIo), for bounce buffers of that size.
  static uint64_t IoBytes(uint64_t bounce_bytes);

  PartLoader() = default;
  ~PartLoader() { Stop(); }
  // Opens the files and reserves the bounce buffers.
  Status Open(const ModelFile& file, Ledger& ledger, uint64_t bounce_bytes);
  // Loads on the calling thread, before Start. Adds what was read to *bytes_read; after each piece,
  // `check` may end the load with its error.
  Status Load(const Job& job, uint8_t* destination, uint64_t* bytes_read,
              const std::function<Status()>& check);
  void Start(Hooks hooks);
  // Ends the threads, once the hooks do not block any more.
  void Stop();

 private:
  static constexpr size_t kBounces = 3;  // being read, waiting, being packed
  struct Raw {                           // a piece that was read and waits to be packed
    Job job;
    PartPiece piece;
    const uint8_t* rows = nullptr;
    size_t bounce = 0;
    bool first = false, last = false;
    uint64_t bytes_read = 0;  // of the whole part, where last
  };
  void ReadLoop();
  bool Read(const Job& job);
  void PackLoop();
  std::span<uint8_t> bounce(size_t i) {
    return {bounce_.data() + i * bounce_bytes_, bounce_bytes_};
  }

  uint64_t bounce_bytes_ = 0;
  std::vector<File> files_;
  Buffer bounce_;
  Hooks hooks_;
  std::mutex mutex_;
  std::condition_variable changed_;  // of what follows
  std::deque<Raw> raw_;
  std::array<bool, kBounces> free_{};
  bool stop_ = false;
  std::thread reader_, packer_;
};

}  // namespace snug
