// How a verb declares its options: the few forms that Snug's verbs use. Behind them CLI11's
// templates are compiled once, in verb.cc, instead of once in each verb.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace snug::cli {

// A declared option. Modifiers return the option itself, to be chained.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  Option Required() const;
  // The value that the variable holds now is shown as the default.
  Option Default() const;
  // Read from this environment variable where the command line says nothing.
  Option Environment(const std::string& name) const;
  Option OneOf(std::initializer_list<std::string> values) const;
  Option Range(int low, int high) const;  // both included
  // Of a list: values separated by commas, or the option given again; one word each time.
  Option Commas() const;
  Option OneEach() const;  // of a list: the option given again, one word each time
  Option Needs(Option other) const;
  Option Excludes(Option other) const;
  bool given() const;

 private:
  CLI::Option* option_;
};

// One sub-command. A handle: the program's CLI::App owns what it declares.
class Verb {
 public:
  Verb(CLI::App& program, const std::string& name, const std::string& description);
  // `names` as CLI11 writes them: "NAME" for a positional, "-n,--name". The value is written to
  // `value`, which must outlive the parse: std::string, int, uint32_t, uint64_t, float, double,
  // optional int64_t or uint32_t, or a vector of std::string or uint32_t.
  template <class T>
  Option Add(const std::string& names, T& value, const std::string& help) const;
  Option Flag(const std::string& names, bool& value, const std::string& help) const;
  void Footer(const std::string& text) const;
  // What runs when the verb was chosen and all its words were understood.
  void Callback(std::function<void()> run) const;
  const CLI::App& app() const { return *app_; }

 private:
  CLI::App* app_;
};

}  // namespace snug::cli
