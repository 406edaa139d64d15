#include "cli/line_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstring>
#include <cwchar>
#include <filesystem>
#include <string_view>

namespace snug::cli {

std::atomic<bool> interrupted{false};

namespace {

constexpr size_t kMaxLine = 1 << 20;
constexpr int kHistoryLines = 1000;

// A pipe that an interrupt writes to, so that one which comes just before the wait for input ends
// it too, whichever thread takes the signal.
int wake[2] = {-1, -1};

void OnInterrupt(int) {
  interrupted = true;
  const int error = errno;
  (void)!write(wake[1], "", 1);
  errno = error;
}
void OnResize(int) {}  // ends the wait for a key

// Without SA_RESTART: reads return.
void Handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(signal, &action, nullptr);
}

enum class Input { kReady, kInterrupted, kSignal };

// Waits for standard input to be readable, or at its end.
Input WaitForInput() {
  while (true) {
    if (interrupted.load()) return Input::kInterrupted;
    pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {wake[0], POLLIN, 0}};
    if (poll(p, 2, -1) < 0) return Input::kSignal;
    if (p[1].revents != 0) {
      char bytes[64];
      while (read(wake[0], bytes, sizeof(bytes)) > 0) {
      }
    } else if (p[0].revents != 0) {
      return Input::kReady;
    }
  }
}

class PipeReader final : public LineReader {
 public:
  Result<Event> Read(std::string* line) override {
    while (true) {
      if (interrupted.exchange(false)) return Event::kInterruptedEmpty;
      if (const size_t end = held_.find('\n'); end != std::string::npos) {
        line->assign(held_, 0, end);
        held_.erase(0, end + 1);
        return Event::kLine;
      }
      if (held_.size() > kMaxLine) {
        return MakeError(Code::kBadInput,
                         fmt::format("a line of input is longer than {} bytes", kMaxLine),
                         "each line of standard input is one message");
      }
      if (WaitForInput() != Input::kReady) continue;
      char chunk[4096];
      const ssize_t n = read(STDIN_FILENO, chunk, sizeof(chunk));
      if (n > 0) {
        held_.append(chunk, static_cast<size_t>(n));
      } else if (n < 0 && errno == EINTR) {
        continue;
      } else if (held_.empty()) {
        return Event::kEnd;
      } else {
        *line = std::move(held_);
        held_.clear();
        return Event::kLine;
      }
    }
  }

 private:
  std::string held_;
};

// libedit's editor over a read of our own, which an interrupt ends.
class Editor final : public LineReader {
 public:
  Editor(bool color, std::string history_path) : history_path_(std::move(history_path)) {
    // Characters are UTF-8 even where the environment names no locale.
    setlocale(LC_CTYPE, "");
    if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    Handle(SIGWINCH, OnResize);
    edit_ = el_init("snug", stdin, stderr, stderr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    if (!history_path_.empty()) history(history_, &event, H_LOAD, history_path_.c_str());
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_PROMPT_ESC, color ? ColorPrompt : PlainPrompt, '\1');
    el_set(edit_, EL_GETCFN, ReadCharacter);
    el_set(edit_, EL_HIST, history, history_);
    el_set(edit_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_set(edit_, EL_BIND, "\033[3~", "ed-delete-next-char", nullptr);
    // An interrupt would take with it what was written just before, the next prompt even.
    el_set(edit_, EL_SETTY, "-d", "+noflsh", nullptr);
    el_set(edit_, EL_SETTY, "-x", "+noflsh", nullptr);
    el_source(edit_, nullptr);  // the user's own ~/.editrc
  }
  ~Editor() override {
    HistEvent event;
    if (!history_path_.empty()) {
      std::error_code ignored;  // a history that cannot be kept is no error
      std::filesystem::create_directories(std::filesystem::path(history_path_).parent_path(),
                                          ignored);
      const mode_t mask = umask(0077);
      history(history_, &event, H_SAVE, history_path_.c_str());
      umask(mask);
    }
    history_end(history_);
    el_end(edit_);
  }

  Result<Event> Read(std::string* line) override {
    line->clear();
    while (true) {
      continued_ = !line->empty();
      int n = 0;
      el_set(edit_, EL_PREP_TERM, 1);  // before the prompt: keys typed at once are edited too
      const char* text = el_gets(edit_, &n);
      if (text == nullptr) {
        const bool stopped = interrupted.exchange(false);
        fmt::print(stderr, "\n");
        if (!stopped) return Event::kEnd;
        tcflush(STDIN_FILENO, TCIFLUSH);
        el_reset(edit_);
        return typed_ || continued_ ? Event::kInterrupted : Event::kInterruptedEmpty;
      }
      std::string_view piece(text, static_cast<size_t>(n));
      if (piece.ends_with('\n')) piece.remove_suffix(1);
      HistEvent event;
      if (!piece.empty()) history(history_, &event, H_ENTER, std::string(piece).c_str());
      const bool more = piece.ends_with('\\');
      if (more) piece.remove_suffix(1);
      line->append(piece);
      if (!more) return Event::kLine;
      line->push_back('\n');
    }
  }

 private:
  static Editor* Of(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return static_cast<Editor*>(self);
  }
  static char* PlainPrompt(EditLine* edit) {
    static char first[] = "> ", more[] = "| ";
    return Of(edit)->continued_ ? more : first;
  }
  static char* ColorPrompt(EditLine* edit) {
    static char first[] = "\1\033[1m\1> \1\033[0m\1", more[] = "\1\033[1m\1| \1\033[0m\1";
    return Of(edit)->continued_ ? more : first;
  }
  static int ReadCharacter(EditLine* edit, wchar_t* out) {
    mbstate_t state = {};
    while (true) {
      const Input input = WaitForInput();
      if (input == Input::kInterrupted) {
        const LineInfo* info = el_line(edit);
        Of(edit)->typed_ = info->lastchar != info->buffer;
        return -1;
      }
      if (input == Input::kSignal) {
        el_resize(edit);
        continue;
      }
      char byte;
      const ssize_t n = read(STDIN_FILENO, &byte, 1);
      if (n == 0) return 0;
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return -1;
      const size_t length = mbrtowc(out, &byte, 1, &state);
      if (length == static_cast<size_t>(-1)) {
        state = {};  // no character: skip what came of it
      } else if (length != static_cast<size_t>(-2)) {
        return 1;
      }
    }
  }

  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
  std::string history_path_;
  bool continued_ = false;  // the line goes on from one that ended with a backslash
  bool typed_ = false;      // whether the interrupted line had characters
};

}  // namespace

LineReader::LineReader() {
  // Without the pipe an interrupt still ends a wait that it comes after.
  if (wake[0] < 0 && pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) wake[0] = wake[1] = -1;
  Handle(SIGINT, OnInterrupt);
}
LineReader::~LineReader() { std::signal(SIGINT, SIG_DFL); }

std::unique_ptr<LineReader> LineReader::Create(bool editing, bool color,
                                               const std::string& history) {
  if (!editing) return std::make_unique<PipeReader>();
  return std::make_unique<Editor>(color, history);
}

}  // namespace snug::cli
