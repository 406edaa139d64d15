#include "cli/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace snug::cli {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // a signal handler may use it

void OnInterrupt(int) {
  if (interrupted.exchange(true)) _exit(128 + SIGINT);
}

}  // namespace

const std::atomic<bool>& Interrupted() {
  static const bool watching = [] {
    std::signal(SIGINT, OnInterrupt);
    return true;
  }();
  (void)watching;
  return interrupted;
}

Error Cancelled() { return MakeError(Code::kCancelled, "interrupted"); }

}  // namespace snug::cli
