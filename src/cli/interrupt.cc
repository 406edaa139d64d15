#include "cli/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace snug::cli {
namespace {

std::atomic<bool> cancelled{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // a signal handler may use it

void CancelOrEnd(int) {
  if (cancelled.exchange(true)) _exit(128 + SIGINT);
}

}  // namespace

const std::atomic<bool>& Interrupted() {
  static const bool watching = [] {
    std::signal(SIGINT, CancelOrEnd);
    return true;
  }();
  (void)watching;
  return cancelled;
}

Error Cancelled() { return MakeError(Code::kCancelled, "interrupted"); }

}  // namespace snug::cli
