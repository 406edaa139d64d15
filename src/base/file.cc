#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace snug {
namespace {
Error SystemError(const std::string& path, const char* what) {
  const int e = errno;
  return MakeError(e == ENOENT ? Code::kBadFile : Code::kIo,
                   fmt::format("{}: cannot {}: {}", path, what, std::strerror(e)), {},
                   {{"path", path}});
}
}  // namespace

File& File::operator=(File&& o) noexcept {
  if (this == &o) return *this;
  if (fd_ >= 0) close(fd_);
  fd_ = std::exchange(o.fd_, -1);
  direct_ = o.direct_;
  drop_ = o.drop_.load();
  size_ = o.size_;
  mtime_ns_ = o.mtime_ns_;
  path_ = std::move(o.path_);
  return *this;
}
File::~File() {
  if (fd_ >= 0) close(fd_);
}

Result<File> File::Open(const std::string& path, bool direct, bool refuse) {
  File f;
  f.path_ = path;
  f.direct_ = direct && !refuse;
  f.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | (f.direct_ ? O_DIRECT : 0));
  if (f.fd_ < 0 && f.direct_ && errno == EINVAL) {
    f.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    f.direct_ = false;
  }
  f.drop_ = direct && !f.direct_;
  if (f.fd_ < 0) return SystemError(path, "open");
  struct stat st;
  if (fstat(f.fd_, &st) != 0) return SystemError(path, "stat");
  f.size_ = static_cast<uint64_t>(st.st_size);
  f.mtime_ns_ = st.st_mtim.tv_sec * int64_t{1000000000} + st.st_mtim.tv_nsec;
  return f;
}
Status File::ReadAt(uint64_t offset, void* dst, uint64_t bytes, uint64_t* got) const {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t n =
        pread(fd_, static_cast<char*>(dst) + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EINVAL && direct_ && !drop_.exchange(true)) {
        fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) & ~O_DIRECT);
        continue;
      }
      return SystemError(path_, "read");
    }
    if (n == 0) break;
    done += static_cast<uint64_t>(n);
  }
  if (drop_) {
    posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(done), POSIX_FADV_DONTNEED);
  }
  if (got != nullptr)
    *got = done;
  else if (done < bytes)
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: ends at {}, {} bytes wanted at {}", path_, offset + done, bytes, offset),
        "the file is truncated");
  return {};
}

Status File::CheckUnchanged() const {
  struct stat st;
  if (fstat(fd_, &st) != 0) return SystemError(path_, "stat");
  const int64_t mtime = st.st_mtim.tv_sec * int64_t{1000000000} + st.st_mtim.tv_nsec;
  if (static_cast<uint64_t>(st.st_size) == size_ && mtime == mtime_ns_) return {};
  return MakeError(Code::kIo, fmt::format("{} changed while it was being read", path_),
                   "run again with a file that nothing writes to", {{"path", path_}});
}

Status WriteFileAtomically(const std::string& path, const void* data, size_t bytes) {
  const std::string temp = path + ".part";
  const int fd = open(temp.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError(temp, "create");
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = write(fd, static_cast<const char*>(data) + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      Error error = SystemError(temp, "write");
      close(fd);
      unlink(temp.c_str());
      return error;
    }
    done += static_cast<size_t>(n);
  }
  const bool synced = fsync(fd) == 0;
  close(fd);
  if (!synced || rename(temp.c_str(), path.c_str()) != 0) {
    Error error = SystemError(path, "write");
    unlink(temp.c_str());
    return error;
  }
  return {};
}

Result<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes) {
  SNUG_ASSIGN(const File file, File::Open(path));
  if (file.size() > max_bytes) {
    return MakeError(Code::kBadFile, fmt::format("{} has {} bytes, more than the {} allowed", path,
                                                 file.size(), max_bytes));
  }
  std::string text(file.size(), '\0');
  SNUG_TRY(file.ReadAt(0, text.data(), text.size()));
  return text;
}

}  // namespace snug
