// snug chat: a conversation with a model inside the budget, at a terminal or over a pipe.
#include "engine/chat.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <span>

#include "base/nearest.h"
#include "base/progress.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "cli/line_reader.h"

namespace snug::cli {
namespace {

struct ChatArgs {
  EngineArgs engine;
  ChatOptions chat;
  std::optional<int64_t> predict;
  std::string template_file;
  bool json = false, quiet = false, no_history = false;
};

// Escape sequences, empty where the output takes none.
struct Style {
  std::string_view dim, off;
};

bool TakesColor(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return isatty(fd) != 0 && (no_color == nullptr || *no_color == 0) &&
         (term == nullptr || std::string_view(term) != "dumb");
}

Style StyleOf(int fd) { return TakesColor(fd) ? Style{"\033[2m", "\033[0m"} : Style{}; }

std::string HistoryPath() {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state != 0) {
    return std::string(state) + "/snug/chat_history";
  }
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : std::string(home) + "/.local/state/snug/chat_history";
}

// What a model says, as a terminal may show it.
std::string Shown(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("\n\t", at), text.size());
    out += Printable(text.substr(at, end - at));
    if (end < text.size()) out += text[end];
    at = end + 1;
  }
  return out;
}

class Session {
 public:
  Session(Engine& engine, Chat chat, const ChatArgs& args)
      : engine_(engine),
        chat_(std::move(chat)),
        args_(args),
        out_(StyleOf(STDOUT_FILENO)),
        err_(StyleOf(STDERR_FILENO)) {}
  // Until the end of input or /exit. Returns the exit code: that of the first error.
  int Run(LineReader& reader);

 private:
  struct Command {
    std::string_view name, argument, help;
    Status (Session::*run)(const std::string& argument);
  };
  static std::span<const Command> Commands();

  // Whether a line is a command: a slash and letters, then nothing or an argument.
  static bool IsCommand(std::string_view line);
  Status RunCommand(std::string_view line);
  Status Say(std::string_view text);
  void PrintTurn(const ChatTurn& turn);
  // What a command has done, as text on stderr or as an object.
  void Note(std::string_view command, std::string_view text, Json fields = Json::object());

  Status Help(const std::string&);
  Status Exit(const std::string&);
  Status Clear(const std::string&);
  Status System(const std::string& text);
  Status Save(const std::string& path);
  Status Load(const std::string& path);
  Status Context(const std::string&);

  Engine& engine_;
  Chat chat_;
  const ChatArgs& args_;
  const Style out_, err_;
  bool leaving_ = false;
  bool warned_ = false;  // an interrupt has just been taken; the next at an empty line leaves
};

std::span<const Session::Command> Session::Commands() {
  static constexpr Command kCommands[] = {
      {"/help", "", "this list", &Session::Help},
      {"/exit", "", "leave (also Ctrl-D, or Ctrl-C twice)", &Session::Exit},
      {"/clear", "", "forget the conversation; the system message stays", &Session::Clear},
      {"/system", "[TEXT]", "show the system message, or replace it", &Session::System},
      {"/save", "FILE", "write the conversation as JSON", &Session::Save},
      {"/load", "FILE", "go on with a saved conversation", &Session::Load},
      {"/context", "", "bytes and tokens held", &Session::Context},
  };
  return kCommands;
}

bool Session::IsCommand(std::string_view line) {
  const std::string_view name = line.substr(0, line.find(' '));
  return name.size() > 1 && name[0] == '/' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz", 1) == std::string_view::npos;
}

Status Session::RunCommand(std::string_view line) {
  const std::string_view name = line.substr(0, line.find(' '));
  std::string_view argument = line.substr(name.size());
  argument.remove_prefix(std::min(argument.find_first_not_of(' '), argument.size()));
  std::vector<std::string> known;
  for (const Command& c : Commands()) {
    if (c.name == name) {
      const bool required = !c.argument.empty() && c.argument[0] != '[';
      if (required && argument.empty()) {
        return MakeError(Code::kUsage, fmt::format("{} needs an argument", name),
                         fmt::format("{} {}", name, c.argument));
      }
      return (this->*c.run)(std::string(argument));
    }
    known.emplace_back(c.name);
  }
  const std::string near = NearestWord(name, known);
  return MakeError(Code::kUsage, fmt::format("there is no command {}", name),
                   near.empty() ? "/help lists the commands"
                                : fmt::format("did you mean {}? /help lists all", near));
}

void Session::Note(std::string_view command, std::string_view text, Json fields) {
  if (args_.json) {
    Json out = {{"command", command}};
    out.update(fields);
    fmt::print("{}\n", DumpJson(out));
  } else if (!text.empty()) {
    fmt::print(stderr, "{}{}{}\n", err_.dim, text, err_.off);
  }
}

Status Session::Help(const std::string&) {
  std::string text;
  Json commands = Json::object();
  for (const Command& c : Commands()) {
    const std::string usage = fmt::format("{} {}", c.name, c.argument);
    text += fmt::format("{:<16}{}\n", usage, c.help);
    commands[std::string(c.name)] = c.help;
  }
  text += "Anything else is said to the model; a line that ends with \\ goes on in the next.";
  Note("/help", text, {{"commands", commands}});
  return {};
}

Status Session::Exit(const std::string&) {
  leaving_ = true;
  return {};
}

Status Session::Clear(const std::string&) {
  chat_.Clear();
  Note("/clear", "the conversation is empty");
  return {};
}

Status Session::System(const std::string& text) {
  if (!text.empty()) chat_.SetSystem(text);
  Note("/system",
       chat_.system().empty() ? "there is no system message" : "system: " + chat_.system(),
       {{"system", chat_.system()}});
  return {};
}

Status Session::Save(const std::string& path) {
  SNUG_TRY(chat_.Save(path));
  const size_t n = chat_.messages().size();
  Note("/save", fmt::format("{} messages written to {}", n, path),
       {{"path", path}, {"messages", n}});
  return {};
}

Status Session::Load(const std::string& path) {
  SNUG_TRY(chat_.Load(path));
  const size_t n = chat_.messages().size();
  Note("/load", fmt::format("{} messages read from {}", n, path),
       {{"path", path}, {"messages", n}});
  return {};
}

Status Session::Context(const std::string&) {
  const LedgerSnapshot ledger = engine_.ledger().snapshot();
  const uint32_t limit = engine_.options().context;
  std::string text = fmt::format("{} of {} tokens held, {} messages\n", engine_.length(0), limit,
                                 chat_.messages().size());
  for (size_t i = 0; i < kOwners; ++i) {
    if (ledger.now[i] == 0) continue;
    const auto owner = static_cast<Owner>(i);
    text += fmt::format("{:<14}{:>11}", OwnerName(owner), FormatBytes(ledger.now[i]));
    if (owner == Owner::kKv)
      text += fmt::format("  ({} in use)", FormatBytes(engine_.kv_bytes_held()));
    text += "\n";
  }
  text += fmt::format("{:<14}{:>11} of {}", "total", FormatBytes(ledger.total),
                      FormatBytes(ledger.limit));
  Note("/context", text,
       {{"tokens", {{"held", engine_.length(0)}, {"limit", limit}}},
        {"messages", chat_.messages().size()},
        {"bytes",
         {{"owners", OwnersJson(ledger.now)},
          {"kv_in_use", engine_.kv_bytes_held()},
          {"total", ledger.total},
          {"budget", ledger.limit},
          {"rss_peak", ReadProcessMemory().peak_rss}}}});
  return {};
}

void Session::PrintTurn(const ChatTurn& turn) {
  const Generation& g = turn.generation;
  const uint32_t held = engine_.length(0), limit = engine_.options().context;
  if (args_.json) {
    Json out = {{"role", "assistant"}, {"content", turn.content}};
    if (!turn.thinking.empty()) out["reasoning_content"] = turn.thinking;
    out.update({{"tokens", g.tokens},
                {"prompt_tokens", g.prompt_tokens},
                {"cached_tokens", g.cached_tokens},
                {"finish_reason", g.finish_reason},
                {"context", {{"held", held}, {"limit", limit}}},
                {"timings",
                 {{"prefill_tps", g.prefill_tps()},
                  {"decode_tps", g.decode_tps()},
                  {"ttft_ms", 1e3 * g.ttft_s}}},
                {"bytes_touched_per_token", g.bytes_touched_per_token},
                {"disk_bytes_per_token", g.disk_bytes_per_token}});
    fmt::print("{}\n", DumpJson(out));
    return;
  }
  fmt::print("\n");
  if (g.finish_reason == "cancelled") {
    fmt::print(stderr, "{}stopped{}\n", err_.dim,
               g.tokens.empty() ? "; the message is not part of the conversation" : "");
  } else if (g.finish_reason == "length" && held + 1 >= limit) {
    fmt::print(stderr, "{}the context of {} tokens is full; /clear begins anew\n", err_.dim, limit);
  }
  if (!args_.quiet) {
    fmt::print(stderr,
               "{}{} new of {} prompt tokens at {:.1f}/s, {} answered at {:.1f}/s, {} of {} held\n",
               err_.dim, g.prompt_tokens - g.cached_tokens, g.prompt_tokens, g.prefill_tps(),
               g.tokens.size(), g.decode_tps(), held, limit);
  }
  fmt::print(stderr, "{}", err_.off);
}

Status Session::Say(std::string_view text) {
  Progress reading("reading the prompt", ProgressUnit::kTokens, args_.quiet || args_.json);
  TurnOptions turn;
  turn.on_prefill = [&](uint32_t done, uint32_t total) {
    reading.Update(done, total);
    if (done == total) reading.Finish();
  };
  turn.cancel = &interrupted;
  TextKind last = TextKind::kAnswer;
  if (!args_.json) {
    // Thoughts are dim on a terminal; where the answer goes elsewhere they are not part of it.
    const bool terminal = isatty(STDOUT_FILENO) != 0;
    turn.on_text = [this, &last, terminal](TextKind kind, std::string_view piece) {
      FILE* to = kind == TextKind::kAnswer || terminal ? stdout : stderr;
      const Style style = kind == TextKind::kAnswer ? Style{} : terminal ? out_ : err_;
      if (kind != last && kind == TextKind::kAnswer) fmt::print(terminal ? stdout : stderr, "\n\n");
      fmt::print(to, "{}{}{}", style.dim, terminal ? Shown(piece) : std::string(piece), style.off);
      std::fflush(to);
      last = kind;
    };
  }
  interrupted = false;
  const Result<ChatTurn> answer = chat_.Say(engine_, text, turn);
  interrupted = false;
  if (!answer.ok()) return answer.error();
  warned_ = answer->generation.finish_reason == "cancelled";
  PrintTurn(*answer);
  return {};
}

int Session::Run(LineReader& reader) {
  int code = 0;
  while (!leaving_) {
    std::string line;
    const Result<LineReader::Event> event = reader.Read(&line);
    if (!event.ok()) return Report(event.error(), args_.json);
    if (*event == LineReader::Event::kEnd) break;
    if (*event != LineReader::Event::kLine) {
      if (*event == LineReader::Event::kInterruptedEmpty && warned_) break;
      warned_ = true;
      if (*event == LineReader::Event::kInterruptedEmpty && !args_.quiet) {
        fmt::print(stderr, "{}Ctrl-C again leaves{}\n", err_.dim, err_.off);
      }
      continue;
    }
    warned_ = false;
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    const Status done = IsCommand(line) ? RunCommand(line) : Say(line);
    if (!done.ok()) {
      const int failed = Report(done.error(), args_.json);
      if (code == 0) code = failed;
    }
    std::fflush(stdout);
  }
  return code;
}

Result<int> Run(ChatArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  if (a.predict && *a.predict != kFillContext) {
    if (*a.predict < 1 || *a.predict > UINT32_MAX) {
      return MakeError(Code::kUsage, fmt::format("-n {} is no number of tokens", *a.predict),
                       "give 1 or more, or -1 for what the context leaves",
                       {{"option", "--predict"}, {"value", std::to_string(*a.predict)}});
    }
    a.chat.max_tokens = static_cast<uint32_t>(*a.predict);
  }
  if (!a.template_file.empty()) {
    SNUG_ASSIGN(a.chat.template_source, ReadText(a.template_file, kMaxTemplate));
  }
  options.caller_bytes = kChatBytes;
  std::optional<Chat> chat;
  options.before_weights = [&](const Engine& engine) -> Status {
    SNUG_ASSIGN(Chat created, Chat::Create(engine, a.chat));
    chat.emplace(std::move(created));
    return {};
  };
  Progress loading("reading weights", ProgressUnit::kBytes, a.quiet);
  options.on_load = [&](uint64_t done, uint64_t total) {
    loading.Update(done, total);
    return !Interrupted();
  };
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  loading.Finish();
  const bool editing = isatty(STDIN_FILENO) != 0 && isatty(STDERR_FILENO) != 0 && !a.json;
  if (!a.quiet) {
    fmt::print(stderr, "{}: {}, weights {}; budget {} ({}), context {} ({}), {} threads ({}){}\n",
               Printable(engine->config().name), engine->config().arch,
               engine->plan().resident ? "resident" : "streamed", FormatBytes(options.budget.bytes),
               options.budget.origin, engine->options().context, a.engine.ContextOrigin(),
               engine->plan().threads, a.engine.ThreadsOrigin(),
               editing ? "; /help lists commands" : "");
  }
  int code = 0;
  {
    const std::unique_ptr<LineReader> reader =
        LineReader::Create(editing, TakesColor(STDERR_FILENO), a.no_history ? "" : HistoryPath());
    code = Session(*engine, *std::move(chat), a).Run(*reader);
  }
  if (!a.quiet) PrintMemoryTable(*engine);
  return code;
}

}  // namespace

void AddChat(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<ChatArgs>();
  Verb chat(app, "chat", "talk with a model inside the budget");
  chat.Footer(
      "example: snug chat model.gguf --memory 1.2GiB --system 'Answer briefly.'\n"
      "Ctrl-C stops an answer; twice at an empty line it leaves. With a pipe on standard input,\n"
      "each line is a turn. /help lists the commands.");
  a->engine.Add(chat);
  a->engine.AddKeep(chat);
  a->engine.AddReduce(chat);
  chat.Add("--system,--system-prompt", a->chat.system, "the system message");
  chat.Add("-n,--predict,--n-predict", a->predict,
           "tokens of an answer at most (-1, or not given: what the context leaves)");
  AddSampling(chat, a->chat.sampling);
  chat.Add("--chat-template-file", a->template_file,
           "a chat template (Jinja) in place of the model's own");
  chat.Flag("--no-history", a->no_history, "keep no history of what is typed");
  chat.Flag("--json", a->json, "one JSON object a turn on stdout");
  chat.Flag("-q,--quiet", a->quiet, "only answers, notes of commands and errors");
  chat.Callback([a, exit_code] {
    const Result<int> r = Run(*a);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
