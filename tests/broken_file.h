// The unlinked file of the process's own in a folder, made to fail.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace snug::testing {

// While it lives, reads and writes of the file go to `device` instead: those of /dev/full fail as
// on a full disk, those of /dev/null find the file's end.
class BrokenFile {
 public:
  BrokenFile(const std::string& folder, const char* device) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (target.rfind(folder + "/", 0) != 0 || target.find("(deleted)") == std::string::npos)
        continue;
      fd_ = std::stoi(entry.path().filename().string());
    }
    EXPECT_GE(fd_, 0) << "no unlinked file in " << folder;
    saved_ = dup(fd_);
    const int broken = open(device, O_RDWR);
    EXPECT_EQ(dup2(broken, fd_), fd_);
    close(broken);
  }
  ~BrokenFile() {
    dup2(saved_, fd_);
    close(saved_);
  }
  BrokenFile(const BrokenFile&) = delete;
  BrokenFile& operator=(const BrokenFile&) = delete;

 private:
  int fd_ = -1, saved_ = -1;
};

}  // namespace snug::testing
