#include "format/reencode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "format/quantize.h"
#include "format/tensor_rows.h"

namespace snug {
namespace {

// Enough rows at once for sequential reads and for all threads.
constexpr uint64_t kBufferBytes = 64 * kMiB;
constexpr uint64_t kMaxRowsAtOnce = 1 << 20;

uint64_t Group(const Reencoding& r) { return std::max<uint64_t>(1, 2 * r.half); }

bool Plain(const Reencoding& r) {
  return r.half == 0 && r.value == nullptr && r.type == r.tensor->type &&
         !NeedsConversion(*r.tensor);
}

uint64_t Aligned(uint64_t n) { return (n + 63) / 64 * 64; }

// What a row takes: as stored, and as written unless that is the same.
uint64_t RowBytesOf(const Reencoding& r) {
  const uint64_t stored = ReadBytesPerRow(*r.tensor);
  return Plain(r) ? stored : stored + RowBytes(r.type, r.tensor->cols());
}
// And a row of float32 for each thread.
uint64_t FixedBytes(const Reencoding& r, int threads) {
  const uint64_t row = Plain(r) ? 0 : Aligned(r.tensor->cols() * sizeof(float));
  return kReadOverhead + row * static_cast<uint64_t>(threads) + 128;
}

}  // namespace

Result<Reencoder> Reencoder::Create(const ModelFile& file, const std::vector<Reencoding>& work,
                                    Ledger& ledger, ThreadPool& pool) {
  uint64_t least = 0;
  const TensorInfo* widest = nullptr;
  for (const Reencoding& r : work) {
    const uint64_t bytes = Group(r) * RowBytesOf(r) + FixedBytes(r, pool.size());
    if (bytes > least) widest = r.tensor;
    least = std::max(least, bytes);
  }
  const uint64_t free = ledger.available();
  const uint64_t bytes = std::max(least, std::min(kBufferBytes, free / 4 * 3));
  if (Buffer::Reserved(bytes, Pages::kNormal) > free) {
    return MakeError(Code::kDoesNotFit,
                     fmt::format("rows of {} need a buffer of {} bytes, but {} are left",
                                 widest->name, bytes, free),
                     "raise --memory or lower -t", {{"needed", std::to_string(bytes)}});
  }
  Reencoder e(file, pool);
  SNUG_ASSIGN(e.buffer_,
              Buffer::Allocate(ledger, Owner::kIo, bytes, Pages::kNormal, "rows of tensors"));
  return e;
}

void Reencoder::Convert(const Reencoding& r, uint64_t first, uint64_t rows, const uint8_t* stored,
                        uint8_t* out) {
  const TensorInfo& t = *r.tensor;
  const uint64_t from = StoredRowBytes(t), to = RowBytes(r.type, t.cols());
  uint8_t* scratch = buffer_.data() + buffer_.size() / 64 * 64;
  const uint64_t per_thread = Aligned(t.cols() * sizeof(float));
  pool_.For(rows, [&](size_t i, int thread) {
    auto* row = reinterpret_cast<float*>(scratch - per_thread * static_cast<uint64_t>(thread + 1));
    // Row i of what is written is row `source` of what was read.
    uint64_t source = i;
    if (r.half != 0) {
      const uint64_t in_group = i % (2 * r.half), group = i - in_group;
      source = group + (r.join ? in_group / 2 + in_group % 2 * r.half
                               : in_group % r.half * 2 + in_group / r.half);
    }
    RowsToFloat(t, stored + source * from, 1, row);
    if (r.value != nullptr) std::transform(row, row + t.cols(), row, r.value);
    const float* importance = r.importance == nullptr
                                  ? nullptr
                                  : r.importance + (first + i) / r.rows_per_slice * t.cols();
    Quantize(r.type, row, t.cols(), importance, out + i * to);
  });
}

Status Reencoder::Write(const Reencoding& r, uint64_t skip,
                        const std::function<Status(const uint8_t*, uint64_t)>& sink,
                        const std::atomic<bool>* cancel) {
  const TensorInfo& t = *r.tensor;
  const uint64_t group = Group(r);
  assert(r.rows % group == 0 && r.first_row + r.rows <= t.rows());
  const uint64_t to = RowBytes(r.type, t.cols());
  const uint64_t room = buffer_.size() - FixedBytes(r, pool_.size());
  const uint64_t at_once = std::min(kMaxRowsAtOnce, room / RowBytesOf(r) / group * group);
  assert(at_once > 0);
  for (uint64_t done = skip / to / group * group; done < r.rows; done += at_once) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed))
      return MakeError(Code::kCancelled, "interrupted", "run again to go on");
    const uint64_t rows = std::min(at_once, r.rows - done), first = r.first_row + done;
    SNUG_ASSIGN(const uint8_t* data,
                ReadRows(file_.files(), t, first, rows, buffer_.data(), nullptr));
    if (!Plain(r)) {
      uint8_t* out = buffer_.data() + Aligned(rows * ReadBytesPerRow(t) + kReadOverhead);
      Convert(r, first, rows, data, out);
      data = out;
    }
    // What an earlier run has written is not written again.
    const uint64_t start = done * to, end = start + rows * to;
    const uint64_t from = std::clamp(skip, start, end);
    if (from < end) SNUG_TRY(sink(data + (from - start), end - from));
  }
  return {};
}

}  // namespace snug
