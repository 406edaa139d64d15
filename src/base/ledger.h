// The memory ledger: every large buffer is reserved here, under an owner, before it is allocated,
// so that the process's peak resident memory stays within the budget the user declared.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>

#include "base/status.h"

namespace snug {

inline constexpr uint64_t kMiB = uint64_t{1} << 20;

// Bytes rounded up to whole cache lines.
constexpr uint64_t AlignBytes(uint64_t n) { return (n + 63) / 64 * 64; }

enum class Owner : uint8_t {
  kWeights,
  kKv,
  kActivations,
  kGradients,
  kOptimizer,
  kAdapters,
  kVocab,
  kIo,
  kScratch,
  kBase
};
inline constexpr size_t kOwners = 10;
std::string_view OwnerName(Owner owner);

class Ledger;

// Bytes held from a ledger until destroyed. Move-only.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept { *this = std::move(other); }
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation() { Release(); }
  uint64_t bytes() const { return bytes_; }
  void Release();

 private:
  friend class Ledger;
  Ledger* ledger_ = nullptr;
  Owner owner_ = Owner::kBase;
  uint64_t bytes_ = 0;
};

struct LedgerSnapshot {
  std::array<uint64_t, kOwners> now{};   // bytes held, by owner
  std::array<uint64_t, kOwners> peak{};  // each owner's own peak
  uint64_t total = 0;
  uint64_t total_peak = 0;  // peak of the sum; at most the sum of the peaks
  uint64_t limit = 0;
};

// Thread-safe.
class Ledger {
 public:
  explicit Ledger(uint64_t limit) { s_.limit = limit; }
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // Error kDoesNotFit, naming owner, `what`, the bytes asked and the bytes left.
  Result<Reservation> Reserve(Owner owner, uint64_t bytes, std::string_view what);
  LedgerSnapshot snapshot() const;
  uint64_t limit() const;
  uint64_t available() const;

  // Test hook: the n-th reservation from now (0 = the next) fails as if the budget were spent.
  void FailAfter(int64_t n);

 private:
  friend class Reservation;
  mutable std::mutex mutex_;
  LedgerSnapshot s_;
  int64_t fail_after_ = -1;
};

enum class Pages : uint8_t {
  kNormal,  // 4 KiB pages, resident as they are touched; counted in full
  kHuge,    // asks for transparent huge pages; size and count round up to 2 MiB
};

// Zeroed memory straight from the system, reserved from a ledger first. Move-only; aligned to 4096.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer() { Free(); }
  // Errors: kDoesNotFit from the ledger, kIo when the system refuses.
  static Result<Buffer> Allocate(Ledger& ledger, Owner owner, uint64_t bytes, Pages pages,
                                 std::string_view what);
  // What Allocate would reserve for `bytes`: the planner's side of the same rule.
  static uint64_t Reserved(uint64_t bytes, Pages pages);
  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  uint64_t size() const { return size_; }
  void Free();

 private:
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  Reservation reservation_;
};

}  // namespace snug
