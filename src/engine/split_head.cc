#include "engine/split_head.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <optional>

#include "weights/place.h"

namespace snug {
namespace {

constexpr size_t kCapacity = 4096;  // rows with exact logits that a search may return
constexpr size_t kPanelsPerTask = 16;

size_t BoundsBytes(size_t rows) { return AlignBytes(PlaneScratchFloats(rows) * sizeof(float)); }
size_t ListBytes(size_t rows) { return AlignBytes(PlaneMaxSurvivors(rows) * sizeof(uint32_t)); }

}  // namespace

uint64_t SplitHead::WeightBytes(uint64_t rows, uint64_t cols) {
  return Buffer::Reserved(PlaneHead::Bytes(rows, cols), Pages::kHuge);
}

uint64_t SplitHead::ScratchBytes(uint64_t rows) {
  return Buffer::Reserved(BoundsBytes(rows) + ListBytes(rows) + kCapacity * sizeof(Candidate),
                          Pages::kNormal);
}

uint64_t SplitHead::SearchBytes(uint64_t rows, uint64_t cols) {
  const PlaneHead head(nullptr, rows, cols);
  return head.panels() * head.high_bytes() + rows * sizeof(float);
}

Result<std::unique_ptr<SplitHead>> SplitHead::Load(const ModelFile& file,
                                                   std::span<const Part> parts, Ledger& ledger,
                                                   ThreadPool& pool) {
  auto h = std::make_unique<SplitHead>();
  const TensorInfo& info = *parts[0].tensors[0].info;
  const size_t rows = info.rows(), cols = info.cols();
  SNUG_ASSIGN(h->planes_, Buffer::Allocate(ledger, Owner::kWeights, PlaneHead::Bytes(rows, cols),
                                           Pages::kHuge, "head in bit planes"));
  SNUG_ASSIGN(h->scratch_, Buffer::Allocate(ledger, Owner::kScratch, ScratchBytes(rows),
                                            Pages::kNormal, "search of the head"));
  h->head_ = PlaneHead(h->planes_.data(), rows, cols);
  h->bounds_ = h->scratch_.as<float>();
  h->list_ = reinterpret_cast<uint32_t*>(h->scratch_.data() + BoundsBytes(rows));
  h->found_ =
      reinterpret_cast<Candidate*>(h->scratch_.data() + BoundsBytes(rows) + ListBytes(rows));
  SNUG_ASSIGN(Buffer bounce, Buffer::Allocate(ledger, Owner::kIo, LoadBytes(pool.size()),
                                              Pages::kNormal, "reading the head"));
  std::vector<File> files;
  for (const std::string& path : file.paths()) {
    SNUG_ASSIGN(File f, File::Open(path));
    files.push_back(std::move(f));
  }
  struct Job {
    const Part* part;
    PartPiece piece;
  };
  std::vector<Job> jobs;
  for (const Part& part : parts) {
    for (const PartPiece& piece : SplitPart(part, kBounceBytes)) jobs.push_back({&part, piece});
  }
  std::mutex mutex;
  std::optional<Error> error;
  pool.For(jobs.size(), [&](size_t i, int thread) {
    const Job& job = jobs[i];
    const std::span own(bounce.data() + thread * kBounceBytes, kBounceBytes);
    auto raw = ReadPiece(files, *job.part, job.piece, 0, own.data(), nullptr);
    if (raw.ok()) {
      ForTypedRows(*job.part, job.piece, *raw, own,
                   [&](uint32_t first, uint32_t n, const uint8_t* data) {
                     h->head_.Pack(data, job.part->tensors[0].first_row + first, n);
                   });
      return;
    }
    const std::lock_guard lock(mutex);
    if (!error) error = std::move(raw).error();
  });
  if (error) return *std::move(error);
  return h;
}

void SplitHead::Full(ThreadPool& pool, const Activations& x, float* out) const {
  const size_t panels = head_.panels();
  pool.For((panels + kPanelsPerTask - 1) / kPanelsPerTask, [&](size_t task, int) {
    const size_t first = task * kPanelsPerTask;
    head_.MatMul(x, first, std::min(first + kPanelsPerTask, panels), false, out, head_.rows());
  });
}

bool SplitHead::Top(ThreadPool& pool, const Activations& x, size_t top, float* out,
                    uint64_t* bytes) {
  PlaneQuery query;
  query.k = top;
  PlaneStats stats;
  const size_t n = PlaneTop(pool, head_, x, 0, query, bounds_, list_, found_, kCapacity, &stats);
  const size_t low_row = head_.cols() / kQBlock * 12;
  *bytes += head_.panels() * head_.high_bytes() + head_.rows() * sizeof(float) +
            stats.survivors * low_row;
  if (n == 0) return false;
  std::fill_n(out, head_.rows(), -std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < n; ++i) out[found_[i].row] = found_[i].logit;
  return true;
}

}  // namespace snug
