#include "base/ledger.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/machine.h"

namespace snug {
namespace {

constexpr uint64_t kPage = 4096, kHugePage = 2 * kMiB;

constexpr std::string_view kNames[kOwners] = {"weights",   "kv",       "activations", "gradients",
                                              "optimizer", "adapters", "vocab",       "io",
                                              "scratch",   "base"};

}  // namespace

std::string_view OwnerName(Owner owner) { return kNames[static_cast<size_t>(owner)]; }

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  Release();
  ledger_ = std::exchange(other.ledger_, nullptr);
  owner_ = other.owner_;
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void Reservation::Release() {
  if (ledger_ == nullptr) return;
  std::lock_guard lock(ledger_->mutex_);
  ledger_->s_.now[static_cast<size_t>(owner_)] -= bytes_;
  ledger_->s_.total -= bytes_;
  ledger_ = nullptr;
  bytes_ = 0;
}

Result<Reservation> Ledger::Reserve(Owner owner, uint64_t bytes, std::string_view what) {
  std::lock_guard lock(mutex_);
  const uint64_t left = s_.limit > s_.total ? s_.limit - s_.total : 0;
  const bool fail = fail_after_ == 0;
  if (fail_after_ >= 0) --fail_after_;
  if (fail || bytes > left) {
    return MakeError(
        Code::kDoesNotFit,
        fmt::format("{} ({}) needs {}, but only {} of the budget of {} are left", what,
                    OwnerName(owner), FormatBytes(bytes), FormatBytes(left), FormatBytes(s_.limit)),
        "raise --memory",
        {{"owner", std::string(OwnerName(owner))},
         {"needed", std::to_string(bytes)},
         {"left", std::to_string(left)},
         {"budget", std::to_string(s_.limit)}});
  }
  const auto i = static_cast<size_t>(owner);
  s_.now[i] += bytes;
  s_.total += bytes;
  s_.peak[i] = std::max(s_.peak[i], s_.now[i]);
  s_.total_peak = std::max(s_.total_peak, s_.total);
  Reservation r;
  r.ledger_ = this;
  r.owner_ = owner;
  r.bytes_ = bytes;
  return r;
}

LedgerSnapshot Ledger::snapshot() const {
  std::lock_guard lock(mutex_);
  return s_;
}

uint64_t Ledger::limit() const { return snapshot().limit; }

uint64_t Ledger::available() const {
  const LedgerSnapshot s = snapshot();
  return s.limit > s.total ? s.limit - s.total : 0;
}

void Ledger::FailAfter(int64_t n) {
  std::lock_guard lock(mutex_);
  fail_after_ = n;
}

uint64_t Buffer::Reserved(uint64_t bytes, Pages pages) {
  const uint64_t unit = pages == Pages::kHuge ? kHugePage : kPage;
  return (bytes + unit - 1) / unit * unit;
}

Result<Buffer> Buffer::Allocate(Ledger& ledger, Owner owner, uint64_t bytes, Pages pages,
                                std::string_view what) {
  Buffer b;
  const uint64_t size = Reserved(bytes, pages);
  SNUG_ASSIGN(b.reservation_, ledger.Reserve(owner, size, what));
  if (size == 0) return b;
  // Huge pages need an aligned range: map one unit more and give the ends back.
  const uint64_t slack = pages == Pages::kHuge ? kHugePage : 0;
  void* map = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) {
    return MakeError(Code::kIo,
                     fmt::format("the system refused {} for {}: {}", FormatBytes(size), what,
                                 std::strerror(errno)),
                     "lower --memory, or raise the limit that `snug doctor` names");
  }
  auto* p = static_cast<uint8_t*>(map);
  if (slack != 0) {
    const uint64_t head = (slack - reinterpret_cast<uintptr_t>(p) % slack) % slack;
    if (head != 0) munmap(p, head);
    p += head;
    if (slack != head) munmap(p + size, slack - head);
  }
  // Advice may be refused (a kernel without huge pages); the count holds either way.
  madvise(p, size, pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  b.data_ = p;
  b.size_ = size;
  return b;
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  Free();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  reservation_ = std::move(other.reservation_);
  return *this;
}

void Buffer::Free() {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
  reservation_.Release();
}

}  // namespace snug
