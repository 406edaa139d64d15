#include "weights/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "base/machine.h"

namespace snug {

Result<uint64_t> LoadParts(const ModelFile& file, const std::vector<LoadTarget>& targets,
                           Ledger& ledger, ThreadPool& pool, const LoadProgress& progress) {
  SNUG_ASSIGN(Buffer bounce, Buffer::Allocate(ledger, Owner::kIo, kBounceBytes * pool.size(),
                                              Pages::kNormal, "reading weights"));
  std::vector<File> files;
  for (const std::string& path : file.paths()) {
    SNUG_ASSIGN(File f, File::Open(path));
    files.push_back(std::move(f));
  }
  struct Job {
    const LoadTarget* target;
    PartPiece piece;
  };
  std::vector<Job> jobs;
  uint64_t total = 0;
  for (const LoadTarget& target : targets) {
    total += target.part->file_bytes;
    for (const PartPiece& piece : SplitPart(*target.part, kBounceBytes)) {
      jobs.push_back({&target, piece});
    }
  }
  std::mutex mutex;  // of error and progress
  std::optional<Error> error;
  std::atomic<bool> failed{false};
  uint64_t done = 0;
  pool.For(jobs.size(), [&](size_t i, int thread) {
    if (failed.load(std::memory_order_relaxed)) return;
    uint64_t read = 0;
    const auto& [target, piece] = jobs[i];
    const std::span own(bounce.data() + thread * kBounceBytes, kBounceBytes);
    auto raw = ReadPiece(files, *target->part, piece, target->copy, own.data(), &read);
    if (raw.ok()) PackPiece(*target->part, piece, *raw, own, target->destination);
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
  return done;
}

uint64_t LoadBytes(int threads) { return Buffer::Reserved(kBounceBytes * threads, Pages::kNormal); }

Error LoadCancelled(uint64_t done, uint64_t total) {
  return MakeError(Code::kCancelled, fmt::format("cancelled after reading {} of {} of weights",
                                                 FormatBytes(done), FormatBytes(total)));
}

uint64_t PartLoader::IoBytes(uint64_t bounce_bytes) {
  return Buffer::Reserved(bounce_bytes * kBounces, Pages::kNormal);
}

Status PartLoader::Open(const ModelFile& file, Ledger& ledger, uint64_t bounce_bytes) {
  bounce_bytes_ = bounce_bytes;
  SNUG_ASSIGN(bounce_, Buffer::Allocate(ledger, Owner::kIo, bounce_bytes * kBounces, Pages::kNormal,
                                        "streaming weights"));
  for (const std::string& path : file.paths()) {
    SNUG_ASSIGN(File f, File::Open(path, true));
    files_.push_back(std::move(f));
  }
  return {};
}

Status PartLoader::Load(const Job& job, uint8_t* destination, uint64_t* bytes_read,
                        const std::function<Status()>& check) {
  for (const PartPiece& piece : job.pieces) {
    SNUG_ASSIGN(const uint8_t* rows,
                ReadPiece(files_, *job.part, piece, job.copy, bounce(0).data(), bytes_read));
    PackPiece(*job.part, piece, rows, bounce(0), destination);
    SNUG_TRY(check());
  }
  return {};
}

void PartLoader::Start(Hooks hooks) {
  hooks_ = std::move(hooks);
  free_.fill(true);
  reader_ = std::thread([this] { ReadLoop(); });
  packer_ = std::thread([this] { PackLoop(); });
}

void PartLoader::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (reader_.joinable()) reader_.join();
  if (packer_.joinable()) packer_.join();
}

bool PartLoader::Read(const Job& job) {
  uint64_t read = 0;
  for (size_t i = 0; i < job.pieces.size(); ++i) {
    size_t slot = 0;
    {
      std::unique_lock lock(mutex_);
      auto free = [&] { return std::find(free_.begin(), free_.end(), true); };
      changed_.wait(lock, [&] { return stop_ || free() != free_.end(); });
      if (stop_) return false;
      slot = static_cast<size_t>(free() - free_.begin());
      free_[slot] = false;
    }
    if (hooks_.delay) hooks_.delay();
    auto rows = ReadPiece(files_, *job.part, job.pieces[i], job.copy, bounce(slot).data(), &read);
    if (!rows.ok()) {
      hooks_.failed(std::move(rows).error());
      return false;
    }
    {
      const std::lock_guard lock(mutex_);
      raw_.push_back({job, job.pieces[i], *rows, slot, i == 0, i + 1 == job.pieces.size(), read});
    }
    changed_.notify_all();
  }
  return true;
}

void PartLoader::ReadLoop() {
  while (const std::optional<Job> job = hooks_.next()) {
    for (const File& f : files_) {
      if (Status s = f.CheckUnchanged(); !s.ok()) return hooks_.failed(std::move(s).error());
    }
    if (!Read(*job)) return;
  }
}

void PartLoader::PackLoop() {
  uint8_t* destination = nullptr;
  for (;;) {
    Raw raw;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !raw_.empty(); });
      if (stop_) return;
      raw = raw_.front();
      raw_.pop_front();
    }
    if (raw.first && (destination = hooks_.destination(raw.job.id)) == nullptr) return;
    if (hooks_.delay) hooks_.delay();
    PackPiece(*raw.job.part, raw.piece, raw.rows, bounce(raw.bounce), destination);
    if (raw.last) hooks_.loaded(raw.job.id, raw.bytes_read);
    {
      const std::lock_guard lock(mutex_);
      free_[raw.bounce] = true;
    }
    changed_.notify_all();
  }
}

}  // namespace snug
