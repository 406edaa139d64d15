#include "format/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/file.h"
#include "base/json.h"

namespace snug {
namespace {

constexpr uint64_t kMaxState = 1 << 20;

std::string PartOf(const std::string& path) { return path + ".part"; }
std::string StateOf(const std::string& path) { return path + ".part.state"; }

Error SystemError(const std::string& path, const char* what) {
  return MakeError(Code::kIo, fmt::format("{}: cannot {}: {}", path, what, std::strerror(errno)),
                   errno == ENOSPC ? "free some space on the disk and run again: it goes on" : "",
                   {{"path", path}});
}

// Bytes that an interrupted run with this identity has synced; 0 where there was none.
uint64_t GoodBytes(const std::string& path, const std::string& identity) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(PartOf(path), error);
  if (error || !std::filesystem::exists(StateOf(path), error)) return 0;
  const auto text = ReadWholeFile(StateOf(path), kMaxState);
  if (!text.ok()) return 0;
  const auto state = ParseJson(*text, StateOf(path));
  if (!state.ok() || !state->is_object()) return 0;
  const auto id = state->find("identity"), bytes = state->find("bytes");
  const bool same = id != state->end() && id->is_string() && *id == identity &&
                    bytes != state->end() && bytes->is_number_unsigned() &&
                    bytes->get<uint64_t>() <= size;
  return same ? bytes->get<uint64_t>() : 0;
}

}  // namespace

Result<OutputFile> OutputFile::Create(const std::string& path, const std::string& identity,
                                      uint64_t checkpoint) {
  OutputFile f;
  f.path_ = path;
  f.identity_ = identity;
  f.checkpoint_ = checkpoint;
  f.resumed_ = f.position_ = f.noted_ = GoodBytes(path, identity);
  f.fd_ = open(PartOf(path).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (f.fd_ < 0) return SystemError(PartOf(path), "create");
  if (ftruncate(f.fd_, static_cast<off_t>(f.position_)) != 0 ||
      lseek(f.fd_, static_cast<off_t>(f.position_), SEEK_SET) < 0)
    return SystemError(PartOf(path), "write");
  return f;
}

OutputFile::OutputFile(OutputFile&& o) noexcept
    : path_(std::move(o.path_)),
      identity_(std::move(o.identity_)),
      fd_(std::exchange(o.fd_, -1)),
      resumed_(o.resumed_),
      position_(o.position_),
      noted_(o.noted_),
      checkpoint_(o.checkpoint_) {}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  if (position_ > noted_) (void)Checkpoint();  // else the next run begins at the note before
  close(fd_);
}

Status OutputFile::Append(const void* data, uint64_t bytes) {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t n = write(fd_, static_cast<const char*>(data) + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(PartOf(path_), "write");
    done += static_cast<uint64_t>(n);
  }
  position_ += bytes;
  return position_ - noted_ < checkpoint_ ? Status() : Checkpoint();
}

Status OutputFile::Checkpoint() {
  if (fdatasync(fd_) != 0) return SystemError(PartOf(path_), "sync");
  // What is written need not stay in the page cache, which counts against a container's limit.
  posix_fadvise(fd_, static_cast<off_t>(noted_), static_cast<off_t>(position_ - noted_),
                POSIX_FADV_DONTNEED);
  const std::string state = DumpJson({{"identity", identity_}, {"bytes", position_}});
  SNUG_TRY(WriteFileAtomically(StateOf(path_), state.data(), state.size()));
  noted_ = position_;
  return {};
}

Status OutputFile::Finish() {
  const bool synced = fsync(fd_) == 0;
  close(std::exchange(fd_, -1));
  if (!synced || rename(PartOf(path_).c_str(), path_.c_str()) != 0)
    return SystemError(path_, "finish");
  unlink(StateOf(path_).c_str());
  return {};
}

}  // namespace snug
