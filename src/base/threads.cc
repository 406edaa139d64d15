#include "base/threads.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace snug {
namespace {

// Rounds of the spinning wait: some tens of microseconds.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void FutexWait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr,
          nullptr, 0);
}

// Wakes who sleeps on `word`, after it was changed. A sleeper counts itself before it looks at the
// word again, so that either it sees the change or it is seen here (both in sequential order).
void Wake(std::atomic<uint32_t>& word, const std::atomic<uint32_t>& sleepers) {
  if (sleepers.load(std::memory_order_seq_cst) == 0) return;
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr,
          nullptr, 0);
}

// Waits until `word` differs from `value`; returns the new value.
uint32_t AwaitChange(std::atomic<uint32_t>& word, uint32_t value, std::atomic<uint32_t>& sleepers,
                     Wait wait) {
  const int spins = wait == Wait::kSpin ? kSpins : 0;
  for (int i = 0; i < spins; ++i) {
    const uint32_t now = word.load(std::memory_order_acquire);
    if (now != value) return now;
    Pause();
  }
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  uint32_t now;
  while ((now = word.load(std::memory_order_seq_cst)) == value) FutexWait(word, value);
  sleepers.fetch_sub(1, std::memory_order_relaxed);
  return now;
}

}  // namespace

ThreadPool::ThreadPool(int threads) : ranges_(std::make_unique<Range[]>(std::max(1, threads))) {
  workers_.reserve(static_cast<size_t>(std::max(0, threads - 1)));
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
  } catch (const std::system_error&) {
    // The system gives no more threads; size() says so.
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  Wake(epoch_, epoch_sleepers_);
  for (std::thread& w : workers_) w.join();
}

void ThreadPool::Drain(int thread) {
  for (int i = 0; i < size(); ++i) {
    Range& range = ranges_[(thread + i) % size()];
    for (;;) {
      const size_t task = range.next.fetch_add(1, std::memory_order_relaxed);
      if (task >= range.end) break;
      call_(arg_, task, thread);
    }
  }
}

void ThreadPool::Work(int thread) {
  uint32_t epoch = 0;
  for (;;) {
    epoch = AwaitChange(epoch_, epoch, epoch_sleepers_, wait_.load(std::memory_order_relaxed));
    if (stop_.load(std::memory_order_relaxed)) return;
    Drain(thread);
    if (running_.fetch_sub(1, std::memory_order_seq_cst) == 1) Wake(running_, running_sleepers_);
  }
}

void ThreadPool::Run(size_t tasks, Call call, void* arg) {
  if (tasks == 0) return;
  if (workers_.empty() || tasks == 1) {
    for (size_t i = 0; i < tasks; ++i) call(arg, i, 0);
    return;
  }
  call_ = call;
  arg_ = arg;
  for (int i = 0; i < size(); ++i) {
    ranges_[i].next.store(tasks * i / size(), std::memory_order_relaxed);
    ranges_[i].end = tasks * (i + 1) / size();
  }
  running_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  Wake(epoch_, epoch_sleepers_);
  Drain(0);
  for (uint32_t left; (left = running_.load(std::memory_order_acquire)) != 0;) {
    AwaitChange(running_, left, running_sleepers_, wait_.load(std::memory_order_relaxed));
  }
}

}  // namespace snug
