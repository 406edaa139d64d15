// Ctrl-C: the first asks the verb to end with what it has, the second ends the program.
#pragma once

#include <atomic>

#include "base/status.h"

namespace snug::cli {

// Set by the first interrupt. The first call begins to watch for it.
const std::atomic<bool>& Interrupted();
// The kCancelled error of work that an interrupt ended.
Error Cancelled();

}  // namespace snug::cli
