#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>

#include "base/machine.h"

namespace snug {
namespace {

// Seconds before the first line and between lines.
constexpr double kFirst = 0.5, kTerminal = 0.2, kLog = 5;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string Duration(double seconds) {
  const auto s = static_cast<uint64_t>(std::ceil(seconds));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}:{:02} min", s / 60, s % 60);
  return fmt::format("{}:{:02} h", s / 3600, s / 60 % 60);
}

}  // namespace

std::string ProgressLine(const std::string& what, ProgressUnit unit, uint64_t done, uint64_t total,
                         double seconds) {
  const bool bytes = unit == ProgressUnit::kBytes;
  const auto amount = [&](uint64_t n) { return bytes ? FormatBytes(n) : std::to_string(n); };
  std::string line = fmt::format("{}: {} of {}{}", what, amount(done), amount(total),
                                 unit == ProgressUnit::kTokens ? " tokens" : "");
  if (done == 0 || seconds <= 0) return line;
  const double rate = static_cast<double>(done) / seconds;
  line += bytes ? fmt::format(", {}/s", FormatBytes(static_cast<uint64_t>(rate)))
                : fmt::format(", {:.1f}/s", rate);
  if (done < total) line += fmt::format(", {} left", Duration((total - done) / rate));
  return line;
}

Progress::Progress(std::string what, ProgressUnit unit, std::FILE* out, bool tty)
    : what_(std::move(what)),
      unit_(unit),
      out_(out),
      tty_(tty),
      start_(Now()),
      next_(start_ + (tty ? kFirst : kLog)) {}

Progress::Progress(std::string what, ProgressUnit unit, bool quiet)
    : Progress(std::move(what), unit, quiet ? nullptr : stderr, isatty(STDERR_FILENO) != 0) {}

void Progress::Update(uint64_t done, uint64_t total) {
  if (out_ == nullptr) return;
  const double now = Now();
  if (now < next_) return;
  next_ = now + (tty_ ? kTerminal : kLog);
  std::string line = ProgressLine(what_, unit_, done, total, now - start_);
  line += fmt::format(", {} held", FormatBytes(ReadProcessMemory().rss));
  if (!tty_) {
    fmt::print(out_, "{}\n", line);
    return;
  }
  // A shorter line must cover the one that stood there.
  fmt::print(out_, "\r{:<{}}", line, shown_);
  std::fflush(out_);
  shown_ = line.size();
}

void Progress::Finish() {
  if (shown_ != 0) fmt::print(out_, "\r{:<{}}\r", "", shown_);
  shown_ = 0;
}

}  // namespace snug
