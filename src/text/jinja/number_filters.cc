// Filters of numbers.
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/numbers.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

Error TooLargeForInt() { return Fail("an integer does not fit in 64 bits"); }

// int(d) for a float: nothing for what has no integer, an error beyond 64 bits.
Result<std::optional<int64_t>> Truncated(double d) {
  if (!std::isfinite(d)) return std::optional<int64_t>();
  if (!(std::fabs(d) < 9223372036854775808.0)) return TooLargeForInt();
  return std::optional(static_cast<int64_t>(d));
}

Result<Value> Int(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("int", args, {"default", "base"}));
  SNUG_ASSIGN(const int64_t base, p.Int(1, 10));
  if (!self.defined()) return FailUndefined(self);
  if (self.is_integral()) return Value::Int(self.integer());
  const Value fallback = p.has(0) ? p[0] : Value::Int(0);
  std::optional<double> d;
  if (self.is(Kind::kFloat)) {
    if (std::isinf(self.number())) return Fail("cannot convert float infinity to integer");
    d = self.number();
  } else if (self.is(Kind::kString)) {
    if (!rt.SpendOn(self.text().size())) return rt.Exhausted();
    bool too_large = false;
    const bool valid_base = base == 0 || (base >= 2 && base <= 36);
    const auto i = ParseInt(self.text(), valid_base ? static_cast<int>(base) : -1, &too_large);
    if (too_large) return TooLargeForInt();
    if (i) return Value::Int(*i);
    d = ParseFloat(self.text());
  }
  if (!d) return fallback;
  SNUG_ASSIGN(const std::optional<int64_t> i, Truncated(*d));
  return i ? Value::Int(*i) : fallback;
}

Result<Value> Float(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("float", args, {"default"}));
  if (!self.defined()) return FailUndefined(self);
  if (self.is_number()) return Value::Float(self.number());
  if (self.is(Kind::kString)) {
    if (!rt.SpendOn(self.text().size())) return rt.Exhausted();
    if (const auto d = ParseFloat(self.text())) return Value::Float(*d);
  }
  return p.has(0) ? p[0] : Value::Float(0);
}

Result<Value> RoundCommon(const Value& self, int64_t precision) {
  if (self.is(Kind::kFloat)) return Value::Float(RoundTo(self.number(), precision));
  if (precision >= 0) return Value::Int(self.integer());
  int64_t unit = 1;
  for (int64_t i = precision; i < 0; ++i) {
    if (__builtin_mul_overflow(unit, 10, &unit)) return Value::Int(0);
  }
  // Half to even, on the multiples of the unit.
  const int64_t i = self.integer();
  int64_t down = i / unit - (i % unit < 0 ? 1 : 0);
  const int64_t rest = i - down * unit;
  if (rest > unit - rest || (rest == unit - rest && down % 2 != 0)) ++down;
  if (__builtin_mul_overflow(down, unit, &down)) return TooLargeForInt();
  return Value::Int(down);
}

Result<Value> Round(Runtime&, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("round", args, {"precision", "method"}));
  SNUG_ASSIGN(const int64_t precision, p.Int(0, 0));
  SNUG_ASSIGN(const std::string_view method, p.String(1, "common"));
  if (!self.is_number()) return Fail(fmt::format("round() wants a number, not {}", TypeName(self)));
  if (method == "common") return RoundCommon(self, precision);
  if (method != "ceil" && method != "floor") {
    return Fail("round() knows the methods common, ceil and floor");
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = self.number() * unit;
  if (!std::isfinite(scaled)) return Fail("round(): the number is too large");
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

Result<Value> Abs(Runtime&, const Value& self, const Args& args) {
  SNUG_TRY(Params::Bind("abs", args, {}));
  if (self.is(Kind::kFloat)) return Value::Float(std::fabs(self.number()));
  if (!self.is_integral()) return Fail(fmt::format("abs() wants a number, not {}", TypeName(self)));
  if (self.integer() < 0) return Negate(self);
  return Value::Int(self.integer());
}

Result<Value> FileSize(Runtime& rt, const Value& self, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("filesizeformat", args, {"binary"}));
  std::optional<double> bytes;
  if (self.is_number()) bytes = self.number();
  if (self.is(Kind::kString)) bytes = ParseFloat(self.text());
  if (!bytes || !std::isfinite(*bytes)) return Fail("filesizeformat() wants a number");
  const bool binary = p.True(0, false);
  const double base = binary ? 1024 : 1000;
  if (*bytes == 1) return rt.NewString("1 Byte");
  if (*bytes < base) return rt.NewString(fmt::format("{:.0f} Bytes", std::trunc(*bytes)));
  const std::string_view prefixes = binary ? "KMGTPEZY" : "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  for (; i + 1 < prefixes.size() && *bytes >= unit * base; ++i) unit *= base;
  return rt.NewString(fmt::format("{:.1f} {}{}", *bytes / unit, prefixes[i], binary ? "iB" : "B"));
}

}  // namespace

const NamedFilter kNumberFilters[] = {
    {"abs", Abs},     {"filesizeformat", FileSize}, {"float", Float}, {"int", Int},
    {"round", Round}, {nullptr, nullptr},
};

}  // namespace snug::jinja
