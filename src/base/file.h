// Files as the engine reads them: positioned reads, buffered or direct, and safe replacement on
// write.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/status.h"

namespace snug {

inline constexpr uint64_t kDirectAlign =
    4096;  // alignment of offset, size and memory of direct reads

// A file open for reading. Move-only. Safe to read from several threads.
class File {
 public:
  File() = default;
  File(File&& other) noexcept { *this = std::move(other); }
  File& operator=(File&& other) noexcept;
  ~File();
  // `direct` bypasses the page cache where the file system allows it; where it refuses (EINVAL, on
  // opening or on reading), reads are ordinary and the pages they leave behind are dropped.
  // `refuse` is a test hook: as if the file system refused.
  static Result<File> Open(const std::string& path, bool direct = false, bool refuse = false);
  // Reads exactly `bytes` at `offset`; a short file is kBadFile, a failing read kIo. With direct
  // files offset, bytes and dst must be multiples of kDirectAlign, except that the read may end at
  // the end of the file: `bytes` may then reach past it, and *got says how much arrived.
  Status ReadAt(uint64_t offset, void* dst, uint64_t bytes, uint64_t* got = nullptr) const;
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  bool direct() const { return direct_; }
  // kIo when size or modification time differ from when the file was opened.
  Status CheckUnchanged() const;

 private:
  int fd_ = -1;
  bool direct_ = false;
  mutable std::atomic<bool> drop_{false};  // ordinary reads drop their pages
  uint64_t size_ = 0;
  int64_t mtime_ns_ = 0;
  std::string path_;
};

// Writes beside `path`, syncs and renames: an interrupted write leaves the old file or the new one.
Status WriteFileAtomically(const std::string& path, const void* data, size_t bytes);
Result<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes);

}  // namespace snug
