// snug chat over a pipe and at a terminal.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "cli/program.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

// A template that any vocabulary can write.
std::string TemplateFile() {
  const std::string path = testing::TempDir() + "/chat.jinja";
  std::ofstream(path)
      << "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] ";
  return path;
}

std::vector<std::string> Args(const std::vector<std::string>& more) {
  std::vector<std::string> args = {
      "chat", testing::TinyQwen(),    "--memory",    "128MiB", "-c", "256", "--temp",
      "0",    "--chat-template-file", TemplateFile()};
  args.insert(args.end(), more.begin(), more.end());
  if (std::find(more.begin(), more.end(), "-n") == more.end()) {
    args.insert(args.end(), {"-n", "8"});
  }
  return args;
}

std::vector<Json> Lines(const std::string& out) {
  std::vector<Json> objects;
  std::istringstream in(out);
  for (std::string line; std::getline(in, line);) {
    auto j = ParseJson(line, "a line");
    EXPECT_TRUE(j.ok()) << line;
    if (j.ok()) objects.push_back(*j);
  }
  return objects;
}

TEST(CliChat, EachLineIsATurn) {
  SNUG_NEED(testing::TinyQwen());
  const Outcome o = Snug(Args({"--json", "--system", "be brief"}), "one two\n\nthree\n");
  ASSERT_EQ(o.code, 0) << o.err;
  const std::vector<Json> turns = Lines(o.out);
  ASSERT_EQ(turns.size(), 2u);  // an empty line is none
  EXPECT_EQ(turns[0]["cached_tokens"], 0);
  EXPECT_GE(turns[1]["cached_tokens"].get<int>(), turns[0]["prompt_tokens"].get<int>() - 1);
  EXPECT_EQ(turns[0]["role"], "assistant");
  EXPECT_LE(turns[0]["tokens"].size(), 8u);
  EXPECT_EQ(turns[1]["context"]["limit"], 256);

  const Outcome text = Snug(Args({"-q", "--system", "be brief"}), "one two\n");
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(text.out, turns[0]["content"].get<std::string>() + "\n");
  EXPECT_EQ(text.out.find('\033'), std::string::npos);
  EXPECT_EQ(text.err, "");
}

TEST(CliChat, CommandsAndTheirErrors) {
  SNUG_NEED(testing::TinyQwen());
  const std::string path = testing::TempDir() + "/saved.json";
  const Outcome o = Snug(Args({"--json"}), "/system speak softly\nhello\n/save " + path +
                                               "\n/contxt\n/context\n/save\n"
                                               "/clear\n/load " +
                                               path +
                                               "\n/load /nonexistent\n/help\n/usr/bin is a path\n"
                                               "/exit\nnever said\n");
  EXPECT_EQ(o.code, 2) << o.err;  // of the first error
  const std::vector<Json> lines = Lines(o.out);
  ASSERT_EQ(lines.size(), 11u) << o.out;
  EXPECT_EQ(lines[0]["system"], "speak softly");
  EXPECT_EQ(lines[1]["role"], "assistant");
  EXPECT_EQ(lines[2]["messages"], 3);
  EXPECT_NE(lines[3]["error"]["next"].get<std::string>().find("/context"), std::string::npos);
  EXPECT_GT(lines[4]["tokens"]["held"].get<int>(), 0);
  EXPECT_EQ(lines[4]["bytes"]["budget"], 128 << 20);
  EXPECT_GT(lines[4]["bytes"]["owners"]["kv"].get<int64_t>(), 0);
  EXPECT_GT(lines[4]["bytes"]["kv_in_use"].get<int64_t>(), 0);
  EXPECT_EQ(lines[5]["error"]["code"], "usage");
  EXPECT_EQ(lines[6]["command"], "/clear");
  EXPECT_EQ(lines[7]["messages"], 3);
  EXPECT_EQ(lines[8]["error"]["code"], "bad_file");
  EXPECT_EQ(lines[9]["commands"].size(), 7u);
  EXPECT_EQ(lines[10]["role"], "assistant");
  const auto saved = ParseJson(*ReadWholeFile(path, 1 << 20), path);
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ((*saved)["messages"][0]["content"], "speak softly");
  EXPECT_EQ((*saved)["messages"][2]["content"], lines[1]["content"]);
}

TEST(CliChat, OverflowIsRefusedAndTheConversationGoesOn) {
  SNUG_NEED(testing::TinyQwen());
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word ";
  const Outcome o = Snug(Args({"--json"}), text + "\nshort\n");
  EXPECT_EQ(o.code, 4);
  const std::vector<Json> lines = Lines(o.out);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["error"]["code"], "does_not_fit");
  EXPECT_EQ(lines[0]["error"]["values"]["context"], 256);
  EXPECT_EQ(lines[1]["role"], "assistant");
}

TEST(CliChat, AModelWithoutATemplateIsRefused) {
  SNUG_NEED(testing::TinyQwen());
  const Outcome o = Snug({"chat", testing::TinyQwen(), "--memory", "128MiB", "--json"}, "hi\n");
  EXPECT_EQ(o.code, 3);
  EXPECT_NE(o.out.find("template"), std::string::npos) << o.out;
}

// The program at a terminal of its own.
class Terminal {
 public:
  explicit Terminal(const std::vector<std::string>& args) {
    winsize size = {24, 80, 0, 0};
    pid_ = forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ != 0) return;
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    unsetenv("NO_COLOR");
    std::string program = testing::ProgramPath();
    std::vector<std::string> copy = args;
    std::vector<char*> argv = {program.data()};
    for (auto& a : copy) argv.push_back(a.data());
    argv.push_back(nullptr);
    execv(program.c_str(), argv.data());
    _exit(98);
  }
  ~Terminal() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(fd_);
  }
  void Type(const std::string& text) {
    ASSERT_EQ(write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Reads on until `text` has shown; what showed before it is then forgotten.
  bool Shows(const std::string& text) {
    while (true) {
      if (const size_t at = seen_.find(text); at != std::string::npos) {
        seen_.erase(0, at + text.size());
        return true;
      }
      pollfd p = {fd_, POLLIN, 0};
      char chunk[4096];
      if (poll(&p, 1, 60000) <= 0) break;
      const ssize_t n = read(fd_, chunk, sizeof(chunk));
      if (n <= 0) break;
      seen_.append(chunk, static_cast<size_t>(n));
    }
    ADD_FAILURE() << "'" << text << "' does not show after: " << seen_;
    return false;
  }
  int Wait() {
    int status = 0;
    char chunk[4096];
    while (read(fd_, chunk, sizeof(chunk)) > 0) {
    }
    waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
  std::string seen_;
};

TEST(CliChat, ATerminalEditsRemembersAndInterrupts) {
  SNUG_NEED(testing::TinyQwen());
  Terminal t(Args({"--no-history", "-n", "200"}));
  ASSERT_TRUE(t.Shows("> "));
  t.Type("/sistem\x01\x06\x06\x04y\r");  // to the start, two forward, one away: /system
  ASSERT_TRUE(t.Shows("there is no system message"));
  ASSERT_TRUE(t.Shows("> "));
  t.Type("\x10 caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac\x7f\r");  // the last line again, and more
  ASSERT_TRUE(t.Shows("system: caf\xc3\xa9 \xe6\x97\xa5\033"));
  ASSERT_TRUE(t.Shows("> "));
  t.Type("typed and\x03");
  ASSERT_TRUE(t.Shows("> "));
  t.Type("hello\r");
  ASSERT_TRUE(t.Shows("hello\r\n"));
  t.Type("\x03");  // while it answers, or after
  ASSERT_TRUE(t.Shows("held"));
  ASSERT_TRUE(t.Shows("> "));
  t.Type("/context\r");
  ASSERT_TRUE(t.Shows("of 256 tokens held, 3 messages"));
  ASSERT_TRUE(t.Shows("> "));
  t.Type("\x03");
  ASSERT_TRUE(t.Shows("Ctrl-C again leaves"));
  ASSERT_TRUE(t.Shows("> "));
  t.Type("\x03");
  EXPECT_EQ(t.Wait(), 0);
}

TEST(CliChat, ControlDLeaves) {
  SNUG_NEED(testing::TinyQwen());
  Terminal t(Args({"--no-history"}));
  ASSERT_TRUE(t.Shows("> "));
  t.Type("\x04");
  EXPECT_EQ(t.Wait(), 0);
}

}  // namespace
}  // namespace snug
