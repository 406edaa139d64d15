#include "base/scratch_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/machine.h"

namespace snug {
namespace {

constexpr const char* kElsewhere = "name a folder on a disk that has room (--kv-folder)";

Error Refused(Code code, const std::string& folder, const std::string& why) {
  return MakeError(code, fmt::format("{}: {}", folder, why), kElsewhere, {{"path", folder}});
}

// A file in `folder` that no name leads to, or -1.
int OpenUnnamed(const std::string& folder, int flags) {
  const int fd = open(folder.c_str(), O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC | flags, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) return fd;
  std::string name = folder + "/snug-XXXXXX";
  const int named = mkostemp(name.data(), O_CLOEXEC | flags);
  if (named >= 0) unlink(name.c_str());
  return named;
}

}  // namespace

ScratchFile& ScratchFile::operator=(ScratchFile&& o) noexcept {
  if (this == &o) return *this;
  if (fd_ >= 0) close(fd_);
  fd_ = std::exchange(o.fd_, -1);
  drop_ = o.drop_.load();
  folder_ = std::move(o.folder_);
  return *this;
}
ScratchFile::~ScratchFile() {
  if (fd_ >= 0) close(fd_);
}

Status ScratchFile::CheckRoom(const std::string& folder, uint64_t bytes) {
  struct stat st;
  if (stat(folder.c_str(), &st) != 0) return Refused(Code::kUsage, folder, std::strerror(errno));
  if (!S_ISDIR(st.st_mode)) return Refused(Code::kUsage, folder, "is no folder");
  struct statfs kind;
  if (statfs(folder.c_str(), &kind) != 0) return Refused(Code::kIo, folder, std::strerror(errno));
  if (kind.f_type == TMPFS_MAGIC || kind.f_type == RAMFS_MAGIC) {
    return Refused(Code::kUsage, folder, "lies in memory (tmpfs), which it would take");
  }
  const uint64_t free = uint64_t{kind.f_bavail} * static_cast<uint64_t>(kind.f_bsize);
  if (free >= bytes) return {};
  return MakeError(
      Code::kIo,
      fmt::format("{}: the disk has {} left of the {} needed", folder, FormatBytes(free),
                  FormatBytes(bytes)),
      kElsewhere,
      {{"path", folder}, {"needed", std::to_string(bytes)}, {"available", std::to_string(free)}});
}

Result<ScratchFile> ScratchFile::Create(const std::string& folder, uint64_t bytes) {
  SNUG_TRY(CheckRoom(folder, bytes));
  ScratchFile f;
  f.folder_ = folder;
  f.fd_ = OpenUnnamed(folder, O_DIRECT);
  if (f.fd_ < 0 && errno == EINVAL) {
    f.drop_ = true;
    f.fd_ = OpenUnnamed(folder, 0);
  }
  if (f.fd_ < 0) return f.Failed("create a file");
  if (bytes == 0 || fallocate(f.fd_, 0, 0, static_cast<off_t>(bytes)) == 0) return f;
  const bool unable = errno == EOPNOTSUPP || errno == ENOSYS;
  if (unable && ftruncate(f.fd_, static_cast<off_t>(bytes)) == 0) return f;
  return f.Failed(fmt::format("reserve {}", FormatBytes(bytes)).c_str());
}

Error ScratchFile::Failed(const char* what) const {
  return Refused(Code::kIo, folder_, fmt::format("cannot {}: {}", what, std::strerror(errno)));
}

bool ScratchFile::Undirect() const {
  if (drop_.exchange(true)) return false;
  fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) & ~O_DIRECT);
  return true;
}

Status ScratchFile::ReadAt(uint64_t offset, void* to, uint64_t bytes) const {
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t n =
        pread(fd_, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && (errno == EINTR || (errno == EINVAL && Undirect()))) continue;
    if (n < 0) return Failed("read the cache's file");
    if (n == 0) return Refused(Code::kIo, folder_, "the cache's file ends too early");
    done += static_cast<uint64_t>(n);
  }
  if (drop_) {
    posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  }
  return {};
}

Status ScratchFile::WriteAt(uint64_t offset, const void* from, uint64_t bytes) const {
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t n = pwrite(fd_, static_cast<const char*>(from) + done, bytes - done,
                             static_cast<off_t>(offset + done));
    if (n < 0 && (errno == EINTR || (errno == EINVAL && Undirect()))) continue;
    if (n < 0) return Failed("write the cache's file");
    done += static_cast<uint64_t>(n);
  }
  if (drop_) {
    // Pages are dropped only once they are written.
    constexpr unsigned kWritten =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), kWritten);
    posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  }
  return {};
}

}  // namespace snug
