#include "kv/encoder.h"

#include <algorithm>
#include <cassert>
#include <system_error>

#include "kv/coded_pages.h"
#include "kv/tiles.h"

namespace snug {

TileEncoder::TileEncoder(const Options& options, std::vector<Layer> layers)
    : options_(options),
      layers_(std::move(layers)),
      begun_(options.sequences, 0),
      work_(options.sequences) {
  assert(layers_.size() == size_t{options_.sequences} * options_.layers);
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error&) {
    // Finish does without.
  }
}

TileEncoder::~TileEncoder() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_there_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void TileEncoder::Begin(uint32_t sequence, uint32_t first, uint32_t end) {
  assert(first >= begun_[sequence]);
  if (first >= end) return;
  {
    const std::lock_guard lock(mutex_);
    Work& work = work_[sequence];
    assert(first == begun_[sequence] || work.next == work.end);
    if (first > begun_[sequence]) work.next = uint64_t{first} * options_.layers;
    work.end = uint64_t{end} * options_.layers;
  }
  begun_[sequence] = end;
  work_there_.notify_one();
}

void TileEncoder::Finish(uint32_t sequence, uint32_t end, ThreadPool& pool) {
  uint64_t first = 0, last = 0;
  {
    const std::lock_guard lock(mutex_);
    Work& work = work_[sequence];
    first = work.next;
    last = std::min(work.end, uint64_t{end} * options_.layers);
    work.next = std::max(first, last);
  }
  if (first < last) {
    const uint32_t heads = options_.heads;
    pool.For((last - first) * heads, [&](size_t task, int) {
      Encode(sequence, first + task / heads, static_cast<uint32_t>(task % heads));
    });
  }
  std::unique_lock lock(mutex_);
  unit_done_.wait(lock, [&] { return coding_ != sequence || unit_ >= last; });
}

void TileEncoder::Discard(uint32_t sequence) {
  std::unique_lock lock(mutex_);
  work_[sequence] = {};
  unit_done_.wait(lock, [&] { return coding_ != sequence; });
  begun_[sequence] = 0;
}

uint32_t TileEncoder::Pick(uint32_t last) const {
  for (uint32_t i = 1; i <= options_.sequences; ++i) {
    const uint32_t sequence = (last + i) % options_.sequences;
    if (work_[sequence].next < work_[sequence].end) return sequence;
  }
  return kNone;
}

void TileEncoder::Run() {
  std::unique_lock lock(mutex_);
  for (uint32_t last = 0;;) {
    work_there_.wait(lock, [&] { return stop_ || (coding_ = Pick(last)) != kNone; });
    if (stop_) return;
    last = coding_;
    unit_ = work_[last].next++;
    lock.unlock();
    if (options_.delay) options_.delay();
    for (uint32_t head = 0; head < options_.heads; ++head) Encode(last, unit_, head);
    lock.lock();
    coding_ = kNone;
    unit_done_.notify_all();
  }
}

void TileEncoder::Encode(uint32_t sequence, uint64_t unit, uint32_t head) const {
  const auto tile = static_cast<uint32_t>(unit / options_.layers);
  const Layer& layer = layers_[sequence * options_.layers + unit % options_.layers];
  const uint8_t* exact = layer.exact[tile];
  const CodedPages::Added whole{tile * kTile, (tile + 1) * kTile, tile * kTile, (tile + 1) * kTile};
  CodedPages::EncodeTile(*layer.codec, whole, {head, tile}, options_.heads, options_.type,
                         exact + head * options_.key_tile,
                         exact + options_.heads * options_.key_tile + head * options_.value_tile,
                         layer.coded[tile]);
}

}  // namespace snug
