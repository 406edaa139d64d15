#include "text/jinja/numbers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/jinja/chars.h"

namespace snug::jinja {
namespace {

std::string_view Strip(std::string_view s) {
  s = s.substr(0, BeforeSpaces(s));
  return s.substr(SkipSpaces(s, 0));
}

// Without the underscores that Python allows between digits; nothing where one is elsewhere.
std::optional<std::string> WithoutUnderscores(std::string_view s) {
  std::string out;
  const auto alnum = [&](size_t i) {
    return i < s.size() && std::isalnum(static_cast<unsigned char>(s[i])) != 0;
  };
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '_') {
      out += s[i];
    } else if (i == 0 || !alnum(i - 1) || !alnum(i + 1)) {
      return std::nullopt;
    }
  }
  return out;
}

}  // namespace

std::string FloatText(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  std::string_view s(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (s[0] == '-') {
    out = "-";
    s.remove_prefix(1);
  }
  const size_t e = s.find('e');
  const int exponent = std::atoi(std::string(s.substr(e + 1)).c_str());
  std::string digits(s.substr(0, 1));
  if (e > 2) digits += s.substr(2, e - 2);
  const auto part = [&](size_t from, size_t count = std::string::npos) {
    return std::string_view(digits).substr(from, count);
  };
  const size_t point = static_cast<size_t>(std::max(exponent, 0)) + 1;
  if (exponent < -4 || exponent >= 16) {  // where Python's repr changes to exponents
    out += digits[0];
    if (digits.size() > 1) out.append(1, '.').append(part(1));
    std::snprintf(buffer, sizeof buffer, "e%+03d", exponent);
    out += buffer;
  } else if (exponent < 0) {
    out.append("0.").append(static_cast<size_t>(-exponent - 1), '0').append(digits);
  } else if (digits.size() <= point) {
    out.append(digits).append(point - digits.size(), '0').append(".0");
  } else {
    out.append(part(0, point)).append(1, '.').append(part(point));
  }
  return out;
}

std::optional<int64_t> ParseInt(std::string_view text, int base, bool* too_large) {
  std::string_view s = Strip(text);
  bool negative = false;
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) {
    negative = s[0] == '-';
    s.remove_prefix(1);
  }
  if (s.size() > 2 && s[0] == '0') {
    const char x = static_cast<char>(s[1] | 0x20);
    const int prefix = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
    if (prefix != 0 && (base == 0 || base == prefix)) {
      base = prefix;
      s.remove_prefix(s[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) {
    base = 10;
    if (s.size() > 1 && s[0] == '0' && s.find_first_not_of("0_") != std::string_view::npos) {
      return std::nullopt;
    }
  }
  const std::optional<std::string> plain = WithoutUnderscores(s);
  if (!plain || plain->empty() || base < 2 || base > 36) return std::nullopt;
  if (!std::isalnum(static_cast<unsigned char>((*plain)[0]))) return std::nullopt;
  uint64_t magnitude = 0;
  const auto r = std::from_chars(plain->data(), plain->data() + plain->size(), magnitude, base);
  if (r.ptr != plain->data() + plain->size() && r.ec != std::errc::result_out_of_range) {
    return std::nullopt;
  }
  const uint64_t most = static_cast<uint64_t>(INT64_MAX) + (negative ? 1 : 0);
  if (r.ec == std::errc::result_out_of_range || magnitude > most) {
    if (r.ptr != plain->data() + plain->size()) return std::nullopt;
    *too_large = true;
    return std::nullopt;
  }
  return static_cast<int64_t>(negative ? 0 - magnitude : magnitude);
}

std::optional<double> ParseFloat(std::string_view text) {
  std::string_view s = Strip(text);
  bool negative = false;
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) {
    negative = s[0] == '-';
    s.remove_prefix(1);
  }
  const std::optional<std::string> plain = WithoutUnderscores(s);
  if (!plain || plain->empty()) return std::nullopt;
  std::string lower = *plain;
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  double d = 0;
  if (lower == "inf" || lower == "infinity") {
    d = INFINITY;
  } else if (lower == "nan") {
    d = NAN;
  } else {
    if (lower[0] != '.' && (lower[0] < '0' || lower[0] > '9')) return std::nullopt;
    const auto r = std::from_chars(lower.data(), lower.data() + lower.size(), d);
    if (r.ptr != lower.data() + lower.size()) return std::nullopt;
    // from_chars leaves d alone where the number is out of range.
    if (r.ec == std::errc::result_out_of_range) d = std::strtod(lower.c_str(), nullptr);
  }
  return negative ? -d : d;
}

double RoundTo(double d, int64_t digits) {
  constexpr int64_t kMost = 323, kLeast = -309;  // beyond, doubles have no digits
  if (!std::isfinite(d) || digits > kMost) return d;
  if (digits < kLeast) return std::copysign(0.0, d);
  if (digits < 0) {
    const double unit = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(d / unit) * unit;
  }
  // printf rounds the exact value, half to even.
  std::string text(static_cast<size_t>(digits) + 400, '\0');
  const int n = std::snprintf(text.data(), text.size(), "%.*f", static_cast<int>(digits), d);
  text.resize(static_cast<size_t>(n));
  return std::strtod(text.c_str(), nullptr);
}

std::string Digits(uint64_t magnitude, unsigned base, bool upper) {
  char buffer[64];
  size_t n = sizeof buffer;
  do {
    const unsigned digit = static_cast<unsigned>(magnitude % base);
    buffer[--n] = static_cast<char>(digit < 10 ? '0' + digit : (upper ? 'A' : 'a') + digit - 10);
    magnitude /= base;
  } while (magnitude != 0);
  return std::string(buffer + n, sizeof buffer - n);
}

std::string Grouped(std::string_view digits, char separator, size_t group) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % group == 0) out += separator;
    out += digits[i];
  }
  return out;
}

}  // namespace snug::jinja
