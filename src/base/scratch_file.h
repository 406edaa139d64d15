// A temporary file that memory spills into: written and read at any place, gone when it is closed
// or the process ends, however it ends.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/status.h"

namespace snug {

// Move-only. Reads and writes are safe from several threads.
class ScratchFile {
 public:
  ScratchFile() = default;
  ScratchFile(ScratchFile&& other) noexcept { *this = std::move(other); }
  ScratchFile& operator=(ScratchFile&& other) noexcept;
  ~ScratchFile();

  // Whether `folder` can hold a file of so many bytes: kUsage where it is no folder or lies in
  // memory (tmpfs), kIo where its disk has too little room.
  static Status CheckRoom(const std::string& folder, uint64_t bytes);
  // A file without a name in `folder`, or one whose name is gone at once. Its blocks are reserved
  // where the file system can do that, so that writes do not run out of room. Reads and writes
  // bypass the page cache where the file system allows it; where not, the pages that they leave
  // behind are written and dropped. Errors: those of CheckRoom, kIo.
  static Result<ScratchFile> Create(const std::string& folder, uint64_t bytes);

  // Offset, bytes and memory are multiples of kDirectAlign (file.h). kIo, naming the folder.
  Status ReadAt(uint64_t offset, void* to, uint64_t bytes) const;
  Status WriteAt(uint64_t offset, const void* from, uint64_t bytes) const;

 private:
  // After an EINVAL of direct reading or writing: goes on without; false if it had before.
  bool Undirect() const;
  Error Failed(const char* what) const;

  int fd_ = -1;
  mutable std::atomic<bool> drop_{false};
  std::string folder_;
};

}  // namespace snug
