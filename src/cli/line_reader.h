// Lines from whoever sits at the other end of standard input: a person, with editing and history,
// or a pipe.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/status.h"

namespace snug::cli {

// Set by SIGINT while a LineReader exists; whoever acts on it clears it.
extern std::atomic<bool> interrupted;

class LineReader {
 public:
  enum class Event {
    kLine,
    kInterrupted,       // Ctrl-C; what had been typed is gone
    kInterruptedEmpty,  // Ctrl-C, nothing typed
    kEnd                // the end of input, or Ctrl-D at an empty line
  };
  virtual ~LineReader();
  // With `editing`, on a terminal; the prompt and what is typed show on stderr. History is kept in
  // the file at `history` (mode 0600, the last 1000 lines), or only until the end where it is
  // empty. Otherwise whole lines of standard input, at most 1 MiB each.
  static std::unique_ptr<LineReader> Create(bool editing, bool color, const std::string& history);
  // The next line, without its end. kBadInput for a line that is too long.
  virtual Result<Event> Read(std::string* line) = 0;

 protected:
  LineReader();
};

}  // namespace snug::cli
