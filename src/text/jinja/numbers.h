// Numbers as Python reads, rounds and prints them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace snug::jinja {

// repr(): the shortest digits that give the number back, "1.0", "1e+16", "inf", "nan".
std::string FloatText(double d);
// int(text, base) and float(text); nothing where Python raises ValueError. `too_large` is set for
// integers beyond 64 bits.
std::optional<int64_t> ParseInt(std::string_view text, int base, bool* too_large);
std::optional<double> ParseFloat(std::string_view text);
// round(d, digits): half to even, on the exact value.
double RoundTo(double d, int64_t digits);
// The digits of an integer in base 2, 8, 10 or 16, without sign.
std::string Digits(uint64_t magnitude, unsigned base, bool upper = false);
// Puts `separator` between groups of digits, from the right.
std::string Grouped(std::string_view digits, char separator, size_t group);

}  // namespace snug::jinja
