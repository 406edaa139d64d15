// The resident place: all parts in one arena.
#include <fmt/format.h>

#include <atomic>
#include <mutex>
#include <optional>

#include "base/machine.h"
#include "weights/place.h"

namespace snug {
namespace {

class ResidentPlace final : public WeightPlace {
 public:
  Status Load(const ModelFile& file, const WeightLayout& layout, Ledger& ledger, ThreadPool& pool,
              const LoadProgress& progress);

  void BeginPass(size_t, size_t) override {}
  Result<const uint8_t*> Acquire(size_t part) override { return arena_.data() + offsets_[part]; }
  void Release(size_t) override {}
  PlaceStats stats() const override { return stats_; }
  bool resident() const override { return true; }

 private:
  Buffer arena_;
  std::vector<uint64_t> offsets_;
  PlaceStats stats_;
};

Status ResidentPlace::Load(const ModelFile& file, const WeightLayout& layout, Ledger& ledger,
                           ThreadPool& pool, const LoadProgress& progress) {
  SNUG_ASSIGN(arena_, Buffer::Allocate(ledger, Owner::kWeights, layout.total_bytes(), Pages::kHuge,
                                       "weights"));
  SNUG_ASSIGN(Buffer bounce, Buffer::Allocate(ledger, Owner::kIo, kBounceBytes * pool.size(),
                                              Pages::kNormal, "reading weights"));
  std::vector<File> files;
  for (const std::string& path : file.paths()) {
    SNUG_ASSIGN(File f, File::Open(path));
    files.push_back(std::move(f));
  }
  struct Job {
    const Part* part;
    uint64_t offset;
    PartPiece piece;
  };
  std::vector<Job> jobs;
  uint64_t total = 0;
  for (const Part& part : layout.parts) {
    const uint64_t offset = offsets_.empty() ? 0 : offsets_.back() + (&part)[-1].bytes;
    offsets_.push_back(offset);
    total += part.file_bytes;
    for (const PartPiece& piece : SplitPart(part, kBounceBytes))
      jobs.push_back({&part, offset, piece});
  }
  std::mutex mutex;  // of error and progress
  std::optional<Error> error;
  std::atomic<bool> failed{false};
  uint64_t done = 0;
  pool.For(jobs.size(), [&](size_t i, int thread) {
    if (failed.load(std::memory_order_relaxed)) return;
    uint64_t read = 0;
    const Job& job = jobs[i];
    const std::span own(bounce.data() + thread * kBounceBytes, kBounceBytes);
    auto raw = ReadPiece(files, *job.part, job.piece, own.data(), &read);
    if (raw.ok()) PackPiece(*job.part, job.piece, *raw, own, arena_.data() + job.offset);
    const std::lock_guard lock(mutex);
    done += read;
    if (!raw.ok()) {
      if (!error) error = std::move(raw).error();
      failed.store(true, std::memory_order_relaxed);
    } else if (progress && !error && !progress(done, total)) {
      error = LoadCancelled(done, total);
      failed.store(true, std::memory_order_relaxed);
    }
  });
  if (error) return *std::move(error);
  for (const File& f : files) SNUG_TRY(f.CheckUnchanged());
  stats_ = {done, layout.parts.size(), 0, layout.total_bytes(), 0};
  return {};
}

}  // namespace

Result<std::unique_ptr<WeightPlace>> MakeResidentPlace(const ModelFile& file,
                                                       const WeightLayout& layout, Ledger& ledger,
                                                       ThreadPool& pool,
                                                       const LoadProgress& progress) {
  auto place = std::make_unique<ResidentPlace>();
  SNUG_TRY(place->Load(file, layout, ledger, pool, progress));
  return std::unique_ptr<WeightPlace>(std::move(place));
}

Error LoadCancelled(uint64_t done, uint64_t total) {
  return MakeError(Code::kCancelled, fmt::format("cancelled after reading {} of {} of weights",
                                                 FormatBytes(done), FormatBytes(total)));
}

uint64_t ResidentBytes(const WeightLayout& layout) {
  return Buffer::Reserved(layout.total_bytes(), Pages::kHuge);
}

uint64_t LoadBytes(int threads) { return Buffer::Reserved(kBounceBytes * threads, Pages::kNormal); }

}  // namespace snug
