// Jinja's tokens, with trim_blocks and lstrip_blocks on, as transformers has them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace snug::jinja {

enum class TokenType : uint8_t {
  kData,           // text between tags, already stripped
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,  // as written, quotes included
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct LexToken {
  TokenType type = TokenType::kEnd;
  uint32_t at = 0;  // byte of the source
  std::string_view text;
};

// One newline for every kind of line end, and none at the very end.
std::string NormalizeNewlines(std::string_view source);

// The tokens of a normalized source, which must outlive them; the last is kEnd.
Result<std::vector<LexToken>> Tokenize(std::string_view source);

// An error at a byte of the source: adds line and column to the message and to the values.
Error At(Error error, std::string_view source, size_t at);

// The text of a kString token.
Result<std::string> Unquote(std::string_view token);

}  // namespace snug::jinja
