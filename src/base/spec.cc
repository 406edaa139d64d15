#include "base/spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/nearest.h"

namespace snug {
namespace {

std::optional<double> Decimal(std::string_view text) {
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return {};
  return value;
}

// "0.2", "64", "1/16".
std::optional<double> Number(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return Decimal(text);
  const auto above = Decimal(text.substr(0, slash)), below = Decimal(text.substr(slash + 1));
  if (!above || !below || *below == 0) return {};
  return *above / *below;
}

std::optional<double> Index(std::span<const std::string_view> names, std::string_view text) {
  const auto at = std::find(names.begin(), names.end(), text);
  if (at == names.end()) return {};
  return static_cast<double>(at - names.begin());
}

// A value as it is read, whatever its bounds.
std::optional<double> Read(const SpecParameter& p, std::string_view text) {
  if (!p.names.empty()) return Index(p.names, text);
  if (p.automatic && text == "auto") return -1;
  return Number(text);
}

// What is wrong with a name, and which one was meant.
template <class Known>
Error Unknown(std::string message, std::string_view word, std::span<const Known> known) {
  std::vector<std::string> names;
  std::string all;
  for (const Known& k : known) {
    names.emplace_back(k.name);
    all += (all.empty() ? "" : ", ") + names.back();
  }
  const std::string near = NearestWord(word, names);
  std::string next = near.empty() ? "" : fmt::format("did you mean {}? ", near);
  next += names.empty() ? "it has none" : "one of " + all;
  return MakeError(Code::kUsage, std::move(message), std::move(next),
                   {{"value", std::string(word)}});
}

Result<double> Value(const SpecParameter& p, std::string_view method, std::string_view text,
                     std::string_view option) {
  const auto refuse = [&](const std::string& why) {
    return MakeError(Code::kUsage,
                     fmt::format("{} {}: {}={} {}", option, method, p.name, text, why),
                     fmt::format("for example {}={}", p.name, p.standard),
                     {{"option", std::string(option)},
                      {"parameter", std::string(p.name)},
                      {"value", std::string(text)}});
  };
  const auto value = Read(p, text);
  if (!p.names.empty()) {
    if (value) return *value;
    std::string all;
    for (const std::string_view name : p.names)
      all += fmt::format("{}{}", all.empty() ? "" : ", ", name);
    return refuse("is none of " + all);
  }
  if (p.automatic && text == "auto") return *value;
  if (!value) return refuse(p.automatic ? "is neither a number nor auto" : "is no number");
  if (p.whole && *value != std::floor(*value)) return refuse("is no whole number");
  if (*value < p.least || *value > p.most) {
    return refuse(fmt::format("is outside {} .. {}", p.least, p.most));
  }
  return *value;
}

}  // namespace

Result<SpecChoice> ParseSpec(std::string_view text, std::span<const SpecMethod> methods,
                             std::string_view option) {
  const std::string_view name = text.substr(0, text.find(':'));
  SpecChoice choice;
  while (choice.method < methods.size() && methods[choice.method].name != name) ++choice.method;
  if (choice.method == methods.size()) {
    return Unknown(fmt::format("{}: '{}' is no method", option, name), name, methods);
  }
  const std::span<const SpecParameter> parameters = methods[choice.method].parameters;
  std::vector<bool> given(parameters.size());
  for (const SpecParameter& p : parameters) {
    choice.values.push_back(*Read(p, p.standard));
  }
  if (name.size() == text.size()) return choice;
  std::string_view rest = text.substr(name.size() + 1);
  for (bool more = true; more;) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
    const size_t equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    size_t i = 0;
    while (i < parameters.size() && parameters[i].name != key) ++i;
    if (i == parameters.size()) {
      return Unknown(fmt::format("{}: {} has no parameter '{}'", option, name, key), key,
                     parameters);
    }
    if (given[i]) {
      return MakeError(Code::kUsage, fmt::format("{} {}: {} is given twice", option, name, key), {},
                       {{"parameter", std::string(key)}});
    }
    given[i] = true;
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1);
    SNUG_ASSIGN(choice.values[i], Value(parameters[i], name, value, option));
  }
  return choice;
}

}  // namespace snug
