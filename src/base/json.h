// JSON from outside: bounded in depth and size, duplicate keys refused, errors typed. And output
// that cannot throw on text that is not UTF-8.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace snug {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  uint64_t bytes = 64u << 20;
  int depth = 64;
};

// `what` names the source in errors (a path, "request"). kBadInput with the position otherwise.
Result<Json> ParseJson(std::string_view text, std::string_view what, const JsonLimits& limits = {});
// Invalid UTF-8 becomes U+FFFD. indent < 0: one line.
std::string DumpJson(const Json& json, int indent = -1);

}  // namespace snug
