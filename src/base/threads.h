// A fixed team of threads for data-parallel loops. The caller is thread 0. Workers spin briefly
// between loops (decode has hundreds of short ones per token) and then sleep on a futex.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace snug {

enum class Wait : uint8_t {
  kSpin,   // spin some tens of microseconds before sleeping: lowest latency
  kSleep,  // sleep at once: leaves the core to a loader thread while weights are streamed
};

class ThreadPool {
 public:
  // Fewer threads, as size() says, where the system refuses some.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  void set_wait(Wait wait) { wait_.store(wait, std::memory_order_relaxed); }

  // Calls fn(task, thread) for every task in [0, tasks); returns when all are done. Each thread
  // takes a run of neighbouring tasks in order, then what others have left: neighbours read
  // neighbouring memory. Allocates nothing. Not reentrant; fn must not throw.
  template <class F>
  void For(size_t tasks, F&& fn) {
    using Fn = std::remove_reference_t<F>;
    Run(
        tasks, [](void* f, size_t task, int thread) { (*static_cast<Fn*>(f))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Call = void (*)(void*, size_t, int);
  void Run(size_t tasks, Call call, void* arg);
  void Work(int thread);
  void Drain(int thread);

  struct alignas(64) Range {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  std::vector<std::thread> workers_;
  std::unique_ptr<Range[]> ranges_;  // [threads]
  std::atomic<Wait> wait_{Wait::kSpin};
  Call call_ = nullptr;
  void* arg_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<uint32_t> running_{0};
  // Threads asleep on epoch_ and on running_: where there are none, waking costs no system call.
  alignas(64) std::atomic<uint32_t> epoch_sleepers_{0};
  alignas(64) std::atomic<uint32_t> running_sleepers_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace snug
