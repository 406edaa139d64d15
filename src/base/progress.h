// Progress of long work: how much is done, how fast, how long still, and the memory held. On a
// terminal one line that changes, else a line now and then; work that is done at once says nothing.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace snug {

enum class ProgressUnit : uint8_t { kBytes, kTokens, kParts };

// "reading weights: 512.0 MiB of 1.04 GiB, 1.20 GiB/s, 1 s left"
std::string ProgressLine(const std::string& what, ProgressUnit unit, uint64_t done, uint64_t total,
                         double seconds);

class Progress {
 public:
  // Writes to `out` (null: nowhere), as to a terminal where `tty`.
  Progress(std::string what, ProgressUnit unit, std::FILE* out, bool tty);
  // To stderr unless `quiet`.
  Progress(std::string what, ProgressUnit unit, bool quiet);
  ~Progress() { Finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Cheap when called often: it writes at most some times a second.
  void Update(uint64_t done, uint64_t total);
  // Ends the line that stands on the terminal.
  void Finish();

 private:
  const std::string what_;
  const ProgressUnit unit_;
  std::FILE* const out_;
  const bool tty_;
  const double start_;
  double next_;  // when the next line is due
  size_t shown_ = 0;
};

}  // namespace snug
