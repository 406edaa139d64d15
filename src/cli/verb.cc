#include "cli/verb.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <vector>

namespace snug::cli {

Option Option::Required() const { return Option(option_->required()); }
Option Option::Default() const { return Option(option_->capture_default_str()); }
Option Option::Environment(const std::string& name) const { return Option(option_->envname(name)); }
Option Option::OneOf(std::initializer_list<std::string> values) const {
  return Option(option_->check(CLI::IsMember(std::vector<std::string>(values))));
}
Option Option::Range(int low, int high) const {
  return Option(option_->check(CLI::Range(low, high)));
}
Option Option::Commas() const { return Option(option_->delimiter(',')).OneEach(); }
Option Option::OneEach() const { return Option(option_->allow_extra_args(false)); }
Option Option::Needs(Option other) const { return Option(option_->needs(other.option_)); }
Option Option::Excludes(Option other) const { return Option(option_->excludes(other.option_)); }
bool Option::given() const { return option_->count() > 0; }

Verb::Verb(CLI::App& program, const std::string& name, const std::string& description)
    : app_(program.add_subcommand(name, description)) {}

template <class T>
Option Verb::Add(const std::string& names, T& value, const std::string& help) const {
  return Option(app_->add_option(names, value, help));
}
template Option Verb::Add(const std::string&, std::string&, const std::string&) const;
template Option Verb::Add(const std::string&, int&, const std::string&) const;
template Option Verb::Add(const std::string&, uint32_t&, const std::string&) const;
template Option Verb::Add(const std::string&, uint64_t&, const std::string&) const;
template Option Verb::Add(const std::string&, std::optional<int64_t>&, const std::string&) const;
template Option Verb::Add(const std::string&, float&, const std::string&) const;
template Option Verb::Add(const std::string&, double&, const std::string&) const;
template Option Verb::Add(const std::string&, std::optional<uint32_t>&, const std::string&) const;
template Option Verb::Add(const std::string&, std::vector<std::string>&, const std::string&) const;
template Option Verb::Add(const std::string&, std::vector<uint32_t>&, const std::string&) const;

Option Verb::Flag(const std::string& names, bool& value, const std::string& help) const {
  return Option(app_->add_flag(names, value, help));
}
void Verb::Footer(const std::string& text) const { app_->footer(text); }
void Verb::Callback(std::function<void()> run) const { app_->callback(std::move(run)); }

}  // namespace snug::cli
