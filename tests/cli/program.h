// Runs the built program as a user's script would.
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "testing.h"

namespace snug::testing {

// The smallest model that programs are tried on.
inline std::string TinyQwen() { return GoldenPath("tiny/qwen2/model.gguf"); }

struct Outcome {
  int code = -1;  // the exit code, or -1 when a signal ended it
  std::string out, err;
  Json json() const {
    auto j = ParseJson(out, "stdout");
    EXPECT_TRUE(j.ok()) << out << err;
    return j.ok() ? *j : Json::object();
  }
  std::string error(const char* field) const {
    const Json j = json();
    if (!j.contains("error")) return "no error: " + out;
    const Json& value = j["error"][field];
    return value.is_string() ? value.get<std::string>() : DumpJson(value);
  }
};

struct Run {
  std::vector<std::string> args;
  std::string input;
  bool interrupt = false;  // send SIGINT as soon as something stands on stdout
  std::vector<std::pair<std::string, std::string>> env;
  uint64_t address_space = 0;  // bytes (ulimit -v); 0: as it is
};

inline Outcome Snug(const Run& run) {
  const std::string dir = TempDir();
  std::ofstream(dir + "/in", std::ios::binary) << run.input;
  const pid_t pid = fork();
  if (pid == 0) {
    if (freopen((dir + "/in").c_str(), "r", stdin) == nullptr ||
        freopen((dir + "/out").c_str(), "w", stdout) == nullptr ||
        freopen((dir + "/err").c_str(), "w", stderr) == nullptr) {
      _exit(99);
    }
    for (const auto& [name, value] : run.env) setenv(name.c_str(), value.c_str(), 1);
    if (run.address_space != 0) {
      const rlimit limit{run.address_space, run.address_space};
      if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(97);
    }
    std::string program = ProgramPath();
    std::vector<std::string> args = run.args;
    std::vector<char*> argv{program.data()};
    for (auto& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    execv(program.c_str(), argv.data());
    _exit(98);
  }
  int status = 0;
  bool ended = false;
  while (run.interrupt && !ended) {
    std::error_code none_yet;
    if (const auto n = std::filesystem::file_size(dir + "/out", none_yet); !none_yet && n > 0) {
      kill(pid, SIGINT);
      break;
    }
    ended = waitpid(pid, &status, WNOHANG) == pid;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (!ended) waitpid(pid, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, *ReadWholeFile(dir + "/out", 1 << 26),
          *ReadWholeFile(dir + "/err", 1 << 26)};
}

inline Outcome Snug(const std::vector<std::string>& args, const std::string& input = "") {
  return Snug(Run{args, input, false, {}, 0});
}

}  // namespace snug::testing
