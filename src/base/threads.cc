#include "base/threads.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

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

void FutexWake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr,
          nullptr, 0);
}

// Waits until `word` differs from `value`; returns the new value.
uint32_t AwaitChange(std::atomic<uint32_t>& word, uint32_t value, Wait wait) {
  const int spins = wait == Wait::kSpin ? kSpins : 0;
  for (int i = 0; i < spins; ++i) {
    const uint32_t now = word.load(std::memory_order_acquire);
    if (now != value) return now;
    Pause();
  }
  uint32_t now;
  while ((now = word.load(std::memory_order_acquire)) == value) FutexWait(word, value);
  return now;
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  FutexWake(epoch_);
  for (std::thread& w : workers_) w.join();
}

void ThreadPool::Drain(int thread) {
  for (;;) {
    const size_t task = next_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks_) return;
    call_(arg_, task, thread);
  }
}

void ThreadPool::Work(int thread) {
  uint32_t epoch = 0;
  for (;;) {
    epoch = AwaitChange(epoch_, epoch, wait_.load(std::memory_order_relaxed));
    if (stop_.load(std::memory_order_relaxed)) return;
    Drain(thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) FutexWake(running_);
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
  tasks_ = tasks;
  next_.store(0, std::memory_order_relaxed);
  running_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  FutexWake(epoch_);
  Drain(0);
  for (uint32_t left; (left = running_.load(std::memory_order_acquire)) != 0;) {
    AwaitChange(running_, left, wait_.load(std::memory_order_relaxed));
  }
}

}  // namespace snug
