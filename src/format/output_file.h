// Long writes that survive interruption: data goes to PATH.part, and every so often, and when the
// writing is given up, PATH.part.state notes, after a sync, how much of it is good. A run with the
// same identity goes on from there; any other begins anew. The file appears under its name when it
// is whole.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace snug {

class OutputFile {
 public:
  static constexpr uint64_t kCheckpoint = uint64_t{64} << 20;

  // `identity` says what the bytes follow from: sources, sizes, times, options. A kill loses what
  // was appended since the last note, up to `checkpoint` bytes.
  static Result<OutputFile> Create(const std::string& path, const std::string& identity,
                                   uint64_t checkpoint = kCheckpoint);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  // keeps what is written, and notes it

  uint64_t resumed() const { return resumed_; }    // bytes that an earlier run left
  uint64_t position() const { return position_; }  // where the next bytes go
  // Notes progress when `checkpoint` bytes have gone by since the last note.
  Status Append(const void* data, uint64_t bytes);
  // Syncs, renames and forgets the state.
  Status Finish();

 private:
  OutputFile() = default;
  Status Checkpoint();

  std::string path_, identity_;
  int fd_ = -1;
  uint64_t resumed_ = 0, position_ = 0, noted_ = 0, checkpoint_ = kCheckpoint;
};

}  // namespace snug
